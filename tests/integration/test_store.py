"""The store in real files: what it keeps, what it survives, how it refuses."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from postfix_mtasts.decide import Entry
from postfix_mtasts.domain import PolicyDomain
from postfix_mtasts.policy import Mode, MxPattern, Policy
from postfix_mtasts.store import Store, StoreError, print_row
from tests.integration.conftest import filled, read_only, small_disk

DOMAIN = PolicyDomain("a.example")
OTHER = PolicyDomain("b.example")
UNKNOWN = PolicyDomain("unknown.example")
TEXT = "version: STSv1\r\nmode: enforce\r\nmx: *.a.example\r\nmx: MX.example\r\nmax_age: 86400\r\nnote: Grüße\r\n"
ENTRY = Entry(
    Policy(Mode.ENFORCE, 86400, (MxPattern("*.a.example"), MxPattern("MX.example"))), TEXT, "Id1", 1700000000.25
)
NONE = Entry(Policy(Mode.NONE, 0, ()), "version: STSv1\nmode: none\nmax_age: 0\n", "2", 0.0)
PROMPT = 30.0  # Seconds; only a defect needs that long.


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = Store(str(path))
    try:
        yield store
    finally:
        await store.aclose()


@contextlib.contextmanager
def sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


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


# What it keeps


async def test_what_is_put_is_got(path: Path) -> None:
    async with opened(path) as store:
        await store.put(DOMAIN, ENTRY)
        await store.put(OTHER, NONE)
        assert [await store.get(domain) for domain in (DOMAIN, OTHER, UNKNOWN)] == [ENTRY, NONE, None]


async def test_the_last_entry_of_a_domain_counts(path: Path) -> None:
    async with opened(path) as store:
        await store.put(DOMAIN, ENTRY)
        await store.put(DOMAIN, NONE)
        assert await store.get(DOMAIN) == NONE
    with sqlite(path) as connection:
        assert connection.execute("SELECT key, value FROM policies").fetchall() == [("a.example", print_row(NONE))]


async def test_entries_survive_reopening(path: Path) -> None:
    async with opened(path) as store:
        await store.put(DOMAIN, ENTRY)
    async with opened(path) as store:
        assert [await store.get(domain) for domain in (DOMAIN, UNKNOWN)] == [ENTRY, None]


async def test_what_is_put_is_there_for_another_process_at_once(path: Path) -> None:
    async with opened(path) as store:
        await store.put(DOMAIN, ENTRY)
        with sqlite(path) as connection:
            assert connection.execute("SELECT key, value FROM policies").fetchall() == [("a.example", print_row(ENTRY))]


async def test_many_may_use_it_at_once(path: Path) -> None:
    domains = [PolicyDomain(f"{number}.example") for number in range(200)]
    entries = [Entry(ENTRY.policy, TEXT, str(number), number) for number in range(200)]
    async with opened(path) as store:
        await asyncio.gather(*map(store.put, domains, entries))
        assert await asyncio.gather(*map(store.get, domains)) == entries


async def test_write_ahead_log_and_synchronous_normal_are_in_force(path: Path) -> None:
    """Of all settings only sqlitedict's own connection knows `synchronous`."""
    async with opened(path) as store:
        pragmas = ["journal_mode", "synchronous"]
        assert [store._rows.conn.select_one(f"PRAGMA {pragma}") for pragma in pragmas] == [("wal",), (1,)]
        await store.put(DOMAIN, ENTRY)
        assert path.with_name("policies.sqlite-wal").stat().st_size > 0
    assert not path.with_name("policies.sqlite-wal").exists()


# Rows that are none of ours; what can be wrong within their text is tested in tests/unit/test_store_rows.py.

_NO_JSON = "a row that is no entry: JSONDecodeError('Expecting value: line 1 column 1 (char 0)')"
DAMAGED: dict[str, tuple[object, str]] = {
    "a newer version": ('{"version": 2}', "a row of version 2, not 1"),
    "no text": ("", _NO_JSON),
    "NULL": (None, _NO_JSON),
    "a number": (5, "a row that is no entry: TypeError(\"'int' object is not subscriptable\")"),
}


def write_row(path: Path, value: object) -> None:
    with sqlite(path) as connection:
        connection.execute("REPLACE INTO policies (key, value) VALUES (?, ?)", (DOMAIN.name, value))


@pytest.mark.parametrize(("value", "reason"), DAMAGED.values(), ids=DAMAGED.keys())
async def test_a_row_that_cannot_be_understood_is_an_error_and_can_be_replaced(
    path: Path, value: object, reason: str
) -> None:
    async with opened(path) as store:
        await store.put(OTHER, NONE)
        write_row(path, value)
        with pytest.raises(StoreError) as caught:
            await store.get(DOMAIN)
        assert (str(caught.value), await store.get(OTHER)) == (reason, NONE)
        await store.put(DOMAIN, ENTRY)
        assert await store.get(DOMAIN) == ENTRY


def test_a_row_that_is_not_utf_8_is_an_error(path: Path) -> None:
    """In a process of its own: a thread of sqlitedict that dies leaves ours waiting, and pytest would wait for that."""
    asyncio.run(_put(path, DOMAIN, ENTRY))
    asyncio.run(_put(path, OTHER, NONE))
    with sqlite(path) as connection:
        connection.execute("UPDATE policies SET value = CAST(x'7bff' AS TEXT) WHERE key = ?", (DOMAIN.name,))
    code = """import asyncio, sys
from postfix_mtasts.domain import PolicyDomain
from postfix_mtasts.store import Store, StoreError
async def main():
    store = Store(sys.argv[1])
    try:
        await store.get(PolicyDomain("a.example"))
    except StoreError:
        print("StoreError")
    entry = await store.get(PolicyDomain("b.example"))
    await store.put(PolicyDomain("a.example"), entry)
    print(await store.get(PolicyDomain("a.example")) == entry)
    await store.aclose()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.communicate(timeout=10)[0] == "StoreError\nTrue\n"
        finally:
            process.kill()


async def _put(path: Path, domain: PolicyDomain, entry: Entry) -> None:
    async with opened(path) as store:
        await store.put(domain, entry)


# Databases that cannot be used


def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        Store(str(path))
    return str(caught.value)


def test_the_folder_is_not_made(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none" / "policies.sqlite") == f"there is no folder {tmp_path / 'none'}"
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file" / "policies.sqlite") == f"there is no folder {tmp_path / 'file'}"


def test_the_path_is_a_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "unable to open database file"


@pytest.mark.usefixtures("namespace")
def test_a_read_only_folder(tmp_path: Path) -> None:
    with read_only(tmp_path):
        assert refusal(tmp_path / "policies.sqlite") == "unable to open database file"


@pytest.mark.usefixtures("namespace")
async def test_a_read_only_file(path: Path) -> None:
    await _put(path, DOMAIN, ENTRY)
    with read_only(path):
        assert refusal(path) == "attempt to write a readonly database"


@pytest.mark.parametrize(
    "content", [b"SQLite", b"[server]\nlisten = []\n", bytes(4096)], ids=["too short", "text", "zeros"]
)
def test_a_file_that_is_no_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert refusal(path) == "file is not a database"
    assert path.read_bytes() == content


async def test_a_database_that_is_cut(path: Path) -> None:
    await _put(path, DOMAIN, ENTRY)
    path.write_bytes(path.read_bytes()[:5000])
    assert refusal(path) == "database disk image is malformed"


def test_a_database_of_somebody_else(path: Path) -> None:
    with sqlite(path) as connection:
        connection.execute("CREATE TABLE theirs (id)")
        connection.execute("CREATE INDEX policies ON theirs (id)")
    assert refusal(path) == "there is already an index named policies"


@pytest.mark.usefixtures("namespace")
def test_a_full_disk_at_the_start(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder, filled(folder):
        assert refusal(folder / "policies.sqlite") == "database or disk is full"


def test_a_database_that_another_process_has_locked_at_the_start(path: Path) -> None:
    with another_process(path, "PRAGMA journal_mode = WAL", "CREATE TABLE theirs (id)", "BEGIN EXCLUSIVE"):
        assert refusal(path) == "database is locked"


# Trouble while it is used


async def test_a_database_that_another_process_locks_for_a_while(path: Path) -> None:
    async with opened(path) as store:
        await store.put(DOMAIN, ENTRY)
        with another_process(path, "BEGIN EXCLUSIVE"):
            async with asyncio.timeout(PROMPT):
                with pytest.raises(StoreError) as caught:
                    await store.put(DOMAIN, NONE)
                assert (str(caught.value), await store.get(DOMAIN)) == ("database is locked", ENTRY)
        await store.put(DOMAIN, NONE)
        assert await store.get(DOMAIN) == NONE


@pytest.mark.usefixtures("namespace")
async def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as folder:
        async with opened(folder / "policies.sqlite") as store:
            await store.put(DOMAIN, ENTRY)
            with filled(folder):
                async with asyncio.timeout(PROMPT):
                    errors = await asyncio.gather(
                        *(store.put(PolicyDomain(f"{number}.example"), NONE) for number in range(20)),
                        return_exceptions=True,
                    )
                    assert [repr(error) for error in errors] == ["StoreError('database or disk is full')"] * 20
                    assert await store.get(DOMAIN) == ENTRY
            await store.put(DOMAIN, NONE)
            assert await store.get(DOMAIN) == NONE
        async with opened(folder / "policies.sqlite") as store:
            assert await store.get(DOMAIN) == NONE


async def test_a_closed_store_has_left_all_in_one_file(path: Path) -> None:
    await _put(path, DOMAIN, ENTRY)
    assert [file.name for file in path.parent.iterdir()] == ["policies.sqlite"]


_WRITER = """import asyncio, itertools, sys
from postfix_mtasts.decide import Entry
from postfix_mtasts.domain import PolicyDomain
from postfix_mtasts.policy import Mode, MxPattern, Policy
from postfix_mtasts.store import Store
async def main():
    store = Store(sys.argv[1])
    for number in itertools.count(int(sys.argv[2])):
        mx = tuple(MxPattern(f"mx{i}.{number}.example") for i in range(100))
        entry = Entry(Policy(Mode.ENFORCE, number, mx), "text " * 500, str(number), float(number))
        await store.put(PolicyDomain(f"{number % 50}.example"), entry)
        print(number, flush=True)
asyncio.run(main())
"""


def written_until_killed(path: Path, begin: int, count: int) -> int:
    """The last number that a process confirmed; it writes for ever and is killed after `count` confirmations."""
    command = [sys.executable, "-c", _WRITER, str(path), str(begin)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for _ in range(count):
                assert process.stdout.readline()
        finally:
            process.kill()
        # What is confirmed between the last line and the kill counts too; half a line is no confirmation.
        confirmed = [line for line in process.stdout if line.endswith("\n")]
    return int(confirmed[-1]) if confirmed else begin + count - 1


async def test_what_is_confirmed_survives_a_kill(path: Path) -> None:
    end = 0
    for count in (1, 7, 60, 200, 333):
        end = written_until_killed(path, end + 1, count)
        async with opened(path) as store:
            entries = [await store.get(PolicyDomain(f"{number}.example")) for number in range(50)]
        # One more may be there that the process had no time to confirm.
        newest = max(int(entry.record_id) for entry in entries if entry)
        assert newest in {end, end + 1}
        assert {(int(entry.record_id), entry.policy.max_age, len(entry.policy.mx)) for entry in entries if entry} == {
            (number, number, 100) for number in range(max(1, newest - 49), newest + 1)
        }
        end = newest
    with sqlite(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
