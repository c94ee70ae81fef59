"""What a JSON document may cost: counted in octets and seconds of the processor, in a process of its own."""

from collections.abc import Callable

import pytest

from postfix_mtasts.reports.decompress import MAX_REPORT
from postfix_mtasts.reports.document import MAX_DEPTH, load
from postfix_mtasts.reports.parse import parse
from postfix_mtasts.reports.report import ReportError
from tests.unit.reports.measure import cost
from tests.unit.reports.reports import DETAILS, RIGHT, spoiled

EMOJI = "\U0001f600"
TOO_LONG = "a text longer than 100000 octets"


def filled(item: str, most: int = MAX_REPORT, between: str = ",") -> bytes:
    """A list of as many items as fit, or fewer."""
    size = len((item + between).encode())
    count = min(most, (MAX_REPORT - 2) // size)
    return b"[" + between.join([item] * count).encode() + b"]"


def distinct(template: str, count: int) -> str:
    return ",".join(template % number for number in range(count))


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "depth": (lambda: b"[" * MAX_REPORT, "more than 400000 brackets and commas"),
    "depth that fits": (lambda: b"[" * 200_000, "nested deeper than 20 levels"),
    "lists": (lambda: filled("[]"), "more than 400000 brackets and commas"),
    "lists that fit": (lambda: filled("[]", 133_000), ""),
    "objects that fit": (lambda: filled('{"a":1}', 99_000), ""),
    "names": (lambda: b"{" + distinct('"' + 37 * "a" + '%06d":1', 170_000).encode() + b"}", ""),
    "a name twice": (lambda: b"{" + distinct('"%06d":1', 170_000).encode() + b',"7":1,"7":2}', "the name '7' stands"),
    "texts": (lambda: b"[" + distinct('"' + 37 * "a" + "%06d\u0101" + '"', 170_000).encode() + b"]", ""),
    "wide texts": (lambda: b"[" + distinct('"' + 900 * "a" + "%06d" + EMOJI + '"', 10_000).encode() + b"]", ""),
    "wider texts": (lambda: filled('"' + EMOJI + '"'), "more than 350000 quotes"),
    "wide characters": (lambda: filled('"' + 2000 * EMOJI + '"'), "more than 10000 characters of four octets"),
    "one text": (lambda: b'["' + b"a" * (MAX_REPORT - 4) + b'"]', TOO_LONG),
    "a text without an end": (lambda: b'["' + b"[" * (MAX_REPORT - 2), TOO_LONG),
    "quotes": (lambda: b'"' * MAX_REPORT, "more than 350000 quotes"),
    "quotes that fit": (lambda: b'"' * 350_000, "after the end of the JSON document there is"),
    "escapes": (lambda: filled('"' + r"\n" * 1000 + '"'), "more than 200000 backslashes"),
    "escapes that fit": (lambda: filled('"' + (r"\n" + 48 * "a" + "\u20ac") * 1900 + '"'), ""),
    "backslashes outside of texts": (lambda: b"[" + b"\\" * 200_000, "not JSON: Expecting value"),
    "long numbers": (lambda: filled("1" * 4000), ""),
    "a longer number": (lambda: b"1" * MAX_REPORT, "a number has too many digits"),
    "a long fraction": (lambda: b"1" * (MAX_REPORT - 2) + b".5", ""),
    "blanks": (lambda: b" " * (MAX_REPORT - 2) + b"[]", ""),
    "blanks behind": (lambda: b"[]" + b" " * (MAX_REPORT - 2), ""),
    "not UTF-8": (lambda: b"[" + b"\xff" * (MAX_REPORT - 1), "not UTF-8: byte 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_a_document_costs_is_bounded(name: str) -> None:
    make, expected = BOMBS[name]
    found = cost(make, load)
    assert found.reason.startswith(expected)
    assert bool(found.reason) == bool(expected)
    assert found.seconds < 3  # A tenth of this where nothing else runs.
    assert found.kilobytes < 100_000


def test_a_report_of_ten_thousand_failures_is_read() -> None:
    failures = RIGHT["policies"][0]["failure-details"] * 10_000
    assert len(parse(spoiled(DETAILS, failures)).policies[0].failures) == 10_000


def test_brackets_in_texts_are_no_levels() -> None:
    assert load(b'["[[[[[[[[[[[[[[[[[[[[[\\"[", "\\\\", {"{{{{{{{{{{{{{{{{{{{{{": [1]}]') == [
        21 * "[" + '"[',
        "\\",
        {21 * "{": [1]},
    ]


def test_depth() -> None:
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert isinstance(load(deepest), list)
    with pytest.raises(ReportError, match=r"^nested deeper than 20 levels$"):
        load(b"[" + deepest + b"]")
