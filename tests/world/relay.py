"""Relays of a fleet in this process, each with a memory, a database and a clock of its own, on real servers.

    relays = Relays([Relay(server.place, dns, https, ca, folder / name, clock) for name in "ab"])
    await relays.start()
    await relays[0].ask(PolicyDomain("example.com"))
    await relays.rest()      # All work is done, and all news has been heard.
    await relays.aclose()

Some work goes on behind answers, so a test that looks at what came of them lets the relays rest first.
"""

import asyncio
import ipaddress
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

from postfix_mtasts.cache.fleet import WITHIN, Fleet
from postfix_mtasts.cache.fleet_connection import TIMEOUT
from postfix_mtasts.cache.fleet_jobs import FleetError, Here, Theirs
from postfix_mtasts.cache.fleet_server import FleetServer
from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.store import Store
from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.config_fleet import FleetPlace
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.exceptions import Exceptions
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.daemon.together import Others
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import tls_context
from postfix_mtasts.sts.domain import NextHop, PolicyDomain
from postfix_mtasts.sts.entry import Answer
from tests.world.ca import Ca
from tests.world.dns import DnsServer
from tests.world.https import HttpsServer

RULES = ReplyRules(Style.PLAIN)
_MARKS = (PolicyDomain(f"{number}.mark.example.net") for number in itertools.count())


class _Server(FleetServer):
    """The server, by the clock of a test."""

    def __init__(self, place: FleetPlace, clock: Callable[[], float], timeout: float) -> None:
        super().__init__(place, timeout)
        self._clock = clock

    def beat(self, name: str, since: float = 0.0) -> Here:
        return super().beat(name, since)._replace(clock=self._clock())


class _Patient(Fleet):
    """A fleet for machines that are too busy to ask a server in time: it asks again."""

    async def look(self, domain: PolicyDomain, token: str = "", within: float = WITHIN) -> Theirs | None:
        while not (theirs := await super().look(domain, token, within)) and self.status()["works"]:
            await asyncio.sleep(0.01)
        return theirs


class Relay:
    """All that a daemon with [fleet] has, but for its sockets. `ahead` is by how many seconds its clock is wrong.

    One that is `patient` waits for a server that is late, which no daemon does.
    """

    def __init__(
        self,
        place: FleetPlace,
        dns: DnsServer,
        https: HttpsServer,
        ca: Ca,
        store: Path,
        clock: Callable[[], float],
        *,
        patient: bool = True,
    ) -> None:
        self.ahead = 0.0
        self.heard: PolicyDomain | None = None  # The last mark.
        self.memory = Memory(policies=1000, notes=1000)
        self._clock = clock
        self._store = Store(str(store), self.clock)
        server = _Server(place, clock, 20 if patient else TIMEOUT)
        self.fleet = (_Patient if patient else Fleet)(server, "the fleet", self.clock)
        others = Others(self.fleet)
        resolver = Resolver([InetEndpoint(dns.address, dns.port)], timeout=30)
        loopback = [ipaddress.ip_network("127.0.0.0/8")]
        self.lookup = Lookup(
            self._store,
            self.memory,
            resolver,
            Fetcher(resolver, tls_context(str(ca.file)), timeout=30, allow_addresses=loopback, port=https.port),
            Dane(resolver, 10, self.clock),
            RULES,
            Exceptions(store.with_suffix(".json")),
            answer_within=30,
            others=others,
            clock=self.clock,
        )
        others.follow(self.lookup.learn, self.memory.policies)
        self._changed, self.fleet.on_changed = self.fleet.on_changed, self._hear
        self._work: asyncio.Task[None] | None = None

    def clock(self) -> float:
        """Its time, in seconds since the epoch."""
        return self._clock() + self.ahead

    async def start(self) -> None:
        """Begin to take part in the fleet."""
        await self.fleet.beat()
        self._work = asyncio.create_task(self.fleet.run())

    async def ask(self, domain: PolicyDomain) -> Answer:
        """What Postfix is told."""
        return (await self.lookup.answer(NextHop(domain), RULES))[0]

    async def _hear(self, domain: PolicyDomain) -> None:
        if domain.name.endswith(".mark.example.net"):
            self.heard = domain
        else:
            await self._changed(domain)

    async def aclose(self) -> None:
        """End it."""
        if self._work:
            self._work.cancel()
        await self.lookup.aclose()
        await self.fleet.aclose()
        await self._store.aclose()


class Relays(list[Relay]):
    """Relays, of which the first must take part in the fleet when they `start`."""

    def __init__(self, relays: Iterable[Relay]) -> None:
        super().__init__(relays)
        self._kept: set[asyncio.Task[object]] = set()

    async def start(self) -> None:
        """Return when all take part, and listen."""
        for relay in self:
            await relay.start()
        while not all(relay.fleet.status()["works"] for relay in self):  # This machine was too busy for the server.
            for relay in self:
                await relay.fleet.beat()
        for _ in range(10):  # Rounds of the loop, in which all tasks that stay begin.
            await asyncio.sleep(0)
        self._kept = asyncio.all_tasks()
        await self.rest()

    async def add(self, relay: Relay) -> None:
        """Let another one take part."""
        self.append(relay)
        before = asyncio.all_tasks()
        await relay.start()
        for _ in range(10):
            await asyncio.sleep(0)
        self._kept |= asyncio.all_tasks() - before

    async def work(self) -> None:
        """Wait until all work is done."""
        while work := asyncio.all_tasks() - self._kept - {asyncio.current_task()}:
            await asyncio.wait(work)

    async def rest(self) -> None:
        """Wait until all work is done and all news has been heard: a mark is behind it."""
        await self.work()
        try:
            while teller := next((relay for relay in self if relay.fleet.status()["works"]), None):
                mark = next(_MARKS)  # One that was told in vain, before all listened, may be heard later.
                if await teller.fleet.tell(mark) == len(self) and await self._all_heard(mark):
                    break
                await asyncio.sleep(0.01)  # Until all listen.
        except FleetError:
            pass  # This machine was too busy for the server, and the relay does not take part any more.
        await self.work()

    async def _all_heard(self, mark: PolicyDomain) -> bool:
        try:
            async with asyncio.timeout(5):
                while any(relay.heard != mark for relay in self):
                    await asyncio.sleep(0.001)
        except TimeoutError:
            return False  # One of them has just begun to listen anew.
        return True

    async def aclose(self) -> None:
        """End all."""
        for relay in self:
            await relay.aclose()
