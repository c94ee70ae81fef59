import contextlib
import itertools
import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.sts.record import Record, RecordError, find_record, slip
from tests.unit.strategies import near, records
from tests.unit.vectors import load, split

OWN_ANSWERS: dict[str, tuple[Record | type[RecordError] | None, str]] = {
    "wsp-before-first-semicolon": (Record("foo"), "the rule that discards records speaks of several; this is one"),
    "only-wsp-variant-plus-unrelated": (None, "of several records, those without the literal v=STSv1; are discarded"),
    "two-identical-sts-records": (Record("1"), "an RRset has no duplicates (RFC 2181, 5), so this is one record"),
    "version-dup-other": (Record("a"), "the first of a field counts (RFC 8461, 3.2, last paragraph)"),
    "id-dup-same": (Record("a"), "the first of a field counts"),
    "id-dup-different": (Record("foo"), "the first of a field counts"),
    "id-dup-second-invalid": (Record("good1"), "the second id is ignored, and fits the grammar of an extension"),
    "trailing-wsp-no-semicolon": (RecordError, "blanks belong to a semicolon; what is malformed is no policy"),
    "long-record-60k-ext": (Record("a"), "DNS bounds a record, we need no bound of our own"),
}
REASONS = {
    "syntax": r"column \d+: expected name=value, got .*|\w+ is empty|id must be 1 to 32 letters and digits, not .*"
    r"|remove the (extra semicolon in column \d+|blank at the end)|v=STSv1 must be followed by \";\", not by .*",
    "missing-id": "id is missing",
    "multiple-records": r"2 records begin with v=STSv1; remove all but one",
}
DECIDED, AMBIGUOUS = split(load("txt_records.json"))

_TOKENS = ("v=STSv1", ";", " ", "\t", "id=", "a1", "=", "ext=x", "v=STSv10", "id=a-b", "\n", "\0", "é")


def _message(records: Iterable[list[bytes]]) -> str:
    """Why there is no valid record; empty if there is one, or none at all."""
    try:
        find_record(records)
    except RecordError as error:
        return str(error)
    return ""


def _octets(strings: list[list[str]]) -> list[list[bytes]]:
    return [[string.encode("latin-1") for string in record] for record in strings]


@pytest.mark.parametrize(
    ("strings", "expect"), [pytest.param(case["txt_strings"], case["expect"], id=case["name"]) for case in DECIDED]
)
def test_vectors(strings: list[list[str]], expect: dict[str, str]) -> None:
    if expect["valid"]:
        assert find_record(_octets(strings)) == Record(expect["id"])
    elif expect["reason"] == "no-record":
        assert find_record(_octets(strings)) is None
    else:
        assert re.fullmatch(REASONS[expect["reason"]], _message(_octets(strings)))


@pytest.mark.parametrize(
    ("strings", "name"), [pytest.param(case["txt_strings"], case["name"], id=case["name"]) for case in AMBIGUOUS]
)
def test_ambiguous_vectors(strings: list[list[str]], name: str) -> None:
    answer, _ = OWN_ANSWERS[name]
    if answer is RecordError:
        with pytest.raises(RecordError):
            find_record(_octets(strings))
    else:
        assert find_record(_octets(strings)) == answer


def test_every_ambiguous_vector_has_our_answer() -> None:
    assert set(OWN_ANSWERS) == {case["name"] for case in AMBIGUOUS}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        pytest.param(
            [b"v=STSv1; id=1", b"v=STSv1; id=2"], "2 records begin with v=STSv1; remove all but one", id="two"
        ),
        pytest.param(
            [b"v=STSv1; id=1", b"v=STSv1;"] * 2,
            "2 records begin with v=STSv1; remove all but one",
            id="duplicates count once",
        ),
        pytest.param([b"v=STSv1"], "id is missing", id="version alone"),
        pytest.param([b"v=STSv1;"], "id is missing", id="version and semicolon"),
        pytest.param([b"v=STSv1; ID=1"], "id is missing", id="names are case-sensitive"),
        pytest.param(
            [b"v=STSv10; id=1"], "v=STSv1 must be followed by \";\", not by '0; id=1'", id="other version, alone"
        ),
        pytest.param([b"v=STSv1;; id=1"], "remove the extra semicolon in column 9", id="empty field"),
        pytest.param([b"v=STSv1; id"], "column 10: expected name=value, got 'id'", id="no equals sign"),
        pytest.param([b"v=STSv1; id="], "id is empty", id="empty value"),
        pytest.param([b"v=STSv1; id=;"], "id is empty", id="empty value and semicolon"),
        pytest.param([b"v=STSv1; id=1; x= "], "x is empty", id="blank for the value of an extension"),
        pytest.param([b"v=STSv1; id= 1"], "column 10: expected name=value, got 'id= 1'", id="blank before the value"),
        pytest.param([b"v=STSv1; id=1 "], "remove the blank at the end", id="blank at the end"),
        pytest.param([b"v=STSv1 id=1"], "v=STSv1 must be followed by \";\", not by ' id=1'", id="no semicolon"),
        pytest.param(
            [b"v=STSv1; id=a_b;"],
            "id must be 1 to 32 letters and digits, not 'a_b'",
            id="no letter or digit in the id",
        ),
        pytest.param(
            [b"v=STSv1; id=\xe9"], "column 10: expected name=value, got 'id=\\xe9'", id="isalnum() of Latin-1"
        ),
        pytest.param(
            [b"v=STSv1; id=1\n"], "column 10: expected name=value, got 'id=1\\n'", id="$ matches before a newline"
        ),
        pytest.param(
            [b"v=STSv1;\xa0id=1"], "column 9: expected name=value, got '\\xa0id=1'", id="strip() eats this blank"
        ),
        pytest.param(
            [b"v=STSv1; id=1; " + b"x" * 33 + b"=1"],
            f"column 16: expected name=value, got '{'x' * 20}...'",
            id="quotes 20 octets",
        ),
    ],
)
def test_messages(records: list[bytes], message: str) -> None:
    assert _message([record] for record in records) == message


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"; id=a" + b" " * 65_000 + b"x", id="blanks"),
        pytest.param(b"; id=a; x=" + b"=" * 65_000 + b"\0", id="equals signs"),
        pytest.param(b"; id=a" + b";" * 65_000, id="semicolons"),
        pytest.param(b"; id=" + b"a" * 65_000, id="id"),
    ],
)
def test_long_malformed_record(tail: bytes) -> None:
    with pytest.raises(RecordError):
        find_record([[b"v=STSv1" + tail]])


@given(records, st.lists(st.binary(max_size=20).map(lambda octets: b"!" + octets)))
def test_printed_record_parses_among_others(record: Record, others: list[bytes]) -> None:
    assert find_record([[octets] for octets in [*others, str(record).encode()]]) == record


@given(records, st.lists(st.integers(0, 45)))
def test_record_may_be_split_anywhere(record: Record, cuts: list[int]) -> None:
    octets = str(record).encode()
    edges = [0, *sorted(cuts), len(octets)]
    assert find_record([[octets[a:b] for a, b in itertools.pairwise(edges)]]) == record


@given(st.lists(st.lists(st.binary() | near(*_TOKENS).map(str.encode)), max_size=4))
def test_any_octets_give_a_record_or_our_error(octets: list[list[bytes]]) -> None:
    with contextlib.suppress(RecordError):
        record = find_record(octets)
        assert record is None or re.fullmatch(r"[A-Za-z0-9]{1,32}", record.id)


@given(near(*_TOKENS))
def test_what_parses_prints_and_parses_again(text: str) -> None:
    with contextlib.suppress(RecordError):
        record = find_record([[b"v=STSv1; " + text.encode()]])
        assert record is not None
        assert find_record([[str(record).encode()]]) == record


@given(near(*_TOKENS))
def test_message_is_one_line_of_ascii(text: str) -> None:
    message = _message([[b"v=STSv1;" + text.encode()]])
    assert message.isascii()
    assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"v=STSv1; id=1;", None),
        (b"v=spf1 include:stsv1.example -all", None),
        (b"", None),
        (b"V=STSv1; id=1", "the record must begin with v=STSv1, not with 'V=STSv1'"),
        (b"v=STS1; id=1", "the record must begin with v=STSv1, not with 'v=STS1'"),
        (b"v=STSv10; id=1", "the record must begin with v=STSv1, not with 'v=STSv10'"),
        (b"v-STSv1 id=1", "the record must begin with v=STSv1, not with 'v-STSv1'"),
        (b"v = STSv1; id=1", "the record must begin with v=STSv1, not with 'v = STSv1'"),
        (b'"v=STSv1; id=1;"', "remove the quotes from the record itself"),
        (b" v=STSv1; id=1", "remove the blank before the record"),
        (b"\tv=STSv1; id=1", "remove the blank before the record"),
        (b"\xef\xbb\xbfv=STSv1; id=1", "remove the byte order mark before the record"),
        (b"id=1; v=STSv1;", "v=STSv1 must come first"),
        (b"v=STSv1 ; id=1", 'v=STSv1 must be followed by ";"'),
    ],
)
def test_slips(text: bytes, expected: str | None) -> None:
    assert slip(text) == expected


@given(records)
def test_what_is_a_record_is_no_slip(record: Record) -> None:
    assert slip(str(record).encode()) is None
