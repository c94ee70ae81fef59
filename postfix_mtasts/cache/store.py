"""Entries that outlive the process. They wait in memory until they are written to the database.

While one batch is written, the next one gathers. `get` finds an entry that waits as if it were written. An entry that
could not be written goes on waiting, so a full disk or a locked database loses nothing while the daemon runs. The log
hears of trouble once a minute. Reads gather too.
"""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from postfix_mtasts.cache.brief import Brief, brief
from postfix_mtasts.cache.counts import Counts, StoreStatus
from postfix_mtasts.cache.database import Database, DatabaseError, Write
from postfix_mtasts.cache.gather import Reads
from postfix_mtasts.cache.memory import WAITING, octets
from postfix_mtasts.cache.row import RowError, is_key, parse_row, print_row
from postfix_mtasts.log import events
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Entry
from postfix_mtasts.sts.schedule import outranked_within

_T = TypeVar("_T")

BATCH = 1000  # Entries in one transaction.
_BATCH_OCTETS = 2**20  # Of them. To make the rows of a megabyte takes some milliseconds, in which nobody is answered.
GATHER_WRITES = 0.05  # Seconds after one transaction until the next.
SYNC = 1.0  # Seconds after what was written was synced, until it is again: a power cut costs no more than that.
RETRY_AFTER = 60.0  # Seconds after a write that failed.
_ROWS = 4  # Times `cache.memory`, of rows in the database.
_COUNTED = 1000  # Rows counted at once: some milliseconds.
_PAGE = 100  # Rows read at once, of all: ten milliseconds for the largest.
_COMPLAIN_AFTER = 60.0  # Seconds between two lines in the log.
_MAX_IGNORED = 1000  # Rows that cannot be understood, of which the log hears.


class StoreError(Exception):
    """The database, or the row of a domain, could not be read, so that what it holds is unknown; says why."""


class Store:
    """The database at a path. `clock` gives seconds since the epoch, `limit` is `cache.memory`, in octets.

    `open` it, let `run` write, and `aclose` it.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.time, limit: float = math.inf) -> None:
        self._database = Database(path, limit * _ROWS)
        self._most_waiting = limit * WAITING
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._waiting: dict[PolicyDomain, tuple[Entry, bool]] = {}  # An entry, and whether it is to stay.
        self._waiting_octets = 0
        self._has_waiting = asyncio.Event()
        self._is_unsynced = asyncio.Event()
        self._reads = Reads(lambda keys: self._call(self._database.get_all, keys))
        self._complained_at = -_COMPLAIN_AFTER
        self._forgotten = 0  # How many domains were, so far.
        self._ignored: set[PolicyDomain] = set()  # Of these, the log has heard that their rows cannot be understood.
        self._trouble: str | None = None  # Until the database can be used, and nothing waits for it.
        self._trouble_since: float | None = None
        self._anew: str | None = None
        self._anew_at: float | None = None
        self.on_anew: Callable[[], None] = lambda: None  # Called when the database has been begun anew.

    async def open(self) -> None:
        """Open the database. Raises StoreError if it cannot be used and waiting will not help."""
        try:
            await self._call(self._database.open)
        except DatabaseError as error:
            if error.is_unusable:
                raise StoreError(str(error)) from error
            self._complain(error)

    async def get(self, domain: PolicyDomain) -> Entry | None:
        """What is stored of a domain. Raises StoreError, also if its row cannot be understood: it may be a policy."""
        row = None
        forgotten = -1
        # What was forgotten while its row was being read must not come back with it.
        while not (waiting := self._waiting.get(domain)) and forgotten != self._forgotten:
            forgotten = self._forgotten
            try:
                row = await self._reads.row(domain.name)
            except DatabaseError as error:
                self._complain(error)
                raise StoreError(str(error)) from error
        if waiting:
            entry, stays = waiting
            return entry if stays else None
        try:
            return None if row is None else parse_row(row)
        except RowError as error:
            self._ignore(domain, error)
            raise StoreError(str(error)) from error

    def put(self, domain: PolicyDomain, entry: Entry) -> None:
        """Have an entry written, which must have a policy. When too much waits, entries of new domains are not."""
        if domain not in self._waiting and self._waiting_octets > self._most_waiting:
            self._complain(DatabaseError(f"{len(self._waiting)} policies wait to be written, and no more can"))
            return
        self._wait(domain, entry, stays=True)

    def forget(self, domain: PolicyDomain, entry: Entry) -> None:
        """Have an entry deleted, unless somebody else has seen it used since."""
        self._wait(domain, entry, stays=False)
        self._forgotten += 1

    async def due(self, now: float) -> list[PolicyDomain]:
        """The domains that are due, ordered by when their policies expire. Empty if the database cannot be read."""
        due: dict[str, float] = {}
        row: int | None = -1
        try:
            while row is not None:  # Page by page: domains are read in between.
                row, some = await self._call(self._database.due, now, row, _PAGE)
                due |= some
        except DatabaseError as error:
            self._complain(error)
            return []
        return [PolicyDomain(key) for key in sorted(due, key=due.__getitem__) if is_key(key)]

    async def rows(self) -> AsyncIterator[tuple[PolicyDomain, str]]:
        """All stored domains with their rows, in no order. Raises StoreError."""
        told = {domain: entry for domain, (entry, stays) in self._waiting.items() if stays}
        for domain, entry in told.items():
            yield domain, print_row(entry)
        key = ""
        while page := await self._page(self._database.page, key, _PAGE):
            for key, row in page:
                domain = PolicyDomain(key)
                if domain not in told and self._may_show(domain) and is_key(key):
                    yield domain, row

    async def briefs(self, now: float) -> AsyncIterator[list[Brief]]:
        """All stored domains in brief, in no order, in pages. Raises StoreError."""
        told = {domain.name: entry for domain, (entry, stays) in self._waiting.items() if stays}
        yield [brief(name, entry, now) for name, entry in told.items()]
        key = ""
        while page := await self._page(self._database.briefs, now, key, _COUNTED):
            key = page[-1].domain
            behind = (one for one in page if one.mode and one.domain not in told)
            yield [one for one in behind if self._may_show(PolicyDomain(one.domain))]

    def _may_show(self, domain: PolicyDomain) -> bool:
        """Whether what the database has of a domain is not about to be deleted."""
        _, stays = self._waiting.get(domain, (None, True))
        return stays

    @property
    def has_trouble(self) -> bool:
        """Whether the database could not be used lately."""
        return self._trouble_since is not None

    async def status(self) -> StoreStatus:
        """Try to read and to write the database, and say how that went."""
        counts = None
        try:
            counts = await self._count()
            await self._call(self._database.try_writing)
        except DatabaseError as error:
            self._complain(error)
        return StoreStatus(counts, self._trouble, self._trouble_since, len(self._waiting), self._anew, self._anew_at)

    async def _count(self) -> Counts:
        total, now = Counts(), self._clock()
        row: int | None = -1
        while row is not None:  # Page by page: domains are read in between.
            row, some = await self._call(self._database.count, now, row, _COUNTED)
            total += some
        return total

    async def run(self) -> None:
        """Write what waits, and have it synced, forever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_all())
            tasks.create_task(self._sync_all())

    async def _write_all(self) -> None:
        while True:
            await self._has_waiting.wait()
            await asyncio.sleep(GATHER_WRITES if await self.flush() else RETRY_AFTER)

    async def _sync_all(self) -> None:
        while True:
            await self._is_unsynced.wait()
            self._is_unsynced.clear()
            try:
                # A disk may take long for it. Domains are read meanwhile.
                await asyncio.get_running_loop().run_in_executor(None, self._database.sync)
            except DatabaseError as error:
                self._complain(error)
            await asyncio.sleep(SYNC)

    async def flush(self) -> bool:
        """Write what waits now. False if that failed: then it goes on waiting."""
        self._has_waiting.clear()
        while self._waiting:
            try:
                await self._write(self._batch())
            except DatabaseError as error:
                self._complain(error)
                self._has_waiting.set()
                return False
        return True

    def _batch(self) -> dict[PolicyDomain, tuple[Entry, bool]]:
        first = list(itertools.islice(self._waiting.items(), BATCH))
        totals = itertools.accumulate(octets(entry) for _, (entry, _) in first)
        return dict(first[: 1 + sum(total <= _BATCH_OCTETS for total in totals)])

    def _wait(self, domain: PolicyDomain, entry: Entry, *, stays: bool) -> None:
        if before := self._waiting.get(domain):
            self._waiting_octets -= octets(before[0])
        self._waiting_octets += octets(entry)
        self._waiting[domain] = (entry, stays)
        self._has_waiting.set()

    async def _page(self, read: Callable[..., _T], *args: object) -> _T:
        try:
            return await self._call(read, *args)
        except DatabaseError as error:
            self._complain(error)
            raise StoreError(f"cache.path: {error}") from error

    async def _write(self, batch: dict[PolicyDomain, tuple[Entry, bool]]) -> None:
        now = self._clock()
        rows = [
            Write(domain.name, print_row(entry), *outranked_within(entry.cached, now))
            for domain, (entry, stays) in batch.items()
            if stays and entry.cached
        ]
        room = self._database.make_room(rows, now)
        while not await self._call(next, room, True):  # Domains are read in between.
            pass
        if refused := await self._call(self._database.put, rows):
            why = f"full of policies in use; policies of new domains, {refused} now, are not kept"
            self._complain(DatabaseError(why))
        for domain, (entry, stays) in batch.items():
            if not stays:
                await self._call(self._database.forget, domain.name, entry.last_used)
        self._is_unsynced.set()
        for domain, written in batch.items():
            if self._waiting.get(domain) is written:
                del self._waiting[domain]
                self._waiting_octets -= octets(written[0])

    async def aclose(self) -> None:
        """Write what waits, and close the database."""
        await self.flush()
        await self._call(self._database.close)
        self._thread.shutdown()

    async def _call(self, call: Callable[..., _T], *args: object) -> _T:
        loop = asyncio.get_running_loop()

        def work() -> _T:
            try:
                return call(*args)
            except DatabaseError as error:
                if error.is_anew:  # That took long, and whoever waited for the call may have given up.
                    loop.call_soon_threadsafe(self._begun_anew, error)
                raise

        result = await loop.run_in_executor(self._thread, work)
        if not self._waiting:
            self._trouble = self._trouble_since = None
        return result

    def _begun_anew(self, error: DatabaseError) -> None:
        self._anew, self._anew_at = str(error), self._clock()
        self._complain(error, at_once=True)
        self.on_anew()

    def _ignore(self, domain: PolicyDomain, error: RowError) -> None:
        """Tell the log once for each domain. Each query reads its row again until that is overwritten."""
        if domain not in self._ignored and len(self._ignored) < _MAX_IGNORED:
            self._ignored.add(domain)
            events.row_ignored(domain, str(error))

    def _complain(self, error: DatabaseError, *, at_once: bool = False) -> None:
        """Tell the log once a minute, or at once."""
        if self._trouble_since is None:
            self._trouble_since = self._clock()
        self._trouble = str(error)
        now = time.monotonic()
        if at_once or now - self._complained_at >= _COMPLAIN_AFTER:
            self._complained_at = now
            events.database_trouble(str(error))
