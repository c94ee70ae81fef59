import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.decide import Entry
from postfix_mtasts.policy import Mode, MxPattern, Policy
from postfix_mtasts.store import StoreError, parse_row, print_row

from .strategies import entries, json_values

ENTRY = Entry(
    Policy(Mode.ENFORCE, 604800, (MxPattern("mail.example.com"), MxPattern("*.Example.net"))),
    "version: STSv1\r\nmode: enforce\r\nx: ü\u2028\0\r\n",
    "20160831085700Z",
    1_700_000_000.25,
)
ROW = (
    '{"version": 1, "mode": "enforce", "max_age": 604800, "mx": ["mail.example.com", "*.Example.net"],'
    ' "text": "version: STSv1\\r\\nmode: enforce\\r\\nx: \\u00fc\\u2028\\u0000\\r\\n",'
    ' "record_id": "20160831085700Z", "fetched_at": 1700000000.25}'
)


def _row(**changed: Any) -> str:
    return json.dumps(json.loads(ROW) | changed)


def _parsed(row: str) -> Entry | str:
    try:
        return parse_row(row)
    except StoreError as error:
        return str(error)


def _without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(ROW).items() if key != name})


def test_row() -> None:
    assert print_row(ENTRY) == ROW
    assert parse_row(ROW) == ENTRY


def test_time_may_be_whole_and_fields_may_be_more() -> None:
    row = _row(fetched_at=1_700_000_000, later="x", mode="none", mx=[])
    assert parse_row(row) == Entry(Policy(Mode.NONE, 604800, ()), ENTRY.text, ENTRY.record_id, 1_700_000_000.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param('{"version": 2}', "a row of version 2, not 1", id="later version"),
        pytest.param('{"version": 1}', "a row that is no entry: KeyError('mode')", id="field missing"),
    ],
)
def test_messages(row: str, message: str) -> None:
    assert _parsed(row) == message


@pytest.mark.parametrize(
    "row",
    [
        pytest.param("", id="empty"),
        pytest.param(ROW[:-1], id="cut short"),
        pytest.param(ROW + ROW, id="two rows"),
        pytest.param("\ufeff" + ROW, id="BOM"),
        pytest.param(ROW.encode("utf-16").decode("latin-1"), id="UTF-16"),
        pytest.param("[" * 100_000, id="deeper than the stack"),
        pytest.param("[" + ROW + "]", id="list"),
        pytest.param('"version"', id="string"),
        pytest.param("null", id="null"),
        *(
            pytest.param(_without(name), id=f"no {name}")
            for name in ("version", "mode", "max_age", "mx", "text", "record_id", "fetched_at")
        ),
        pytest.param(_row(version="1"), id="version is text"),
        pytest.param(_row(version=True), id="version is true, which Python takes for 1"),
        pytest.param(_row(mode="Enforce"), id="mode in another case"),
        pytest.param(_row(mode=["enforce"]), id="mode is a list"),
        pytest.param(_row(max_age=True), id="max_age is true, which Python takes for 1"),
        pytest.param(_row(max_age=1.5), id="max_age is no whole number"),
        pytest.param(_row(max_age="1"), id="max_age is text"),
        pytest.param(_row(max_age=-1), id="max_age is negative"),
        pytest.param(_row(max_age=10**400), id="max_age is more than a float holds"),
        pytest.param(ROW.replace("604800", "9" * 5000), id="max_age is more than int() takes"),
        pytest.param(_row(mx=None), id="mx is null"),
        pytest.param(_row(mx="abc"), id="mx is text, a list of letters to Python"),
        pytest.param(_row(mx={"a.example": 1}), id="mx is an object, a list of keys to Python"),
        pytest.param(_row(mx=[1]), id="mx is a number"),
        pytest.param(_row(mx=["*"]), id="mx is no pattern"),
        pytest.param(_row(mx=["a.example servername=x"]), id="mx has an attribute for Postfix"),
        pytest.param(_row(mx=[]), id="enforce without mx"),
        pytest.param(_row(text=1), id="text is a number"),
        pytest.param(_row(record_id=1), id="record_id is a number"),
        pytest.param(_row(fetched_at=True), id="fetched_at is true"),
        pytest.param(_row(fetched_at="1"), id="fetched_at is text"),
        pytest.param(_row(fetched_at=float("nan")), id="fetched_at is NaN, which json takes"),
        pytest.param(_row(fetched_at=float("inf")), id="fetched_at is Infinity, which json takes"),
        pytest.param(ROW.replace("1700000000.25", "1e999"), id="fetched_at overflows to infinity"),
        pytest.param(_row(fetched_at=10**400), id="fetched_at is more than a float holds"),
    ],
)
def test_no_entry(row: str) -> None:
    with pytest.raises(StoreError):
        parse_row(row)


def test_the_last_of_a_name_counts() -> None:
    assert parse_row(ROW.replace('"version": 1', '"version": 2, "version": 1')) == ENTRY


@given(entries)
def test_printed_entry_parses(entry: Entry) -> None:
    row = print_row(entry)
    assert row.isascii()
    assert parse_row(row) == entry
    assert print_row(parse_row(row)) == row


_NAMES = st.sampled_from(sorted(json.loads(ROW)))


@given(
    st.text() | json_values.map(json.dumps) | st.builds(lambda name, value: _row(**{name: value}), _NAMES, json_values)
)
def test_any_text_gives_an_entry_or_our_error(row: str) -> None:
    match _parsed(row):
        case Entry() as entry:
            assert parse_row(print_row(entry)) == entry
            assert entry.is_live(entry.fetched_at)
        case message:
            assert message.isprintable()
