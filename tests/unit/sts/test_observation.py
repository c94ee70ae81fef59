"""What an adapter saw, where strangers have a say in it."""

import pytest

from postfix_mtasts.sts.observation import MAX_REASON, Failure, Stage


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("x" * MAX_REASON, "x" * MAX_REASON),
        ("x" * (MAX_REASON + 1), "x" * (MAX_REASON - 3) + "..."),
        ("x" * 1_000_000, "x" * (MAX_REASON - 3) + "..."),
    ],
    ids=["as long as it may be", "one character more", "a megabyte"],
)
def test_a_reason_is_short(reason: str, kept: str) -> None:
    assert Failure(Stage.RESPONSE, reason).reason == kept
