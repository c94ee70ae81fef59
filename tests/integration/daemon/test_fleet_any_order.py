"""Relays that share what they know, in any order of what can happen: to them, to a domain, and to their clocks.

All is real but the time: the server with TLS and ACL, DNS, HTTPS, and databases. Each time line has its own domain.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from postfix_mtasts.cache.fleet_jobs import Look
from postfix_mtasts.cache.fleet_server import FleetServer
from postfix_mtasts.cache.shared import parse_shared
from postfix_mtasts.sts.decide import decide
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply, CachedPolicy, Entry
from postfix_mtasts.sts.observation import Asked
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.world.ca import Ca
from tests.world.dns import Behaviour, DnsServer
from tests.world.fleet import Shared
from tests.world.https import HttpsServer
from tests.world.relay import Relay, Relays

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
RELAYS = 3
MX = (MxPattern("mx.example.com"),)
POLICIES = {
    "enforce": Policy(Mode.ENFORCE, int(7 * DAY), MX),
    "other": Policy(Mode.ENFORCE, int(30 * DAY), (MxPattern("new.example.com"),)),
    "short": Policy(Mode.ENFORCE, int(10 * MINUTE), MX),
    "zero": Policy(Mode.ENFORCE, 0, MX),
    "testing": Policy(Mode.TESTING, int(7 * DAY), MX),
    "none": Policy(Mode.NONE, int(DAY), ()),
}


class Fetch(NamedTuple):
    """When a policy was fetched, by the clock of the relay that did it."""

    at: float
    policy: Policy


@dataclass
class Fleet:
    """The relays, and what is around them."""

    dns: DnsServer
    https: HttpsServer
    ca: Ca
    relays: Relays
    reader: FleetServer
    time: "Time"
    too_late: int = 0  # How many time lines ended because the server did not answer in time.
    domains: Iterator[PolicyDomain] = field(
        default_factory=lambda: (PolicyDomain(f"d{number}.test") for number in itertools.count())
    )


class Time:
    """The clock of the server, and of the relays whose clocks are right."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


class TimeLine:
    """What happens to one domain, and what must hold after each step."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.domain = next(fleet.domains)
        self.context = fleet.ca.issue(self.domain.policy_host()).server_context()
        self.served: Policy | None = None
        self.fetches: set[Fetch] = set()  # By relays of the fleet, since the domain was forgotten last.
        self.alone: set[Fetch] = set()  # By relays that were not in it.
        self.ever: set[Fetch] = set()  # A relay that is not in it does not hear what is forgotten.
        fleet.dns.add(self.domain.policy_host(), "A", "127.0.0.1")

    async def run(self, steps: list[tuple[str, object]]) -> None:
        """Let all steps happen, one after the other."""
        for relay in self.fleet.relays:
            await self._join(relay)
        for verb, what in [("dns", "A"), ("https", "enforce"), *steps]:
            self.fleet.time.now += 1
            before = len(self.fleet.https.requests)
            had = [(await relay.lookup.entry(self.domain)).cached for relay in self.fleet.relays]
            await getattr(self, f"_{verb}")(self.fleet.relays[what] if isinstance(what, int) else what)
            await self.fleet.relays.rest()
            if any(relay.ahead == 0 and not self._is_in(relay) for relay in self.fleet.relays):
                self.fleet.too_late += 1  # This machine was too busy for the server.
                return
            if len(self.fleet.https.requests) > before and self.served:
                await self._note_fetches(self.served)
            await self._check(had)

    async def _note_fetches(self, policy: Policy) -> None:
        for relay in self.fleet.relays:
            cached = (await relay.lookup.entry(self.domain)).cached
            if cached and cached.fetched_at == relay.clock():
                fetch = Fetch(cached.fetched_at, policy)
                (self.fetches if self._is_in(relay) else self.alone).add(fetch)
                self.ever.add(fetch)

    def _is_in(self, relay: Relay) -> bool:
        return bool(relay.fleet.status()["works"])

    def _newest(self) -> Fetch | None:
        return max(self.fetches, default=None, key=lambda fetch: fetch.at)

    async def _check(self, had: list[CachedPolicy | None]) -> None:
        """A copy has the time and policy of its fetch, nothing forgotten comes back, and the newest fetch is shared."""
        for relay, before in zip(self.fleet.relays, had, strict=True):
            cached = (await relay.lookup.entry(self.domain)).cached
            if cached and self._is_in(relay):
                assert Fetch(cached.fetched_at, cached.policy) in self.fetches | self.alone
                # Nothing is taken that has expired, but in the place of what was to live for longer.
                assert before or cached.is_live(relay.clock()) or cached.fetched_at == relay.clock()
        [seen] = self.fleet.reader.do([Look(self.domain.name)])
        shared = parse_shared(self.domain, seen.value) if seen.value else Entry()
        fetch = Fetch(shared.cached.fetched_at, shared.cached.policy) if shared.cached else None
        newest = self._newest()
        if fetch and fetch in self.alone and (not newest or newest.at < fetch.at <= self.fleet.time.now):
            self.fetches.add(fetch)  # Its time has come, and so it counts.
        else:
            assert fetch == newest

    async def _wait(self, seconds: float) -> None:
        self.fleet.time.now += seconds

    async def _dns(self, what: str) -> None:
        name = self.domain.record_name()
        self.fleet.dns.remove(name)
        self.fleet.dns.set_behaviour(name, Behaviour(rcode="SERVFAIL" if what == "fails" else None))
        if what in "ABC":
            self.fleet.dns.add_txt(name, f"v=STSv1; id={what};".encode())

    async def _https(self, what: str) -> None:
        self.served = POLICIES.get(what)
        body = str(self.served) if self.served else "version: STSv1\n"
        status = 404 if what == "fails" else 200
        self.fleet.https.policy(self.domain.policy_host(), body, self.context, status=status)

    async def _ask(self, relay: Relay) -> None:
        await self._ask_of([relay])

    async def _ask_all(self, _: object) -> None:
        await self._ask_of(self.fleet.relays)

    async def _ask_of(self, relays: list[Relay]) -> None:
        newest = self._newest()
        now = self.fleet.time.now
        is_live = newest is not None and newest.policy.max_age > 0 and now <= newest.at + newest.policy.max_age
        warm = [await self._is_warm(relay) for relay in relays]
        answers = await asyncio.gather(*(relay.ask(self.domain) for relay in relays))
        for relay, was_warm, answer in zip(relays, warm, answers, strict=True):
            entry = await relay.lookup.entry(self.domain)
            if is_live and self._is_in(relay) and not was_warm:
                assert isinstance(answer, Apply), answer
            if isinstance(answer, Apply):
                self._check_applied(answer, entry, relay.clock())

    def _check_applied(self, answer: Apply, entry: Entry, now: float) -> None:
        """What is applied has not expired, or was fetched for this answer."""
        applied = [fetch for fetch in self.ever if fetch.policy == answer.policy]
        assert (
            answer.fetched
            or (entry.cached and entry.cached.fetched_at == now)
            or any(now <= fetch.at + fetch.policy.max_age for fetch in applied)
        )

    async def _is_warm(self, relay: Relay) -> bool:
        """Whether a relay answers from what it knows, so that it has nothing to ask others for."""
        entry = await relay.lookup.entry(self.domain)
        answer: Answer | None = decide(entry, Asked(), relay.clock()).answer
        return answer is not None

    async def _refresh(self, relay: Relay) -> None:
        await relay.lookup.renew(self.domain)

    async def _request(self, relay: Relay) -> None:
        await relay.lookup.refresh(self.domain)

    async def _restart(self, relay: Relay) -> None:
        relay.memory.forget(self.domain)

    async def _forget(self, relay: Relay) -> None:
        """As `cache forget --fleet`."""
        await relay.lookup.forget(self.domain)
        if self._is_in(relay):
            await relay.fleet.forget(self.domain)
            self.fetches.clear()

    async def _leave(self, relay: Relay) -> None:
        """Its clock is an hour ahead."""
        relay.ahead = HOUR
        await relay.fleet.beat()

    async def _lag(self, relay: Relay) -> None:
        """Its clock is an hour behind."""
        relay.ahead = -HOUR
        await relay.fleet.beat()

    async def _join(self, relay: Relay) -> None:
        relay.ahead = 0.0
        await relay.fleet.beat()


relay_numbers = st.integers(0, RELAYS - 1)
happenings = st.one_of(
    st.tuples(
        st.sampled_from(["ask", "ask", "refresh", "request", "restart", "forget", "leave", "lag", "join"]),
        relay_numbers,
    ),
    st.tuples(st.just("ask_all"), st.none()),
    st.tuples(st.just("dns"), st.sampled_from(["A", "B", "C", "none", "fails"])),
    st.tuples(st.just("https"), st.sampled_from([*POLICIES, "fails", "bad"])),
    st.tuples(st.just("wait"), st.sampled_from([MINUTE, 5 * MINUTE, 11 * MINUTE, HOUR, DAY, 3 * DAY, 8 * DAY])),
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, runner: asyncio.Runner) -> Iterator[Fleet]:
    folder: Path = tmp_path_factory.mktemp("fleet")
    with ExitStack() as stack:
        ca = Ca(folder)
        server = stack.enter_context(Shared(folder / "server", ca))
        dns, https = stack.enter_context(DnsServer()), stack.enter_context(HttpsServer())
        clock = Time()

        async def begin() -> Relays:
            relays = Relays(Relay(server.place, dns, https, ca, folder / f"{name}.sqlite", clock) for name in "abc")
            await relays.start()
            return relays

        relays = runner.run(begin())
        reader = FleetServer(server.place)
        stack.callback(reader.close)
        stack.callback(lambda: runner.run(relays.aclose()))
        fleet = Fleet(dns, https, ca, relays, reader, clock)
        yield fleet
        assert fleet.too_late < 10


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(steps=[("https", "short"), ("ask", 0), ("wait", 11 * MINUTE), ("https", "fails"), ("ask", 1)])
@example(steps=[("leave", 0), ("ask", 0), ("ask", 1), ("join", 0), ("https", "fails"), ("request", 0)])
@example(steps=[("ask", 0), ("lag", 0), ("forget", 1), ("join", 0)])
@given(steps=st.lists(happenings, min_size=2, max_size=14))
def test_any_order(fleet: Fleet, runner: asyncio.Runner, steps: list[tuple[str, object]]) -> None:
    runner.run(TimeLine(fleet).run(steps))
