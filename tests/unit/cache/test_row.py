"""Rows of the database: what is printed is parsed, and of all else nothing but our error comes."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postfix_mtasts.cache.row import RowError, parse_row, print_row
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch, NoPolicy, Note
from postfix_mtasts.sts.observation import Failure, ResultType, Stage
from postfix_mtasts.sts.policy import MAX_AGE_LIMIT, Mode, MxPattern, Policy
from postfix_mtasts.sts.schedule import FORGET_GRACE, UNUSED_AFTER, refresh_at
from tests.unit.strategies import cached_policies, entries, json_values

CACHED = CachedPolicy(
    Policy(Mode.ENFORCE, 604800, (MxPattern("mail.example.com"), MxPattern("*.Example.net"))),
    "version: STSv1\r\nmode: enforce\r\nx: ü\u2028\0\r\n",
    "20160831085700Z",
    1_700_000_000.25,
)
TLS_FAILURE = Failure(Stage.CERTIFICATE, "expired on\n2026-01-01", ResultType.WEBPKI_INVALID)
ENTRY = Entry(
    CACHED,
    failed=(
        FailedFetch("B", 3, 1_700_100_000.5, TLS_FAILURE),
        FailedFetch("20160831085700Z", 1, 1_700_000_600.0, Failure(Stage.RECORD, "SERVFAIL", None)),
    ),
    checked_at=1_700_200_000.75,
    last_used=1_700_150_000.125,
    unused_at=1_702_800_000.0,
)
# The last four are what the database searches: when it is due (to be refreshed; to be forgotten, a day after it was
# found unused; or because the clock shows a time before the fetch), when it expires, whether it could not be renewed,
# and when that becomes urgent.
ROW = (
    '{"version": 1, "mode": "enforce", "max_age": 604800, "mx": ["mail.example.com", "*.Example.net"],'
    ' "text": "version: STSv1\\r\\nmode: enforce\\r\\nx: \\u00fc\\u2028\\u0000\\r\\n",'
    ' "record_id": "20160831085700Z", "fetched_at": 1700000000.25, "checked_at": 1700200000.75,'
    ' "last_used": 1700150000.125, "unused_at": 1702800000.0, "failed":'
    ' [{"record_id": "B", "count": 3, "at": 1700100000.5, "stage": "certificate of the policy host",'
    ' "reason": "expired on\\n2026-01-01", "result_type": "sts-webpki-invalid"},'
    ' {"record_id": "20160831085700Z", "count": 1, "at": 1700000600.0, "stage": "TXT lookup",'
    ' "reason": "SERVFAIL", "result_type": null}],'
    ' "due": [[1700082381.0527358, 1700604800.25], [1702886400.0, null], [null, 1700000000.25]],'
    ' "expires_at": 1700604800.25, "renewal_fails": true, "urgent_at": 1700453600.25}'
)
EXPIRES = 1_700_604_800.25
USED = Entry(CACHED, last_used=1_700_100_000.0)
NO_TIMES: tuple[object, ...] = (True, "1", [], 1e12, -1e12, 10**12, float("nan"))
DERIVED = ("due", "expires_at", "renewal_fails", "urgent_at")  # Printed for the database to search, and not read.


def _row(**changed: Any) -> str:
    return json.dumps(json.loads(ROW) | changed)


def _parsed(row: str | bytes) -> Entry | str:
    try:
        return parse_row(row)
    except RowError as error:
        return str(error)


def _without(name: str) -> str:
    return json.dumps({key: value for key, value in json.loads(ROW).items() if key != name})


def _failed(**changed: Any) -> str:
    return _row(failed=[json.loads(ROW)["failed"][0] | changed])


def _failed_without(name: str) -> str:
    return _row(failed=[{key: value for key, value in json.loads(ROW)["failed"][0].items() if key != name}])


def test_row() -> None:
    assert print_row(ENTRY) == ROW
    assert parse_row(ROW) == ENTRY
    assert parse_row(ROW.encode()) == ENTRY


def test_row_of_an_entry_that_nothing_happened_to() -> None:
    entry = Entry(CachedPolicy(Policy(Mode.NONE, 60, ()), "", "1", 100.0))
    row = (
        '{"version": 1, "mode": "none", "max_age": 60, "mx": [], "text": "", "record_id": "1", "fetched_at": 100.0,'
        ' "checked_at": 0.0, "last_used": 0.0, "unused_at": null, "failed": [],'
        ' "due": [[161.0, 160.0], [2592000.0, null], [null, 100.0]], "expires_at": 160.0, "renewal_fails": false,'
        ' "urgent_at": 145.0}'
    )
    assert print_row(entry) == row
    assert parse_row(row) == entry


def test_times_may_be_whole_and_fields_may_be_more() -> None:
    row = _row(
        fetched_at=1_700_000_000, checked_at=5, last_used=-6, unused_at=7, later="x", mode="none", mx=[], failed=[]
    )
    expected = Entry(
        CachedPolicy(Policy(Mode.NONE, 604800, ()), CACHED.text, CACHED.record_id, 1_700_000_000.0),
        checked_at=5.0,
        last_used=-6.0,
        unused_at=7.0,
    )
    assert parse_row(row) == expected
    # Of a whole number and its float repr differs, and with it the jitter of the next refresh.
    assert repr(parse_row(row)) == repr(expected)


@pytest.mark.parametrize("name", DERIVED)
@pytest.mark.parametrize("value", [None, "x", 0, -1e300, 10**400], ids=["null", "text", "0", "long ago", "huge"])
def test_what_follows_from_the_rest_is_not_read(name: str, value: object) -> None:
    assert parse_row(_without(name)) == ENTRY
    assert parse_row(_row(**{name: value})) == ENTRY


def test_a_note_is_not_stored() -> None:
    noted = Entry(CACHED, note=Note(NoPolicy("no record"), 60.0), unread=True)
    assert print_row(noted) == print_row(Entry(CACHED))
    assert parse_row(print_row(noted)) == Entry(CACHED)


def test_an_entry_without_a_policy_has_no_row() -> None:
    with pytest.raises(ValueError, match=r"^an entry without a policy is not stored$"):
        print_row(Entry(note=Note(NoPolicy("no record"), 60.0)))


@pytest.mark.parametrize(
    ("entry", "refresh", "until", "forget", "fails"),
    [
        pytest.param(
            Entry(CACHED, last_used=1_700_100_000.0),
            refresh_at(Entry(CACHED), CACHED),
            EXPIRES,
            1_700_100_000.0 + UNUSED_AFTER,
            False,
            id="in use",
        ),
        pytest.param(
            Entry(CACHED, last_used=1_700_100_000.0, unused_at=1_703_000_000.0),
            refresh_at(Entry(CACHED), CACHED),
            EXPIRES,
            1_703_000_000.0 + FORGET_GRACE,
            False,
            id="found unused: next it is forgotten",
        ),
        pytest.param(
            Entry(CACHED, last_used=EXPIRES - UNUSED_AFTER - 86400),
            refresh_at(Entry(CACHED), CACHED),
            EXPIRES - 86400,
            EXPIRES,
            False,
            id="not used until it expires: not refreshed, and not forgotten before",
        ),
        pytest.param(
            replace(USED, failed=(FailedFetch(CACHED.record_id, 1, 1_700_400_000.0, TLS_FAILURE),)),
            1_700_400_300.0,
            EXPIRES,
            1_700_100_000.0 + UNUSED_AFTER,
            True,
            id="failed: five minutes later",
        ),
        pytest.param(
            replace(
                USED,
                cached=replace(CACHED, policy=Policy(Mode.NONE, 604800, ())),
                failed=(FailedFetch(CACHED.record_id, 1, 1_700_400_000.0, TLS_FAILURE),),
            ),
            1_700_400_300.0,
            EXPIRES,
            1_700_100_000.0 + UNUSED_AFTER,
            False,
            id="failed, but nobody needs a policy in mode none",
        ),
    ],
)
def test_what_the_database_searches(entry: Entry, refresh: float, until: float, forget: float, fails: bool) -> None:
    fields = json.loads(print_row(entry))
    due = [[refresh, until], [forget, None], [None, CACHED.fetched_at]]
    assert [fields[name] for name in DERIVED] == [due, EXPIRES, fails, EXPIRES - 604800 / 4]
    assert 0.9 * 86400 <= refresh_at(Entry(CACHED), CACHED) - CACHED.fetched_at <= 86400


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param('{"version": 2}', "version 2, not 1", id="later version"),
        pytest.param('{"version": 0}', "version 0, not 1", id="earlier version"),
        pytest.param('{"version": 1}', "not an entry: KeyError('mode')", id="field missing"),
        pytest.param(_row(max_age="1\nü"), r"""not an entry: TypeError("'1\\n\\xfc' is no count")""", id="in ASCII"),
        pytest.param(_row(mx=[]), "not an entry: ValueError('no valid policy')", id="rule of policies broken"),
        pytest.param(
            b"\xff\xff",
            "not an entry: UnicodeDecodeError('utf-8', b'\\xff\\xff', 0, 1, 'invalid start byte')",
            id="not UTF-8",
        ),
    ],
)
def test_messages(row: str | bytes, message: str) -> None:
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
        *(pytest.param(_without(name), id=f"no {name}") for name in json.loads(ROW) if name not in DERIVED),
        *(pytest.param(_failed_without(name), id=f"no {name} of a failure") for name in json.loads(ROW)["failed"][0]),
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
        pytest.param(_row(max_age=MAX_AGE_LIMIT + 1), id="max_age is more than a year"),
        *(
            pytest.param(_row(**{name: value}), id=f"{name} is {value!r}")
            for name in ("fetched_at", "checked_at", "last_used", "unused_at")
            for value in NO_TIMES
        ),
        *(
            pytest.param(_row(**{name: None}), id=f"{name} is null")
            for name in ("fetched_at", "checked_at", "last_used")
        ),
        pytest.param(_row(failed=None), id="failed is null"),
        pytest.param(_row(failed={}), id="failed is an object"),
        pytest.param(_row(failed=[1]), id="a failure is a number"),
        pytest.param(_row(failed=[[]]), id="a failure is a list"),
        pytest.param(_failed(record_id=1), id="record_id of a failure is a number"),
        pytest.param(_failed(count=-1), id="count is negative"),
        pytest.param(_failed(count=1.0), id="count is no whole number"),
        pytest.param(_failed(count=True), id="count is true"),
        pytest.param(_failed(at=None), id="time of a failure is null"),
        pytest.param(_failed(at=1e300), id="time of a failure is of no clock"),
        pytest.param(_failed(stage="certificate"), id="stage is unknown"),
        pytest.param(_failed(stage=None), id="stage is null"),
        pytest.param(_failed(reason=None), id="reason is null"),
        pytest.param(_failed(result_type="sts-webpki"), id="result type is unknown"),
        pytest.param(_failed(result_type=False), id="result type is false"),
    ],
)
def test_no_entry(row: str) -> None:
    with pytest.raises(RowError):
        parse_row(row)


def test_the_last_of_a_name_counts() -> None:
    assert parse_row(ROW.replace('"version": 1', '"version": 2, "version": 1')) == ENTRY


def test_a_failure_that_never_was_counts_as_one() -> None:
    """Its back-off is looked up by the count."""
    parsed = parse_row(_failed(count=0))
    assert parsed.failed == (FailedFetch("B", 1, 1_700_100_000.5, TLS_FAILURE),)


@given(entries)
def test_printed_entry_parses(entry: Entry) -> None:
    row = print_row(entry)
    assert row.isascii()
    assert parse_row(row) == entry
    assert print_row(parse_row(row)) == row


@given(cached_policies)
def test_policy_alone_parses(cached: CachedPolicy) -> None:
    row = print_row(Entry(cached))
    assert parse_row(row) == Entry(cached)
    assert json.loads(row)["expires_at"] == cached.fetched_at + cached.policy.max_age


_NAMES = st.sampled_from(sorted(json.loads(ROW)))
_FAILED_NAMES = st.sampled_from(sorted(json.loads(ROW)["failed"][0]))


@given(
    st.text()
    | json_values.map(json.dumps)
    | st.builds(lambda name, value: _row(**{name: value}), _NAMES, json_values)
    | st.builds(lambda name, value: _failed(**{name: value}), _FAILED_NAMES, json_values)
    | st.binary()
)
def test_anything_gives_an_entry_or_our_error(row: str | bytes) -> None:
    match _parsed(row):
        case Entry(cached=CachedPolicy()) as entry:
            assert parse_row(print_row(entry)) == entry
        case str(message):
            assert message.isascii()
            assert message.isprintable()
        case other:
            raise AssertionError(other)
