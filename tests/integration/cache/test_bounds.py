"""The store within its bounds of octets, when its file is moved away, and what is synced to the disk."""

import asyncio
import contextlib
import itertools
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_mtasts.cache.database import Database, Write
from postfix_mtasts.cache.memory import octets
from postfix_mtasts.cache.row import print_row
from postfix_mtasts.cache.store import SYNC, Store, StoreError
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import CachedPolicy, Entry
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.integration.cache.test_store import DOMAIN, ENTRY, GOES_ON, NEWER, NOW, OTHER, another_process, put, rows

DAY = 86400.0
MIB = 2**20


@contextlib.asynccontextmanager
async def opened(path: Path, limit: float) -> AsyncIterator[Store]:
    store = Store(str(path), lambda: NOW, limit)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


def large(name: str, mode: Mode = Mode.ENFORCE, *, age: float = 0.0, used: float = 0.0) -> Entry:
    """An entry whose row has about 100,000 octets: fetched `age` seconds ago, with max_age 100 days."""
    policy = Policy(
        mode, int(100 * DAY), tuple(MxPattern(f"mx{number}.{name}.{60 * 'x'}.test") for number in range(500))
    )
    return Entry(CachedPolicy(policy, str(policy), "1", NOW - age), last_used=NOW - used)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policies.sqlite"


async def test_rows_are_deleted_for_new_ones_but_no_enforced_policy_in_use(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = len(print_row(large("expired")))
    limit = 6.5 * size / 4  # There may be four times as many octets of rows as of memory.
    async with opened(path, limit) as store:

        async def write(**entries: Entry) -> str:
            for name, entry in entries.items():
                store.put(PolicyDomain(f"{name}.test"), entry)
                assert await store.flush()
            return " ".join(sorted(key.removesuffix(".test") for key in rows(path)))

        first = await write(
            expired=large("expired", age=101 * DAY, used=9 * DAY),
            testing=large("testing", Mode.TESTING, used=8 * DAY),
            none=large("none", Mode.NONE, used=7 * DAY),
            unused2=large("unused2", used=90 * DAY),
            unused1=large("unused1", used=31 * DAY),
            used=large("used", used=29 * DAY),
        )
        assert first == "expired none testing unused1 unused2 used"
        # What protects nobody goes first, the oldest use first. Room is made for a few at once.
        assert await write(a=large("a")) == "a none unused1 unused2 used"
        assert await write(b=large("b"), c=large("c")) == "a b c unused1 used"
        assert await write(d=large("d"), e=large("e")) == "a b c d e used"
        assert caplog.records == []
        # All that is left is enforced and in use. A known domain may change, a new one gets no row.
        changed = large("used", age=-1.0)
        assert await write(f=large("f"), used=changed) == "a b c d e used"
        assert rows(path)["used.test"] == print_row(changed)
        status = await store.status()
    assert status.trouble == f"its rows take {4 * limit / MIB:.0f} MiB, the most that cache.memory allows"
    assert status.waiting == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"cache.path: full of policies in use; policies of new domains, 1 now, are not kept{GOES_ON}"
    ]


async def test_rows_of_another_version_are_not_deleted(path: Path) -> None:
    await put(path, {DOMAIN: ENTRY})
    later = print_row(replace(large("later"), last_used=0.0)).replace('"version": 1', '"version": 2')
    with another_process(path, f"INSERT INTO policies VALUES ('later.test', '{later}')"):
        pass
    async with opened(path, 2.5 * len(later) / 4) as store:
        for name in "abcdef":
            store.put(PolicyDomain(f"{name}.test"), large(name))
            assert await store.flush()
    assert rows(path)["later.test"] == later


async def test_domains_are_read_while_room_is_made(path: Path) -> None:
    """Those go that were used last the longest ago, and only as many as needed."""
    unused = {
        PolicyDomain(f"{number}.test"): replace(ENTRY, last_used=NOW - (40 + number // 1000) * DAY)
        for number in range(2000)
    }
    await put(path, unused)
    new, bound = large("new"), path.stat().st_size
    async with opened(path, bound / 4) as store:
        store.put(PolicyDomain("new.test"), new)
        done: list[str] = []
        writing = asyncio.create_task(store.flush())
        writing.add_done_callback(lambda _: done.append("written"))
        await asyncio.sleep(0)
        for number in range(3):
            await store.get(PolicyDomain(f"{number}.test"))
            done.append("read")
        assert await writing
        await asyncio.sleep(0)
    assert done == ["read", "read", "read", "written"]
    left = rows(path).keys()
    gone = [len(print_row(entry)) for domain, entry in unused.items() if domain.name not in left]
    first_day = [f"{number}.test" for number in range(1000, 2000)]
    assert left == {"new.test", *(domain.name for domain in unused)} - set(first_day[: len(gone)])
    assert sum(gone[:-1]) < len(print_row(new)) + bound / 8 <= sum(gone)


async def test_what_waits_is_bounded_in_octets(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = large("a")
    async with opened(path, 4 * 10 * octets(entry)) as store:
        with another_process(path, "BEGIN IMMEDIATE"):
            for number in range(100):
                store.put(PolicyDomain(f"{number}.test"), entry)
                assert not await store.flush() if not number else True
            newer = replace(entry, last_used=NOW + 1)
            store.put(PolicyDomain("0.test"), newer)  # A domain that waits already may change.
            assert (await store.status()).waiting == 11
        assert await store.flush()
        store.put(PolicyDomain("99.test"), entry)
        assert await store.flush()
    assert sorted(rows(path)) == sorted(f"{number}.test" for number in (*range(11), 99))
    assert rows(path)["0.test"] == print_row(newer)
    assert [record.getMessage() for record in caplog.records] == [f"cache.path: database is locked{GOES_ON}"]


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_moved_away_is_begun_anew(
    path: Path, caplog: pytest.LogCaptureFixture, replaced: bool
) -> None:
    other = path.with_name("other.sqlite")
    await put(other, {OTHER: ENTRY})
    await put(path, {DOMAIN: ENTRY})
    async with opened(path, 64 * MIB) as store:
        store.put(DOMAIN, NEWER)  # So that there is a write-ahead log.
        assert await store.flush()
        store.on_anew = lambda: store.put(DOMAIN, NEWER)
        if replaced:
            other.replace(path)
        else:
            path.unlink()
        what = f"the file was {'replaced' if replaced else 'deleted'} while it was open"
        with pytest.raises(StoreError, match=f"^{what}$"):
            await store.get(OTHER)
        assert await store.get(OTHER) == (ENTRY if replaced else None)
        assert await store.flush()
        status = await store.status()
        assert (status.trouble, status.anew, status.anew_at) == (None, what, NOW)
    expected = {DOMAIN.name: print_row(NEWER)} | ({OTHER.name: print_row(ENTRY)} if replaced else {})
    assert rows(path) == expected
    assert [record.getMessage() for record in caplog.records] == [f"cache.path: {what}{GOES_ON}"]


async def test_domains_are_read_while_it_is_found_out_which_are_due(path: Path) -> None:
    async with opened(path, 64 * MIB) as store:
        for number in range(500):
            store.put(PolicyDomain(f"{number}.test"), replace(ENTRY, last_used=NOW))
        assert await store.flush()
        done: list[str] = []
        finding = asyncio.create_task(store.due(NOW + 85000.0))
        finding.add_done_callback(lambda _: done.append("due"))
        await asyncio.sleep(0)
        for number in range(3):
            await store.get(PolicyDomain(f"{number}.test"))
            done.append("read")
        assert len(await finding) == 500
        await asyncio.sleep(0)
    assert done == ["read", "read", "read", "due"]


@pytest.mark.parametrize("missing", [["-wal"], ["-wal", "-shm"]])
async def test_a_log_that_is_deleted_costs_no_row(
    path: Path, caplog: pytest.LogCaptureFixture, missing: list[str]
) -> None:
    async with opened(path, 64 * MIB) as store:
        store.put(DOMAIN, NEWER)
        assert await store.flush()
        for suffix in missing:
            Path(f"{path}{suffix}").unlink()
        what = "its write-ahead log was deleted while it was open"
        with pytest.raises(StoreError, match=f"^{what}$"):
            await store.get(OTHER)
        assert rows(path) == {DOMAIN.name: print_row(NEWER)}  # Another process finds all in the file.
        assert await store.get(DOMAIN) == NEWER
        store.put(OTHER, ENTRY)
        assert await store.flush()
        assert sorted(rows(path)) == [DOMAIN.name, OTHER.name]
    assert [record.getMessage() for record in caplog.records] == [f"cache.path: {what}{GOES_ON}"]


async def test_a_batch_is_bounded_in_octets(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    original = Database.put

    def count(self: Database, rows: Sequence[Write]) -> int:
        batches.append(sum(len(row.row) for row in rows))
        return original(self, rows)

    monkeypatch.setattr(Database, "put", count)
    async with opened(path, 64 * MIB) as store:
        for number in range(30):
            store.put(PolicyDomain(f"{number}.test"), large("a"))
        assert await store.flush()
    assert len(rows(path)) == 30
    assert max(batches) < 2 * MIB


async def test_what_was_written_is_synced_at_most_once_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[float, Path]] = []
    original = os.fsync
    loop = asyncio.get_running_loop()

    def fsync(descriptor: int) -> None:
        original(descriptor)
        log = Path(f"/proc/self/fd/{descriptor}").readlink()
        loop.call_soon_threadsafe(synced.append, (loop.time(), log))

    monkeypatch.setattr(os, "fsync", fsync)
    async with opened(path, 64 * MIB) as store:
        writing = asyncio.create_task(store.run())
        try:
            for number in range(25):
                store.put(PolicyDomain(f"{number}.test"), ENTRY)
                await asyncio.sleep(0.1)
            last_put = loop.time()
            while not synced or synced[-1][0] < last_put:
                await asyncio.sleep(0.01)
            assert len(rows(path)) == 25
        finally:
            writing.cancel()
    assert {log for _, log in synced} == {Path(f"{path}-wal")}
    times = [at for at, _ in synced]
    assert all(later - earlier >= SYNC for earlier, later in itertools.pairwise(times))


async def test_of_a_thousand_rows_that_cannot_be_understood_the_log_hears(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await put(path, {DOMAIN: ENTRY})
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        keys = [(f"{number}.test",) for number in range(1100)]
        connection.executemany("INSERT INTO policies VALUES (?, 'none of ours')", keys)
    async with opened(path, 64 * MIB) as store:
        for key, *_ in keys * 2:
            with pytest.raises(StoreError):
                await store.get(PolicyDomain(key))
    assert len(caplog.records) == 1000
