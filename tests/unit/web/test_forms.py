"""The token of a form is good for its user and path, for a while."""

import pytest

from postfix_mtasts.web.forms import VALID, is_valid, token

KEY, NOW = b"k" * 32, 1_800_000_000.5
MADE = token(KEY, "anna", "/do/enforce/example.com", NOW)


@pytest.mark.parametrize("now", [NOW - 59, NOW, NOW + VALID - 1])
def test_valid(now: float) -> None:
    assert is_valid(MADE, KEY, "anna", "/do/enforce/example.com", now)


@pytest.mark.parametrize(
    ("given", "key", "user", "path", "now"),
    [
        pytest.param(MADE, b"x" * 32, "anna", "/do/enforce/example.com", NOW, id="another-process"),
        pytest.param(MADE, KEY, "bert", "/do/enforce/example.com", NOW, id="another-user"),
        pytest.param(MADE, KEY, "anna", "/do/remove/example.com", NOW, id="another-button"),
        pytest.param(MADE, KEY, "anna", "/do/enforce/example.org", NOW, id="another-domain"),
        pytest.param(MADE, KEY, "anna", "/do/enforce/example.com", NOW + VALID + 1, id="too-old"),
        pytest.param(MADE, KEY, "anna", "/do/enforce/example.com", NOW - 62, id="from-the-future"),
        pytest.param(f"1{MADE}", KEY, "anna", "/do/enforce/example.com", NOW, id="another-time"),
        pytest.param("", KEY, "anna", "/do/enforce/example.com", NOW, id="empty"),
        pytest.param(".", KEY, "anna", "/do/enforce/example.com", NOW, id="dot"),
        pytest.param("1800000000.", KEY, "anna", "/do/enforce/example.com", NOW, id="unsigned"),
        pytest.param("9" * 5000 + ".00", KEY, "anna", "/do/enforce/example.com", NOW, id="huge"),
        pytest.param("١٨٠٠٠٠٠٠٠٠.00", KEY, "anna", "/do/enforce/example.com", NOW, id="other-digits"),
        pytest.param("1800000000.é", KEY, "anna", "/do/enforce/example.com", NOW, id="not-ascii"),
    ],
)
def test_not_valid(given: str, key: bytes, user: str, path: str, now: float) -> None:
    assert not is_valid(given, key, user, path, now)


def test_user_and_path_are_apart() -> None:
    made = token(KEY, "a", "b/c", NOW)
    assert not is_valid(made, KEY, "ab", "/c", NOW)
