"""The store in real files: what it keeps, what it survives, how it refuses.

What may make the store wait for ever runs in a process of its own: a thread of sqlitedict that dies leaves ours
waiting, and pytest would wait for that.
"""

import asyncio
import contextlib
import json
import pickle
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts.cache.brief import brief
from postfix_mtasts.cache.counts import Counts, StoreStatus
from postfix_mtasts.cache.row import parse_row, print_row
from postfix_mtasts.cache.store import BATCH, Store, StoreError
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.observation import Failure, ResultType, Stage
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.integration.conftest import filled, read_only, small_disk

DOMAIN = PolicyDomain("a.example")
OTHER = PolicyDomain("b.example")
UNKNOWN = PolicyDomain("unknown.example")
NOW = 1_700_100_000.0
TEXT = "version: STSv1\r\nmode: enforce\r\nmx: *.a.example\r\nmx: MX.example\r\nmax_age: 86400\r\nnote: Grüße\r\n"
CACHED = CachedPolicy(
    Policy(Mode.ENFORCE, 86400, (MxPattern("*.a.example"), MxPattern("MX.example"))), TEXT, "Id1", NOW - 1000.25
)
ENTRY = Entry(
    CACHED,
    failed=(FailedFetch("Id2", 2, NOW - 100.0, Failure(Stage.TLS, "é", ResultType.WEBPKI_INVALID)),),
    checked_at=NOW - 50.5,
    last_used=NOW - 10.0,
)
NEWER = Entry(replace(CACHED, record_id="Id2", fetched_at=NOW - 5.0), checked_at=NOW - 5.0, last_used=NOW - 10.0)
NONE = Entry(
    CachedPolicy(Policy(Mode.NONE, 0, ()), "version: STSv1\nmode: none\nmax_age: 0\n", "2", 0.0), unused_at=NOW
)
PROMPT = 30.0  # Seconds; only a defect needs that long.
TIME = r"[0-9]{8}T[0-9]{6}Z"
GOES_ON = "; queries are still answered, and writes are tried again"


@contextlib.asynccontextmanager
async def opened(path: Path, now: float = NOW) -> AsyncIterator[Store]:
    store = Store(str(path), lambda: now)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@contextlib.contextmanager
def sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def rows(path: Path) -> dict[str, str]:
    """What a reader of the file sees."""
    with sqlite(path) as connection:
        return dict(connection.execute("SELECT key, value FROM policies"))


def numbered(number: int, count: int = 1) -> PolicyDomain:
    return PolicyDomain(f"{number % count if count > 1 else number}.example")


def entry_of(number: int) -> Entry:
    """An entry that differs from those of all other numbers, of about 2000 octets."""
    mx = tuple(MxPattern(f"mx{i}.{number}.example") for i in range(40))
    cached = CachedPolicy(Policy(Mode.ENFORCE, number + 1, mx), "text " * 100, str(number), float(number))
    return Entry(cached, checked_at=number + 0.5, last_used=number + 0.25)


async def put(path: Path, entries: dict[PolicyDomain, Entry], now: float = NOW) -> None:
    async with opened(path, now) as store:
        for domain, entry in entries.items():
            store.put(domain, entry)
        assert await store.flush()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policies.sqlite"


@contextlib.contextmanager
def another_process(path: Path, *statements: str) -> Iterator[None]:
    """Another process that has executed these statements on the database, and keeps it open."""
    code = """import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement)
print("done", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code, str(path), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "done\n"
            yield
        finally:
            process.kill()


def _command(scenario: Callable[..., Awaitable[object]], *arguments: object) -> list[str]:
    code = f"""import asyncio, pickle, sys
from postfix_mtasts.log import events
from {__name__} import {scenario.__name__}
events.begin("test")
result = asyncio.run({scenario.__name__}(*pickle.loads(bytes.fromhex(sys.argv[1]))))
sys.stdout.buffer.write(pickle.dumps(result))
"""
    return [sys.executable, "-c", code, pickle.dumps(arguments).hex()]


def in_a_child(scenario: Callable[..., Awaitable[Any]], *arguments: object) -> tuple[Any, list[str]]:
    """What a scenario returned in a process of its own, and the lines on its standard error."""
    done = subprocess.run(_command(scenario, *arguments), capture_output=True, timeout=PROMPT, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout), done.stderr.decode().splitlines()


# What it keeps


async def test_what_is_put_is_got(path: Path) -> None:
    async with opened(path) as store:
        store.put(DOMAIN, ENTRY)
        store.put(OTHER, NONE)
        expected = [ENTRY, NONE, None]
        assert [await store.get(domain) for domain in (DOMAIN, OTHER, UNKNOWN)] == expected
        assert rows(path) == {}
        assert await store.flush()
        assert [await store.get(domain) for domain in (DOMAIN, OTHER, UNKNOWN)] == expected
        assert rows(path) == {"a.example": print_row(ENTRY), "b.example": print_row(NONE)}


async def test_many_are_got_at_once_and_each_gets_its_own(path: Path) -> None:
    """Whether they are stored, wait to be, or are unknown; those who give up cost nobody his row."""
    stored, waiting, unknown = (
        [PolicyDomain(f"{kind}{number}.example") for number in range(100)] for kind in ("stored", "waiting", "unknown")
    )
    await put(path, dict.fromkeys(stored, ENTRY))
    async with opened(path) as store:
        for domain in waiting:
            store.put(domain, NEWER)
        domains = [*stored, *waiting, *unknown, *stored]
        random.shuffle(domains)
        gets = [asyncio.create_task(store.get(domain)) for domain in domains]
        await asyncio.sleep(0)
        for given_up in gets[:20]:
            given_up.cancel()
        found = await asyncio.gather(*gets[20:])
    expected = {**dict.fromkeys(stored, ENTRY), **dict.fromkeys(waiting, NEWER), **dict.fromkeys(unknown)}
    assert found == [expected[domain] for domain in domains[20:]]


async def test_the_last_entry_of_a_domain_counts(path: Path) -> None:
    async with opened(path) as store:
        for entry in (ENTRY, NEWER):
            store.put(DOMAIN, entry)
            assert await store.get(DOMAIN) == entry
            assert await store.flush()
        store.put(OTHER, ENTRY)
        store.put(OTHER, NEWER)
        assert await store.flush()
        assert [await store.get(domain) for domain in (DOMAIN, OTHER)] == [NEWER, NEWER]
    assert rows(path) == {"a.example": print_row(NEWER), "b.example": print_row(NEWER)}


async def test_entries_survive_reopening(path: Path) -> None:
    await put(path, {DOMAIN: ENTRY})
    async with opened(path) as store:
        assert [await store.get(domain) for domain in (DOMAIN, UNKNOWN)] == [ENTRY, None]


async def test_closing_writes_what_waits(path: Path) -> None:
    async with opened(path) as store:
        store.put(OTHER, NONE)
        assert await store.flush()
        store.put(DOMAIN, ENTRY)
        store.forget(OTHER, NONE)
        assert rows(path) == {"b.example": print_row(NONE)}
    assert rows(path) == {"a.example": print_row(ENTRY)}


async def test_a_closed_store_has_left_all_in_one_file(path: Path) -> None:
    async with opened(path) as store:
        store.put(DOMAIN, ENTRY)
        assert await store.flush()
        assert path.with_name("policies.sqlite-wal").stat().st_size > 0
    assert [file.name for file in path.parent.iterdir()] == ["policies.sqlite"]


async def test_it_writes_by_itself(path: Path) -> None:
    async with opened(path) as store, asyncio.timeout(PROMPT), asyncio.TaskGroup() as group:
        running = group.create_task(store.run())
        for domain in (DOMAIN, OTHER):
            store.put(domain, ENTRY)
            while domain.name not in rows(path):
                await asyncio.sleep(0)
        store.forget(DOMAIN, ENTRY)
        while DOMAIN.name in rows(path):
            await asyncio.sleep(0)
        assert rows(path) == {"b.example": print_row(ENTRY)}
        running.cancel()


async def test_what_its_own_writing_was_stopped_at_is_written_when_it_closes(path: Path) -> None:
    entries = {numbered(number): entry_of(number) for number in range(2 * BATCH)}
    async with opened(path) as store:
        running = asyncio.create_task(store.flush())
        for domain, entry in entries.items():
            store.put(domain, entry)
        await asyncio.sleep(0)  # Now a batch is on its way.
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    assert rows(path) == {domain.name: print_row(entry) for domain, entry in entries.items()}


async def test_more_than_one_batch(path: Path) -> None:
    entries = {numbered(number): entry_of(number) for number in range(2 * BATCH + 1)}
    async with opened(path) as store:
        for domain, entry in entries.items():
            store.put(domain, entry)
        assert await store.flush()
        assert rows(path) == {domain.name: print_row(entry) for domain, entry in entries.items()}
        got = await asyncio.gather(*map(store.get, entries))
        assert dict(zip(entries, got, strict=True)) == entries
        for domain, entry in entries.items():
            store.forget(domain, entry)
        assert await store.flush()
        assert rows(path) == {}


async def test_what_is_put_while_it_writes_is_not_lost(path: Path) -> None:
    async with opened(path) as store:
        store.put(DOMAIN, ENTRY)
        store.put(numbered(1), ENTRY)
        store.put(numbered(2), ENTRY)
        flushing = asyncio.create_task(store.flush())
        await asyncio.sleep(0)  # Now they are on their way.
        store.put(DOMAIN, NEWER)
        store.put(OTHER, ENTRY)
        store.forget(numbered(1), ENTRY)
        store.put(numbered(2), ENTRY)
        domains = (DOMAIN, OTHER, numbered(1), numbered(2))
        expected = [NEWER, ENTRY, None, ENTRY]
        assert [await store.get(domain) for domain in domains] == expected
        assert await flushing
        assert await store.flush()
        assert [await store.get(domain) for domain in domains] == expected
        assert rows(path) == {
            "a.example": print_row(NEWER),
            "b.example": print_row(ENTRY),
            "2.example": print_row(ENTRY),
        }


async def test_two_may_have_it_written_at_once(path: Path) -> None:
    async with opened(path) as store:
        store.put(DOMAIN, ENTRY)
        assert all(await asyncio.gather(store.flush(), store.flush()))
        assert await store.get(DOMAIN) == ENTRY


async def test_write_ahead_log_synchronous_normal_and_busy_timeout_are_in_force(path: Path) -> None:
    """Of all settings only sqlitedict's own connection knows `synchronous` and `busy_timeout`."""
    async with opened(path) as store:
        connection = store._database._open().conn
        pragmas = ["journal_mode", "synchronous", "busy_timeout"]
        assert [connection.select_one(f"PRAGMA {pragma}") for pragma in pragmas] == [("wal",), (1,), (1000,)]


# What is forgotten, and what is due


async def test_what_is_forgotten_is_gone_at_once_and_for_good(path: Path) -> None:
    await put(path, {DOMAIN: ENTRY, OTHER: ENTRY})
    async with opened(path) as store:
        store.forget(DOMAIN, ENTRY)
        store.forget(UNKNOWN, ENTRY)
        assert [await store.get(domain) for domain in (DOMAIN, UNKNOWN, OTHER)] == [None, None, ENTRY]
        assert await store.flush()
        assert [await store.get(domain) for domain in (DOMAIN, UNKNOWN, OTHER)] == [None, None, ENTRY]
    assert rows(path) == {"b.example": print_row(ENTRY)}


async def test_the_last_word_counts_between_putting_and_forgetting(path: Path) -> None:
    async with opened(path) as store:
        store.put(DOMAIN, ENTRY)
        store.forget(DOMAIN, ENTRY)
        store.forget(OTHER, ENTRY)
        store.put(OTHER, ENTRY)
        assert [await store.get(domain) for domain in (DOMAIN, OTHER)] == [None, ENTRY]
        assert await store.flush()
        assert [await store.get(domain) for domain in (DOMAIN, OTHER)] == [None, ENTRY]


def _lasting(max_age: int, fetched_at: float, last_used: float = NOW) -> Entry:
    return Entry(
        replace(CACHED, policy=replace(CACHED.policy, max_age=max_age), fetched_at=fetched_at), last_used=last_used
    )


_DAY = 86400.0


async def test_due(path: Path) -> None:
    entries = {
        "ends-in-a-month.example": _lasting(32 * 86400, NOW - 2 * _DAY),
        "ends-in-a-day.example": _lasting(3 * 86400, NOW - 2 * _DAY),
        "just-fetched.example": _lasting(3 * 86400, NOW - 60.0),
        "has-ended.example": _lasting(86400, NOW - 2 * _DAY),
        "ends-now.example": _lasting(2 * 86400, NOW - 2 * _DAY),
        "fetched-in-the-future.example": _lasting(86400, NOW + 1.0),
        "unused.example": _lasting(86400, NOW - 40 * _DAY, NOW - 30 * _DAY),
        "found-unused.example": replace(_lasting(86400, NOW - 40 * _DAY, NOW - 31 * _DAY), unused_at=NOW - 0.9 * _DAY),
        "to-be-forgotten.example": replace(_lasting(86400, NOW - 41 * _DAY, NOW - 31 * _DAY), unused_at=NOW - _DAY),
    }
    expected = [
        "to-be-forgotten.example",
        "unused.example",
        "ends-now.example",
        "ends-in-a-day.example",
        "fetched-in-the-future.example",
        "ends-in-a-month.example",
    ]
    async with opened(path) as store:
        assert await store.due(NOW) == []
        for name, entry in entries.items():
            store.put(PolicyDomain(name), entry)
        assert await store.flush()
        assert await store.due(NOW) == [PolicyDomain(name) for name in expected]
        assert await store.due(NOW - 3 * _DAY) == [
            PolicyDomain(name)
            for name in sorted(
                (name for name, entry in entries.items() if entry.cached and entry.cached.fetched_at > NOW - 3 * _DAY),
                key=lambda name: entries[name].cached.expires_at(),  # type: ignore[union-attr]
            )
        ]


# Two daemons on one database


@pytest.mark.parametrize(
    ("stored", "put_later", "now", "stays"),
    [
        pytest.param(ENTRY, NEWER, NOW, NEWER, id="later fetch last"),
        pytest.param(NEWER, ENTRY, NOW, NEWER, id="later fetch first"),
        pytest.param(ENTRY, replace(ENTRY, last_used=NOW), NOW, replace(ENTRY, last_used=NOW), id="same fetch"),
        pytest.param(replace(ENTRY, last_used=NOW), ENTRY, NOW, ENTRY, id="same fetch, the last writer counts"),
        pytest.param(NEWER, ENTRY, NOW - 6.0, ENTRY, id="the stored one lies in the future"),
        pytest.param(NEWER, ENTRY, NOW - 5.0, NEWER, id="the stored one is of this moment"),
        pytest.param(ENTRY, NEWER, NOW - 6.0, NEWER, id="the new one lies in the future"),
    ],
)
async def test_the_later_fetch_stays(path: Path, stored: Entry, put_later: Entry, now: float, stays: Entry) -> None:
    async with opened(path, now) as first, opened(path, now) as second:
        first.put(DOMAIN, stored)
        assert await first.flush()
        assert await second.get(DOMAIN) == stored
        second.put(DOMAIN, put_later)
        assert await second.get(DOMAIN) == put_later
        assert await second.flush()
        assert [await first.get(DOMAIN), await second.get(DOMAIN)] == [stays, stays]
    assert rows(path) == {"a.example": print_row(stays)}


async def test_rows_of_one_batch_are_weighed_one_by_one(path: Path) -> None:
    async with opened(path) as first, opened(path) as second:
        first.put(DOMAIN, NEWER)
        first.put(OTHER, ENTRY)
        assert await first.flush()
        for domain, entry in {DOMAIN: ENTRY, OTHER: NEWER, UNKNOWN: ENTRY}.items():
            second.put(domain, entry)
        assert await second.flush()
    assert rows(path) == {
        "a.example": print_row(NEWER),
        "b.example": print_row(NEWER),
        "unknown.example": print_row(ENTRY),
    }


@pytest.mark.parametrize(
    ("seen_used", "stays"),
    [
        pytest.param(NOW, True, id="since"),
        pytest.param(NOW - 10.0, False, id="then"),
        pytest.param(NOW - 11.0, False, id="before"),
    ],
)
async def test_what_the_other_has_seen_used_since_is_not_forgotten(path: Path, seen_used: float, stays: bool) -> None:
    async with opened(path) as first, opened(path) as second:
        first.put(DOMAIN, ENTRY)
        assert await first.flush()
        used = replace(ENTRY, last_used=seen_used)
        second.put(DOMAIN, used)
        assert await second.flush()
        first.forget(DOMAIN, ENTRY)
        assert await first.flush()
        expected = used if stays else None
        assert [await first.get(DOMAIN), await second.get(DOMAIN)] == [expected, expected]


async def test_two_that_write_at_once_lose_nothing(path: Path) -> None:
    """All is written by both, in opposite orders; of each domain the later fetch stays."""
    count = 300
    async with opened(path) as first, opened(path) as second:

        async def write(store: Store, numbers: list[int]) -> None:
            for number in numbers:
                store.put(numbered(number, count), entry_of(number))
                assert await store.flush()

        ahead = list(range(2 * count))
        await asyncio.gather(write(first, ahead), write(second, ahead[::-1]))
    assert rows(path) == {numbered(n, count).name: print_row(entry_of(n)) for n in range(count, 2 * count)}


# Rows that are none of ours; what can be wrong within their text is tested in tests/unit/cache/test_row.py.

_NO_JSON = "not an entry: JSONDecodeError('Expecting value: line 1 column 1 (char 0)')"
_FIELDS: dict[str, Any] = json.loads(print_row(ENTRY))


def _without(name: str) -> str:
    return json.dumps({key: value for key, value in _FIELDS.items() if key != name})


FOREIGN: dict[str, tuple[str, object, str | None]] = {
    "a newer version": ("?", '{"version": 2}', "version 2, not 1"),
    "a newer version of a later fetch": ("?", json.dumps(_FIELDS | {"version": 2}), "version 2, not 1"),
    "no text": ("?", "", _NO_JSON),
    "half a row": (
        "?",
        print_row(ENTRY)[:50],
        "not an entry: JSONDecodeError(\"Expecting ',' delimiter: line 1 column 51 (char 50)\")",
    ),
    "NULL": ("?", None, None),
    "a number": ("?", 5, "not an entry: TypeError(\"'int' object is not subscriptable\")"),
    "a mode of tomorrow": (
        "?",
        json.dumps(_FIELDS | {"mode": "audit"}),
        "not an entry: ValueError(\"'audit' is not a valid Mode\")",
    ),
    "no time": ("?", _without("fetched_at"), "not an entry: KeyError('fetched_at')"),
    "null for a time": ("?", json.dumps(_FIELDS | {"fetched_at": None}), "not an entry: TypeError('None is no time')"),
    "text for a time": ("?", json.dumps(_FIELDS | {"fetched_at": "1"}), "not an entry: TypeError(\"'1' is no time\")"),
    "a time of no clock": (
        "?",
        json.dumps(_FIELDS | {"fetched_at": 1e300}),
        "not an entry: TypeError('1e+300 is no time')",
    ),
    "not UTF-8": (
        "CAST(? AS TEXT)",
        b'{"\xff',
        "not an entry: UnicodeDecodeError('utf-8', b'{\"\\xff', 2, 3, 'invalid start byte')",
    ),
    "not UTF-8, yet a row": (
        "CAST(? AS TEXT)",
        print_row(ENTRY).encode().replace(b"Id1", b"\xff"),
        None,
    ),
    "a BLOB": ("?", b"\xff", "not an entry: UnicodeDecodeError('utf-8', b'\\xff', 0, 1, 'invalid start byte')"),
    "a BLOB of text": (
        "?",
        print_row(ENTRY).replace("enforce", "strict").encode(),
        "not an entry: ValueError(\"'strict' is not a valid Mode\")",
    ),
}


async def _foreign_row(path: Path) -> list[object]:
    async with opened(path) as store:
        with pytest.raises(StoreError) as raised:
            await store.get(DOMAIN)
        with pytest.raises(StoreError, match=f"^{re.escape(str(raised.value))}$"):
            await store.get(DOMAIN)
        found: list[object] = [str(raised.value), await store.get(OTHER)]
        await store.due(NOW)
        store.put(DOMAIN, NEWER)
        found += [await store.flush(), await store.get(DOMAIN)]
    async with opened(path) as store:
        return [*found, await store.get(DOMAIN), await store.get(OTHER), await store.due(NOW + 85000.0)]


@pytest.mark.parametrize(("expression", "value", "reason"), FOREIGN.values(), ids=FOREIGN.keys())
async def test_a_row_that_cannot_be_understood_is_unknown_and_is_written_over(
    path: Path, expression: str, value: object, reason: str | None
) -> None:
    await put(path, {OTHER: ENTRY})
    with sqlite(path) as connection:
        connection.execute(f"INSERT INTO policies (key, value) VALUES (?, {expression})", (DOMAIN.name, value))
    found, (line,) = in_a_child(_foreign_row, path)
    why, *rest = found
    assert rest == [ENTRY, True, NEWER, NEWER, ENTRY, [OTHER, DOMAIN]]
    assert line == f"warning: domain=a.example, its row in cache.path cannot be understood: {why}"
    assert re.fullmatch(".+" if reason is None else re.escape(reason), str(why))


async def test_what_is_forgotten_while_it_is_read_does_not_come_back(path: Path) -> None:
    await put(path, {DOMAIN: ENTRY, OTHER: ENTRY})
    async with opened(path) as store:
        reading = [asyncio.create_task(store.get(domain)) for domain in (DOMAIN, OTHER, DOMAIN)]
        await asyncio.sleep(0)  # They have begun.
        store.forget(DOMAIN, ENTRY)
        assert await asyncio.gather(*reading) == [None, ENTRY, None]
        reading = [asyncio.create_task(store.get(domain)) for domain in (OTHER, DOMAIN)]
        await asyncio.sleep(0)
        store.forget(OTHER, ENTRY)
        assert await store.flush()
        assert await asyncio.gather(*reading) == [None, None]


async def _foreign_keys(path: Path) -> list[object]:
    async with opened(path) as store:
        found: list[object] = [await store.get(DOMAIN), await store.due(NOW + 85000.0)]
        store.put(OTHER, ENTRY)
        return [*found, await store.flush(), await store.get(OTHER)]


@pytest.mark.parametrize("key", ["NULL", "CAST(x'ff' AS TEXT)", "x'ff00'", "''"])
async def test_a_key_that_is_no_domain_stops_nothing(path: Path, key: str) -> None:
    await put(path, {DOMAIN: ENTRY})
    with sqlite(path) as connection:
        connection.execute(f"INSERT INTO policies (key, value) VALUES ({key}, ?)", (print_row(ENTRY),))
    (got, due, *rest), _ = in_a_child(_foreign_keys, path)
    assert [got, *rest] == [ENTRY, True, ENTRY]
    assert DOMAIN in due


# Databases that cannot be used


async def refusal(path: Path) -> str:
    store = Store(str(path))
    with pytest.raises(StoreError) as caught:
        await store.open()
    return str(caught.value)


async def test_the_folder_is_not_made(tmp_path: Path) -> None:
    assert await refusal(tmp_path / "none" / "policies.sqlite") == f"there is no folder {tmp_path / 'none'}"
    assert list(tmp_path.iterdir()) == []


async def test_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert await refusal(tmp_path / "file" / "policies.sqlite") == f"there is no folder {tmp_path / 'file'}"


async def test_the_folder_has_too_long_a_name(tmp_path: Path) -> None:
    assert await refusal(tmp_path / ("x" * 300) / "policies.sqlite") == "file name too long"


async def test_the_path_is_a_folder(tmp_path: Path) -> None:
    assert await refusal(tmp_path) == "unable to open database file"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("namespace")
async def test_a_read_only_folder(tmp_path: Path) -> None:
    with read_only(tmp_path):
        assert await refusal(tmp_path / "policies.sqlite") == "unable to open database file"


@pytest.mark.usefixtures("namespace")
async def test_a_read_only_file(path: Path) -> None:
    await put(path, {DOMAIN: ENTRY})
    with read_only(path):
        assert await refusal(path) == "attempt to write a readonly database"


@pytest.mark.usefixtures("namespace")
async def test_a_damaged_file_in_a_read_only_folder(path: Path) -> None:
    path.write_text("[server]\nlisten = []\n")
    with read_only(path.parent):
        assert "file is not a database" in await refusal(path)
    assert [file.name for file in path.parent.iterdir()] == ["policies.sqlite"]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE INDEX policies ON theirs (id)", "there is already an index named policies"),
        ("CREATE TABLE policies (id)", "table policies has no column named key"),
    ],
)
async def test_a_database_of_somebody_else(path: Path, statement: str, message: str) -> None:
    with sqlite(path) as connection:
        connection.execute("CREATE TABLE theirs (id)")
        connection.execute("INSERT INTO theirs VALUES (1)")
        connection.execute(statement)
    assert await refusal(path) == message
    with sqlite(path) as connection:
        assert connection.execute("SELECT * FROM theirs").fetchall() == [(1,)]
    assert [file.name for file in path.parent.iterdir()] == ["policies.sqlite"]


# Trouble that passes


@pytest.mark.usefixtures("namespace")
async def test_a_full_disk_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk") as folder:
        with filled(folder):
            store = Store(str(folder / "policies.sqlite"), lambda: NOW)
            async with asyncio.timeout(PROMPT):
                await store.open()
                store.put(DOMAIN, ENTRY)
                assert [await store.flush(), await store.get(DOMAIN)] == [False, ENTRY]
        assert await store.flush()
        await store.aclose()
        assert rows(folder / "policies.sqlite") == {"a.example": print_row(ENTRY)}
    assert caplog.messages == [f"cache.path: database or disk is full{GOES_ON}"]


async def test_a_database_that_another_process_has_locked_at_the_start(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await put(path, {OTHER: NONE})
    store = Store(str(path), lambda: NOW)
    with another_process(path, "BEGIN EXCLUSIVE"):
        async with asyncio.timeout(PROMPT):
            await store.open()
            store.put(DOMAIN, ENTRY)
            assert [await store.flush(), await store.get(DOMAIN)] == [False, ENTRY]
            with pytest.raises(StoreError, match=r"^database is locked$"):
                await store.get(OTHER)
            assert await store.due(NOW) == []
    assert await store.flush()
    assert [await store.get(OTHER), await store.get(DOMAIN)] == [NONE, ENTRY]
    await store.aclose()
    assert rows(path) == {"a.example": print_row(ENTRY), "b.example": print_row(NONE)}
    assert caplog.messages == [f"cache.path: database is locked{GOES_ON}"]


async def test_a_database_that_another_process_locks_for_a_while(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(path) as store:
        store.put(DOMAIN, ENTRY)
        assert await store.flush()
        with another_process(path, "BEGIN EXCLUSIVE"):
            async with asyncio.timeout(PROMPT):
                store.put(OTHER, NONE)
                assert [await store.flush() for _ in range(3)] == [False] * 3
                # What is written can be read all the time.
                assert [await store.get(domain) for domain in (DOMAIN, OTHER, UNKNOWN)] == [ENTRY, NONE, None]
                store.put(OTHER, ENTRY)
                store.forget(DOMAIN, ENTRY)
                assert not await store.flush()
                assert [await store.get(domain) for domain in (DOMAIN, OTHER, UNKNOWN)] == [None, ENTRY, None]
        assert rows(path) == {"a.example": print_row(ENTRY)}
        assert await store.flush()
        assert rows(path) == {"b.example": print_row(ENTRY)}
    assert caplog.messages == [f"cache.path: database is locked{GOES_ON}"]


async def test_closing_while_another_process_has_it_locked_comes_to_an_end(path: Path) -> None:
    await put(path, {OTHER: NONE})
    with another_process(path, "BEGIN EXCLUSIVE"):
        done = subprocess.run(_command(_put_and_close, path), capture_output=True, timeout=PROMPT, check=True)
    assert done.stderr.decode().splitlines() == [f"error: cache.path: database is locked{GOES_ON}"]
    assert rows(path) == {"b.example": print_row(NONE)}


async def _put_and_close(path: Path) -> None:
    async with opened(path) as store:
        store.put(DOMAIN, ENTRY)


@pytest.mark.usefixtures("namespace")
async def test_a_disk_that_is_full_for_a_while(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with small_disk(tmp_path / "disk") as folder:
        path = folder / "policies.sqlite"
        async with opened(path) as store:
            store.put(DOMAIN, ENTRY)
            assert await store.flush()
            waiting = {numbered(number): entry_of(number) for number in range(20)}
            with filled(folder):
                async with asyncio.timeout(PROMPT):
                    for domain, entry in waiting.items():
                        store.put(domain, entry)
                        assert not await store.flush()
                    assert {domain: await store.get(domain) for domain in waiting} == waiting
                    assert [await store.get(DOMAIN), await store.get(UNKNOWN)] == [ENTRY, None]
            assert await store.flush()
            expected = {domain.name: print_row(entry) for domain, entry in {DOMAIN: ENTRY, **waiting}.items()}
            assert rows(path) == expected
        async with opened(path) as store:
            assert {domain: await store.get(domain) for domain in waiting} == waiting
    assert caplog.messages == [f"cache.path: database or disk is full{GOES_ON}"]


# Damage

PAGE = 4096
GARBAGE = random.Random(1).randbytes(PAGE)


def asides(path: Path) -> list[Path]:
    """The files that were set aside, without their logs."""
    ours = re.compile(rf"{re.escape(path.name)}[.]damaged-{TIME}(?!.*-(?:wal|shm)$).*")
    return sorted(file for file in path.parent.iterdir() if ours.fullmatch(file.name))


def said(path: Path, reason: str, aside: Path) -> str:
    return f"cache.path: {reason}; set aside as {aside}{GOES_ON}"


@pytest.mark.parametrize(
    "content", [b"SQLite", b"[server]\nlisten = []\n", bytes(4096)], ids=["too short", "text", "zeros"]
)
async def test_a_file_that_is_no_database_is_set_aside_at_the_start(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(content)
    async with opened(path) as store:
        assert await store.get(DOMAIN) is None
        store.put(DOMAIN, ENTRY)
        assert await store.flush()
    (aside,) = asides(path)
    assert aside.read_bytes() == content
    assert sorted(path.parent.iterdir()) == [path, aside]
    assert rows(path) == {"a.example": print_row(ENTRY)}
    assert caplog.messages == [said(path, "file is not a database", aside)]


async def test_a_database_that_is_cut_is_set_aside_at_the_start(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await put(path, {DOMAIN: ENTRY})
    damaged = path.read_bytes()[:5000]
    path.write_bytes(damaged)
    async with opened(path) as store:
        assert await store.get(DOMAIN) is None
        store.put(OTHER, ENTRY)
        assert await store.flush()
    (aside,) = asides(path)
    assert aside.read_bytes() == damaged
    assert rows(path) == {"b.example": print_row(ENTRY)}
    assert caplog.messages == [said(path, "database disk image is malformed", aside)]


def pages_with(path: Path, needle: bytes) -> list[int]:
    content = path.read_bytes()
    return [number for number in range(len(content) // PAGE) if needle in content[number * PAGE : (number + 1) * PAGE]]


def overwrite(path: Path, page: int, content: bytes = GARBAGE) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(content)


async def _damaged(path: Path, pages: dict[int, bytes], asked: PolicyDomain) -> list[object]:
    """What happens when pages of a database in use change: two answers, a write, how often it was told."""
    told = []
    async with opened(path) as store:
        store.on_anew = lambda: told.append(1)
        for page, content in pages.items():
            overwrite(path, page, content)
        found: list[object] = []
        for _ in range(2):
            try:
                found.append(await store.get(asked))
            except StoreError as error:
                found.append(str(error))
        store.put(asked, NEWER)
        found += [await store.flush(), await store.get(asked)]
        return [*found, len(told)]


async def _many(path: Path, count: int) -> dict[str, str]:
    await put(path, {numbered(number): entry_of(number) for number in range(count)})
    return rows(path)


@pytest.mark.parametrize(
    ("content", "first"),
    [
        pytest.param(GARBAGE, 0, id="garbage all over"),
        pytest.param(GARBAGE, 1, id="garbage but for the first page"),
        pytest.param(bytes(PAGE), 1, id="zeros but for the first page"),
    ],
)
async def test_damage_all_over_while_it_is_used(path: Path, content: bytes, first: int) -> None:
    await _many(path, 500)
    count = path.stat().st_size // PAGE
    found, lines = in_a_child(_damaged, path, dict.fromkeys(range(first, count), content), numbered(250))
    (aside,) = asides(path)
    reason = f"database disk image is malformed; set aside as {aside}"
    assert found == [reason, None, True, NEWER, 1]
    assert lines == [f"error: cache.path: {reason}{GOES_ON}"]
    assert aside.read_bytes()[PAGE:] == content * (count - 1)
    assert rows(path) == {"250.example": print_row(NEWER)}
    with sqlite(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("content", [GARBAGE, bytes(PAGE)], ids=["garbage", "zeros"])
@pytest.mark.parametrize("number", [0, 250, 499], ids=["at the begin", "in the middle", "at the end"])
async def test_rows_before_and_after_the_damage_are_taken_over(path: Path, number: int, content: bytes) -> None:
    before = await _many(path, 500)
    (page,) = pages_with(path, f'["mx0.{number}.example"'.encode())
    lost = {name for name in before if pages_with(path, f'["mx0.{name}"'.encode()) == [page]}
    assert numbered(number).name in lost
    assert len(lost) < 5
    found, lines = in_a_child(_damaged, path, {page: content}, numbered(number))
    (aside,) = asides(path)
    reason = f"database disk image is malformed; set aside as {aside}"
    assert found == [reason, None, True, NEWER, 1]
    assert lines == [f"error: cache.path: {reason}{GOES_ON}"]
    kept = {name: row for name, row in before.items() if name not in lost}
    assert rows(path) == kept | {numbered(number).name: print_row(NEWER)}


async def test_damage_to_the_index_loses_no_row(path: Path) -> None:
    before = await _many(path, 500)
    index = [page for page in pages_with(path, b"250.example") if page not in pages_with(path, b"mx0.250.example")]
    found, _ = in_a_child(_damaged, path, dict.fromkeys(index, GARBAGE), numbered(250))
    assert found[1:] == [entry_of(250), True, NEWER, 1]
    assert rows(path) == before | {"250.example": print_row(NEWER)}


async def _damaged_when_written(path: Path, page: int, lost: list[int]) -> list[object]:
    told = []

    async with opened(path) as store:

        def tell() -> None:
            told.append(1)
            for number in lost:
                store.put(numbered(number), entry_of(number))

        store.on_anew = tell
        overwrite(path, page)
        store.put(numbered(lost[0]), NEWER)
        found: list[object] = [await store.flush(), await store.flush()]
        return [*found, await store.get(numbered(lost[0])), len(told)]


async def test_damage_that_a_write_meets_loses_nothing_that_is_at_hand(path: Path) -> None:
    before = await _many(path, 500)
    (page,) = pages_with(path, b'["mx0.250.example"')
    lost = [number for number in range(500) if pages_with(path, f'["mx0.{number}.example"'.encode()) == [page]]
    lost.sort(key=lambda number: number != 250)
    found, lines = in_a_child(_damaged_when_written, path, page, lost)
    assert found == [False, True, entry_of(250), 1]
    assert rows(path) == before
    assert len(lines) == len(asides(path)) == 1


async def test_what_was_set_aside_is_not_written_over(path: Path) -> None:
    """Within a second, or nearly."""
    contents = [f"no database, {number}" for number in range(5)]
    for content in contents:
        path.write_text(content)
        await put(path, {DOMAIN: ENTRY})
    assert sorted(aside.read_text() for aside in asides(path)) == contents
    assert rows(path) == {"a.example": print_row(ENTRY)}


async def test_odd_rows_do_not_stop_the_taking_over(path: Path) -> None:
    """Damage can make a BLOB, a number or nonsense of a row, or of its key."""
    before = await _many(path, 500)
    with sqlite(path) as connection:
        for key, value in [
            ("'400.example'", "x'ff00'"),
            ("'401.example'", "5"),
            ("'402.example'", "NULL"),
            ("NULL", "'x'"),
            ("x'ff'", "'x'"),
        ]:
            connection.execute(f"REPLACE INTO policies (key, value) VALUES ({key}, {value})")
        connection.execute("UPDATE policies SET value = CAST(x'7bff' AS TEXT) WHERE key = '403.example'")
    (page,) = pages_with(path, b'["mx0.250.example"')
    lost = {name for name in before if pages_with(path, f'["mx0.{name}"'.encode()) == [page]}
    found, _ = in_a_child(_damaged, path, {page: GARBAGE}, numbered(250))
    assert found[1:] == [None, True, NEWER, 1]
    odd = {f"{number}.example" for number in (400, 401, 402, 403)}
    kept = {name: row for name, row in before.items() if name not in lost | odd}
    with sqlite(path) as connection:
        connection.text_factory = bytes
        now = dict(connection.execute("SELECT key, value FROM policies"))
    expected = kept | {"250.example": print_row(NEWER)}
    assert {name: now.get(name.encode(), b"").decode() for name in expected} == expected


async def _damaged_under_two(path: Path) -> list[object]:
    async with opened(path) as first, opened(path) as second:
        second.put(UNKNOWN, ENTRY)
        assert await second.flush()  # So that there is a log, which must not be taken for that of the new file.
        for page in range(1, path.stat().st_size // PAGE):
            overwrite(path, page)
        found: list[object] = []
        for store in (first, second):
            try:
                found.append(await store.get(numbered(250)))
            except StoreError:
                found.append("StoreError")
        first.put(DOMAIN, ENTRY)
        second.put(OTHER, ENTRY)
        found += [await first.flush(), await second.flush()]
        return [*found, *[await store.get(domain) for store in (first, second) for domain in (DOMAIN, OTHER)]]


async def test_of_two_daemons_each_survives_the_damage_and_what_the_other_made_of_it(path: Path) -> None:
    await _many(path, 500)
    found, _ = in_a_child(_damaged_under_two, path)
    assert found[2:] == [True, True, ENTRY, ENTRY, ENTRY, ENTRY]
    assert rows(path).items() >= {"a.example": print_row(ENTRY), "b.example": print_row(ENTRY)}.items()
    assert len(asides(path)) == 1
    with sqlite(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def _locked_then_damaged(path: Path) -> None:
    async with opened(path) as store:
        store.put(DOMAIN, ENTRY)
        with sqlite(path) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            assert not await store.flush()
        for page in range(1, path.stat().st_size // PAGE):
            overwrite(path, page)
        for _ in range(3):
            with contextlib.suppress(StoreError):
                await store.get(numbered(250))


async def test_damage_is_told_even_a_moment_after_other_trouble(path: Path) -> None:
    """It is told once, and nobody would look for the file."""
    await _many(path, 500)
    _, lines = in_a_child(_locked_then_damaged, path)
    (aside,) = asides(path)
    reason = f"database disk image is malformed; set aside as {aside}"
    assert lines == [
        f"error: cache.path: database is locked{GOES_ON}",
        f"error: cache.path: {reason}{GOES_ON}",
    ]
    assert rows(path) == {"a.example": print_row(ENTRY)}


async def _damaged_and_given_up(path: Path) -> int:
    told = []
    async with opened(path) as store:
        store.on_anew = lambda: told.append(1)
        for page in range(1, path.stat().st_size // PAGE):
            overwrite(path, page)
        asked = asyncio.create_task(store.get(numbered(250)))
        await asyncio.sleep(0)  # It has begun.
        while not asides(path):
            time.sleep(0.01)
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked
        store.put(DOMAIN, ENTRY)
        assert await store.flush()
        return len(told)


async def test_damage_is_told_though_the_query_that_met_it_was_given_up(path: Path) -> None:
    """To set a large file aside takes longer than Postfix waits."""
    await _many(path, 500)
    found, lines = in_a_child(_damaged_and_given_up, path)
    (aside,) = asides(path)
    assert found == 1
    assert lines == [f"error: cache.path: database disk image is malformed; set aside as {aside}{GOES_ON}"]


# kill -9

_COUNT = 50


async def _write_for_ever(path: Path, begin: int) -> None:
    """Write batches of some rows, read meanwhile, and say when one is confirmed."""
    store = Store(str(path), time.time)
    await store.open()
    chance = random.Random(begin)

    async def read() -> None:
        while True:
            await store.get(numbered(chance.randrange(_COUNT)))

    reading = [asyncio.create_task(read()) for _ in range(3)]
    number = begin
    while not any(task.done() for task in reading):
        size = chance.choice([1, 1, 2, 10, 40])
        for _ in range(size):
            store.put(numbered(number, _COUNT), entry_of(number))
            number += 1
        assert await store.flush()
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


def written_until_killed(path: Path, begin: int, count: int) -> int:
    """The number before which all is confirmed; the process writes for ever and is killed after `count` lines."""
    with subprocess.Popen(_command(_write_for_ever, path, begin), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(count)]
        finally:
            process.kill()
        # What is confirmed between the last line and the kill counts too; half a line is no confirmation.
        lines += process.stdout
    return [int(line) for line in lines if line.endswith("\n")][-1]


async def test_what_is_confirmed_survives_a_kill(path: Path) -> None:
    begin = 0
    for _ in range(8):
        confirmed = written_until_killed(path, begin, random.randint(1, 60))
        entries = {name: parse_row(row) for name, row in rows(path).items()}
        numbers = {name: int(entry.cached.record_id) for name, entry in entries.items() if entry.cached}
        newest = max(numbers.values(), default=-1)
        # One batch more may be there that the process had no time to confirm, all of it.
        assert confirmed - 1 <= newest < confirmed + 40
        expected = {numbered(number, _COUNT).name: number for number in range(max(0, newest + 1 - _COUNT), newest + 1)}
        assert numbers == expected
        assert entries == {name: entry_of(number) for name, number in expected.items()}
        begin = newest + 1
    assert begin > _COUNT
    async with opened(path) as store:
        got = {domain.name: await store.get(domain) for domain in map(numbered, range(_COUNT))}
        assert got == entries
    with sqlite(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# What an administrator is shown


async def test_the_rows_are_those_on_disk_and_those_that_wait(path: Path) -> None:
    third, fourth = PolicyDomain("c.example"), PolicyDomain("d.example")
    await put(path, {DOMAIN: ENTRY, OTHER: ENTRY, third: NONE})
    async with opened(path) as store:
        store.put(DOMAIN, NEWER)
        store.put(fourth, NONE)
        store.forget(OTHER, ENTRY)
        found = [(domain, parse_row(row)) async for domain, row in store.rows()]
    assert sorted(found, key=str) == [(DOMAIN, NEWER), (third, NONE), (fourth, NONE)]


@pytest.mark.parametrize("count", [99, 100, 101, 250])
async def test_the_rows_of_many_pages(path: Path, count: int) -> None:
    entries = {numbered(number): entry_of(number) for number in range(count)}
    await put(path, entries)
    async with opened(path) as store:
        found = [(domain, parse_row(row)) async for domain, row in store.rows()]
    assert (len(found), dict(found)) == (count, entries)


async def test_domains_in_brief_are_those_on_disk_and_those_that_wait(path: Path) -> None:
    """SQL has the rule a second time."""
    over = replace(ENTRY, cached=replace(CACHED, fetched_at=NOW - 90000.0))
    kinds = (ENTRY, NEWER, NONE, over, replace(over, failed=()))
    entries = {PolicyDomain(f"{number:04}.example"): kinds[number % 5] for number in range(2500)}
    first, second, third = list(entries)[:3]
    await put(path, entries)
    with sqlite(path) as connection:
        for key, row in (("bad.example", "no JSON"), ("later.example", '{"version": 99}'), ("none.example", None)):
            connection.execute("INSERT INTO policies VALUES (?, ?)", (key, row))
    async with opened(path) as store:
        store.put(first, NEWER)
        store.put(DOMAIN, NONE)
        store.forget(second, NEWER)
        store.forget(third, NONE)
        pages = [page async for page in store.briefs(NOW)]
    shown = {**entries, first: NEWER, DOMAIN: NONE}
    wanted = {brief(domain.name, entry, NOW) for domain, entry in shown.items() if domain not in (second, third)}
    found = [one for page in pages for one in page]
    assert (len(found), set(found), max(map(len, pages))) == (2499, wanted, 1000)


async def test_rows_that_cannot_be_read_are_an_error(path: Path) -> None:
    await put(path, {DOMAIN: ENTRY})
    with another_process(path, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
        async with opened(path) as store:
            with pytest.raises(StoreError, match=r"^cache\.path: database is locked$"):
                _ = [row async for row in store.rows()]
            status = await store.status()
            assert status == StoreStatus(None, "database is locked", NOW, 0)


async def test_trouble_is_over_when_nothing_waits_any_more(path: Path) -> None:
    await put(path, {DOMAIN: ENTRY})
    async with opened(path) as store:
        with another_process(path, "BEGIN IMMEDIATE"):
            store.put(OTHER, NONE)
            assert not await store.flush()
            locked = await store.status()
        # It could be written to, but was not yet.
        waiting = await store.status()
        assert await store.flush()
        written = await store.status()
    counts = Counts(1, 1, 0, NOW + 85399.75, {Mode.ENFORCE: 1, Mode.TESTING: 0, Mode.NONE: 0})
    assert (locked, waiting, written) == (
        StoreStatus(counts, "database is locked", NOW, 1),
        StoreStatus(counts, "database is locked", NOW, 1),
        StoreStatus(replace(counts, stored=2), None, None, 0),
    )


@pytest.mark.parametrize(
    ("age", "counts"),
    [
        pytest.param(0, (1, 1, 0), id="fetched now"),
        pytest.param(64800, (1, 1, 0), id="a quarter is left"),
        pytest.param(64801, (1, 1, 1), id="less than a quarter is left"),
        pytest.param(86400, (1, 1, 1), id="the last second"),
        pytest.param(86401, (1, 0, 0), id="over"),
    ],
)
async def test_the_counts_of_what_is_not_renewed(path: Path, age: int, counts: tuple[int, int, int]) -> None:
    entry = replace(ENTRY, cached=replace(CACHED, fetched_at=NOW - age))
    await put(path, {DOMAIN: entry})
    async with opened(path) as store:
        status = await store.status()
    live = {Mode.ENFORCE: counts[1], Mode.TESTING: 0, Mode.NONE: 0}
    assert status.counts == Counts(*counts, NOW - age + 86400 if counts[1] else None, live)


async def test_the_counts_of_many_pages(path: Path) -> None:
    testing = replace(CACHED, policy=replace(CACHED.policy, mode=Mode.TESTING), fetched_at=NOW - 10.0)
    lives = replace(ENTRY, cached=testing)
    over = replace(ENTRY, failed=(), cached=replace(CACHED, fetched_at=NOW - 90000.0))
    await put(path, {DOMAIN: lives})
    foreign = json.dumps({"version": 99, "mode": "enforce", "expires_at": NOW * 2, "renewal_fails": True})
    rows = [print_row(lives), print_row(over), "no JSON", foreign]
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        values = ((f"{number}.example", rows[number % 4]) for number in range(4400))
        connection.executemany("INSERT INTO policies (key, value) VALUES (?, ?)", values)
    async with opened(path) as store:
        status = await store.status()
    live = {Mode.ENFORCE: 0, Mode.TESTING: 1101, Mode.NONE: 0}
    assert status.counts == Counts(2201, 1101, 0, NOW - 10.0 + 86400, live)
