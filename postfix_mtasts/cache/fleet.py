"""What relays of a fleet share, over Valkey or Redis: a third place behind memory and SQLite.

It is asked for unknown domains and before fetches, never for a policy that is at hand. What came of a discovery is put
there behind the answer. While one round trip is under way, the jobs for the next one gather.

A failure opens a breaker: then everything goes on as without a fleet, until a beat in the background finds that the
server works again. So a failure delays whoever waits for the server just then, once, by `WITHIN` seconds at most.
"""

import asyncio
import collections
import contextlib
import functools
import itertools
import json
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from postfix_mtasts import __version__
from postfix_mtasts.cache.fleet_breaker import Breaker
from postfix_mtasts.cache.fleet_jobs import BATCH, FleetError, Job, Look, Put, Release, Seen, Theirs, relay_of
from postfix_mtasts.cache.fleet_news import News
from postfix_mtasts.cache.row import RowError
from postfix_mtasts.cache.shared import parse_shared, print_shared
from postfix_mtasts.log import events
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.elsewhere import MAX_SKEW
from postfix_mtasts.sts.entry import Entry
from postfix_mtasts.turns import Turns

if TYPE_CHECKING:
    from postfix_mtasts.cache.fleet_server import (
        FleetServer,  # It needs redis-py, which a daemon without a fleet does not.
    )

WITHIN = 0.25  # Seconds that a domain waits for the server at most.
BEAT = 10.0  # Seconds between two beats.
_LARGE = 2**14  # Octets of a value that is parsed alone in a round of the event loop.
_MAX_PAGES = 1000  # Of keys that are counted, a thousand on each.
_MAX_JOBS = 1000  # That wait for one. What comes then goes on without the fleet.
_STUCK = 1.0  # Seconds for a round trip: a server that sends octet by octet never exceeds the time for one step.
_LATE = 0.05  # Seconds by which a process on a busy machine is late; then the server is not to blame.
_T = TypeVar("_T")


class Fleet:
    """The server, as all of the daemon uses it. `clock` gives seconds since the epoch. `run` it, and `aclose` it."""

    def __init__(self, server: "FleetServer", place: str, clock: Callable[[], float] = time.time) -> None:
        self.place = place
        self.on_forgotten: Callable[[PolicyDomain, float], Awaitable[object]]
        self.on_changed: Callable[[PolicyDomain], Awaitable[object]]
        self.on_anew: Callable[[float], Awaitable[bool]]
        self._server = server
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "fleet")
        self._jobs: collections.deque[tuple[Job, asyncio.Future[Seen | None] | None]] = collections.deque()
        self._working: asyncio.Task[None] | None = None
        self._breaker = Breaker(place, clock)
        self._token = secrets.token_hex(8)
        self._tokens = itertools.count()
        self._turns = Turns()
        self._begun: bytes | None = None
        self._forgotten_until = 0.0  # What was forgotten until then has been noted.
        self._news = News()
        self._ending = threading.Event()
        self._listener: threading.Thread | None = None
        what = ("asked", "found", "nothing", "not_understood", "unanswered", "shared", "trips")
        self._counts: dict[str, int] = dict.fromkeys(what, 0)
        self._seconds = 0.0  # Of all round trips.
        about = {"relay": socket.gethostname(), "id": self._token, "since": round(clock()), "version": __version__}
        self._name = json.dumps(about)

    def token(self) -> str:
        """A new token, for the turn to discover a domain."""
        return f"{self._token}/{next(self._tokens)}"

    async def look(self, domain: PolicyDomain, token: str = "", within: float = WITHIN) -> Theirs | None:
        """What others know of a domain, and whose turn it is to discover it.

        None if the fleet cannot be asked, or does not answer within so many seconds.
        """
        if not self._breaker.works or len(self._jobs) >= _MAX_JOBS:
            return None
        self._counts["asked"] += 1
        reply: asyncio.Future[Seen | None] = asyncio.get_running_loop().create_future()
        self._submit(Look(domain.name, token), reply)
        seen = reply.result() if await is_done(reply, within) else None
        if not seen:
            self._counts["unanswered"] += 1
            return None
        if seen.value and len(seen.value) > _LARGE:
            await self._turns.take(1)
        return Theirs(self._parsed(domain, seen.value), seen.is_ours, seen.is_theirs)

    def share(self, domain: PolicyDomain, entry: Entry, token: str = "", *, is_news: bool = False) -> None:
        """Have others know what is known here, and end the turn of a token."""
        value = print_shared(domain, entry, self._clock())
        if value and self._breaker.works and len(self._jobs) < _MAX_JOBS:
            self._counts["shared"] += 1
            self._submit(Put(domain.name, value, token, is_news))
        elif token:
            self.release(domain, token)

    async def share_anew(self, domain: PolicyDomain, entry: Entry) -> bool:
        """As `share`, when there is time; whether the server works."""
        if len(self._jobs) >= BATCH:
            await self._settled()
        await asyncio.sleep(0)
        self.share(domain, entry)
        return self._breaker.works

    def release(self, domain: PolicyDomain, token: str) -> None:
        """End the turn of a token, without a result."""
        if self._breaker.works and len(self._jobs) < _MAX_JOBS:
            self._submit(Release(domain.name, token))

    async def forget(self, domain: PolicyDomain) -> int:
        """Have all relays forget a domain; how many were told, this one included. Raises FleetError."""
        await self._settled()
        return await self._do(lambda: self._server.forget(domain.name, self._clock()))

    async def tell(self, domain: PolicyDomain) -> int:
        """Have all relays look at what is shared of a domain; how many were told. Raises FleetError."""
        await self._settled()
        return await self._do(lambda: self._server.tell(domain.name))

    def status(self) -> dict[str, Any]:
        """Whether the server works, and what was asked of it since the start."""
        breaker = self._breaker
        now = {"server": self.place, "works": breaker.works, "trouble": breaker.trouble}
        so_far = {"failures": breaker.failures, "seconds": self._seconds}
        return now | {"trouble_since": breaker.trouble_since} | so_far | self._counts

    async def members(self) -> dict[str, Any]:
        """Who is there, what is shared, and since when. Raises FleetError."""
        relays, since = await self._do(self._server.relays)
        domains, cursor = 0, 0
        for _ in range(_MAX_PAGES):  # Others use the server in between, and do so also if it cannot count.
            cursor, some = await self._in_thread(functools.partial(self._server.count, cursor))
            domains += some
            if not cursor:
                break
        return {"relays": [one for one in map(relay_of, relays) if one], "domains": domains, "since": since}

    async def run(self) -> None:
        """Keep in touch with the server and with what relays tell, forever."""
        loop = asyncio.get_running_loop()

        def told(news: bytes) -> None:
            with contextlib.suppress(RuntimeError):  # The loop has ended.
                loop.call_soon_threadsafe(self._news.told, news)

        self._listener = threading.Thread(target=self._server.listen, args=(told, self._ending), daemon=True)
        self._listener.start()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat_all())
            tasks.create_task(self._news.follow(self.on_changed, self.on_forgotten, self.on_anew))

    async def aclose(self) -> None:
        """Wait for what is under way, and close the connection."""
        self._ending.set()
        if self._working:
            await asyncio.wait([self._working], timeout=WITHIN)
        self._breaker.works = False
        self._thread.submit(self._server.close)
        await asyncio.to_thread(self._end_threads)

    def _end_threads(self) -> None:
        if self._listener:
            self._listener.join(_STUCK)
        self._thread.shutdown()

    async def beat(self) -> None:
        """See whether the server works, and take note of what others have forgotten."""
        try:
            here = await self._in_thread(lambda: self._server.beat(self._name, self._forgotten_until))
        except FleetError as error:
            self._breaker.open(str(error))
            return
        ahead = self._clock() - here.clock
        if abs(ahead) > MAX_SKEW:
            which = "ahead of" if ahead > 0 else "behind"
            self._breaker.open(f"the clock of this machine is {events.span(abs(ahead))} {which} the server's")
            return
        if here.begun != self._begun:
            self._news.anew(0.0)
        if here.restored is not None:
            self._news.anew(here.restored - BEAT - MAX_SKEW)
        if self._breaker.trouble_since is not None:
            self._news.anew(self._breaker.trouble_since - BEAT)  # Something was on its way when the trouble began.
        self._begun = here.begun
        self._breaker.close()
        for name, at in here.forgotten:
            self._news.note(name, at)
            self._forgotten_until = min(at, here.clock + MAX_SKEW)

    async def _beat_all(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(BEAT)
            await asyncio.sleep(self._breaker.left())

    def _parsed(self, domain: PolicyDomain, value: bytes | None) -> Entry | None:
        if value is None:
            self._counts["nothing"] += 1
            return None
        try:
            entry = parse_shared(domain, value)
        except RowError as error:
            self._counts["not_understood"] += 1
            self._breaker.complain(f"what is shared of {domain} cannot be understood, and does not count: {error}")
            return None
        self._counts["found"] += 1
        return entry

    def _submit(self, job: Job, reply: asyncio.Future[Seen | None] | None = None) -> None:
        self._jobs.append((job, reply))
        if not self._working:
            self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._jobs and self._breaker.works:
                batch = [self._jobs.popleft() for _ in range(min(BATCH, len(self._jobs)))]
                replies = [reply for _, reply in batch if reply]
                begun = time.monotonic()
                await self._trip([job for job, _ in batch], replies)
                self._counts["trips"] += 1
                self._seconds += time.monotonic() - begun
        finally:
            self._working = None
            for _, reply in self._jobs:
                _answer(reply, None)
            self._jobs.clear()

    async def _trip(self, jobs: list[Job], replies: list[asyncio.Future[Seen | None]]) -> None:
        seen: list[Seen | None] = [None] * len(replies)
        trip = asyncio.ensure_future(self._in_thread(lambda: self._server.do(jobs)))
        try:
            if await is_done(trip, _STUCK):
                seen = [*trip.result()]
            else:
                trip.cancel()  # What the thread does goes on.
                self._breaker.open(f"no complete answer within {_STUCK:g} s")
        except FleetError as error:
            self._breaker.open(str(error))
        for reply, one in zip(replies, seen, strict=True):
            _answer(reply, one)

    async def _settled(self) -> None:
        """Wait for the jobs under way: what is told of comes after what was shared of it."""
        while self._working:
            await asyncio.wait([self._working])

    async def _do(self, call: Callable[[], _T]) -> _T:
        if not self._breaker.works:
            raise FleetError(f"the fleet's server does not work: {self._breaker.trouble or 'it was not reached yet'}")
        try:
            return await self._in_thread(call)
        except FleetError as error:
            self._breaker.open(str(error))
            raise

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


async def is_done(future: asyncio.Future[_T], seconds: float) -> bool:
    """Whether it is done within so many seconds; if this process was late itself, it has as many again."""
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    await asyncio.wait([future], timeout=seconds)
    if not future.done() and clock() > end + _LATE:
        await asyncio.wait([future], timeout=seconds)
    return future.done()


def _answer(reply: asyncio.Future[Seen | None] | None, seen: Seen | None) -> None:
    if reply and not reply.done():
        reply.set_result(seen)
