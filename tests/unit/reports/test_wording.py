"""Numbers and foreign text as pages show them."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.reports.wording import MAX_TEXT, number, share, shown


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "0 %"),
        (0, 100, "0 %"),
        (1, 3, "33.33 %"),
        (1, 2, "50 %"),
        (1, 1000, "0.1 %"),
        (1, 10_000, "0.01 %"),
        (1, 10_001, "under 0.01 %"),
        (99_999, 100_000, "over 99.99 %"),
        (100, 100, "100 %"),
    ],
)
def test_share(part: int, whole: int, text: str) -> None:
    assert share(part, whole) == text


def test_number() -> None:
    assert [number(one) for one in (0, 999, 1000, 1234567)] == ["0", "999", "1,000", "1,234,567"]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ("Company-X", "Company-X"),
        ("Müller & Söhne <GmbH>", "Müller & Söhne <GmbH>"),
        ("a\x1b]0;b\x07\r\n\tc\x7f", r"a\x1b]0;b\x07\r\n\tc\x7f"),
        ("moc\u202eevil\u2066", r"moc\u202eevil\u2066"),
        ("goo\u200bgle\ufeff\u00ad", r"goo\u200bgle\ufeff\xad"),
        ("a\u2028b\u2029\x85", r"a\u2028b\u2029\x85"),
        ("\ud800\U000e0041", r"\ud800\U000e0041"),
        ("a\u00a0b", r"a\xa0b"),
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
        ("x" * (MAX_TEXT + 1), "x" * (MAX_TEXT - 1) + "…"),
    ],
)
def test_what_is_not_to_be_seen_is_escaped(said: str, text: str) -> None:
    assert shown(said) == text


@given(st.text(alphabet=st.characters(), max_size=300))
def test_nothing_invisible_is_left(said: str) -> None:
    assert {unicodedata.category(one)[0] for one in shown(said) if one != " "} <= set("LMNPS")
    assert shown(said).encode("utf-8", "strict") == shown(said).encode("utf-8", "surrogatepass")
