"""The contract of the cache with two relays that share it, each event on either (tests/data/cache_scenarios.txt)."""

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from postfix_mtasts.config_fleet import FleetPlace
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Entry
from tests.world.ca import Ca
from tests.world.dns import Behaviour, DnsServer
from tests.world.fleet import Shared
from tests.world.https import HttpsServer
from tests.world.relay import Relay, Relays
from tests.world.scenarios import Scenario, Step, Words, read, seconds

POLICIES, SCENARIOS = read()
DOMAIN = PolicyDomain("example.com")
START = 1_700_000_000.0
# Which relay is next: in turns, two events each, or the first event on one and all others on the other.
ORDERS: list[Callable[[], Iterator[int]]] = [
    lambda: itertools.cycle((0, 1)),
    lambda: itertools.cycle((0, 0, 1, 1)),
    lambda: itertools.chain((0,), itertools.repeat(1)),
]


class Time:
    """The clock of the time lines, which is that of all relays and of the server."""

    now = START

    def __call__(self) -> float:
        return self.now


class FleetWorld:
    """One domain on real servers, two relays, and a clock of ours."""

    def __init__(self, place: FleetPlace, dns: DnsServer, https: HttpsServer, ca: Ca, folder: Path) -> None:
        self._dns, self._https = dns, https
        self._tls = ca.issue(DOMAIN.policy_host()).server_context()
        dns.remove(DOMAIN.policy_host())
        dns.remove(DOMAIN.record_name())
        dns.add(DOMAIN.policy_host(), "A", "127.0.0.1")
        self._words = Words(POLICIES, START)
        self.time = Time()
        self.relays = Relays([Relay(place, dns, https, ca, folder / f"{name}.sqlite", self.time) for name in "ab"])

    def troubles(self) -> list[int]:
        """How often each relay could not use the server, also if it works again: what it found was not shared then."""
        return [relay.fleet.status()["failures"] for relay in self.relays]

    async def ask(self, relay: Relay) -> tuple[list[str], list[str]]:
        """What Postfix is told at once and when all work is done, and what was asked for that."""
        before = self._requests()
        answers = [await relay.ask(DOMAIN)]
        await self.relays.rest()
        answers.append(await relay.ask(DOMAIN))
        await self.relays.rest()
        return list(map(self._words.answer, answers)), self._asked(before)

    async def refresh(self) -> tuple[list[str], list[str]]:
        """What the relays that have the domain know after the daily refresh, and what was asked for that."""
        before = self._requests()
        known = []
        for relay in self.relays:
            entry = await relay.lookup.entry(DOMAIN)
            if entry.cached:
                await relay.lookup.renew(DOMAIN)
                await self.relays.rest()
                entry = relay.memory.get(DOMAIN) or entry
                live = entry.live(self.time.now) if relay.memory.get(DOMAIN) else None
                known.append(self._words.policy(live.policy) if live else "forgotten")
        return known, self._asked(before)

    def _asked(self, before: tuple[int, int]) -> list[str]:
        after = self._requests()
        return [name for name, old, new in zip(("dns", "https"), before, after, strict=True) if new > old]

    def _requests(self) -> tuple[int, int]:
        records = [query for query in self._dns.queries if query.name == DOMAIN.record_name()]
        return len(records), len(self._https.requests)

    def in_dns(self, *words: str) -> None:
        name = DOMAIN.record_name()
        self._dns.remove(name)
        self._dns.set_behaviour(name, Behaviour())
        match words:
            case ("id", record_id):
                self._dns.add_txt(name, f"v=STSv1; id={record_id};".encode())
            case ("none", ttl):
                self._dns.negative_ttl = int(seconds(ttl))
            case ("twice",):
                self._dns.add_txt(name, b"v=STSv1; id=A;")
                self._dns.add_txt(name, b"v=STSv1; id=B;")
            case ("broken",):
                self._dns.add_txt(name, b"v=STSv1; x=A;")
            case ("fails",):
                self._dns.set_behaviour(name, Behaviour(rcode="SERVFAIL"))

    def at_host(self, word: str) -> None:
        body = str(POLICIES[word]) if word in POLICIES else "version: STSv1\n"
        status = 404 if word == "fails" else 200
        self._https.policy(DOMAIN.policy_host(), body, self._tls, status=status)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, ca: Ca) -> Iterator[Shared]:
    with Shared(tmp_path_factory.mktemp("fleet"), ca) as server:
        yield server


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def https() -> Iterator[HttpsServer]:
    with HttpsServer() as server:
        yield server


class _OtherTimeError(Exception):
    """What the line tells from here on does not follow."""


def _wrong(step: Step, told: list[str], asked: list[str], *, is_new: bool = False) -> str:
    """What does not fit the line. A relay that is new to the domain may tell at once what others tell next.

    Each relay looks up the record for itself, every five minutes. One that is new may fetch a policy that nobody has
    renewed: then the time line is another one from there on, and `_OtherTimeError` is raised.
    """
    expected, *rest = step.expected.split("; ")
    may_ask = rest[0].split(", ") if rest and rest[0].startswith(("dns", "https")) else []
    one_after_the_other = expected.split(", then ")
    if step.verb == "refresh":
        fits = not asked if expected in ("nothing", "forgotten") else expected in told
    else:
        fits = told[0] in one_after_the_other and told[-1] == one_after_the_other[-1]
    if fits and "https" in asked and "https" not in may_ask and is_new:
        raise _OtherTimeError
    if fits and ("https" in may_ask or "https" not in asked):
        return ""
    return f"line {step.line}: told {told}, asked {asked}, but {step.expected}"


@asynccontextmanager
async def _fresh(server: Shared, dns: DnsServer, https: HttpsServer, ca: Ca, folder: Path) -> AsyncIterator[FleetWorld]:
    """A fleet of which nobody knows anything."""
    with server.admin() as admin:
        admin.flushall()
    folder.mkdir()
    world = FleetWorld(server.place, dns, https, ca, folder)
    try:
        await world.relays.start()
        yield world
    finally:
        await world.relays.aclose()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
async def test_scenario(
    scenario: Scenario, server: Shared, dns: DnsServer, https: HttpsServer, ca: Ca, tmp_path: Path
) -> None:
    for attempt in range(5):
        async with _fresh(server, dns, https, ca, tmp_path / str(attempt)) as world:
            before = world.troubles()
            wrong = await _wrong_lines(world, scenario)
            in_time = all(relay.fleet.status()["works"] for relay in world.relays) and world.troubles() == before
        if in_time:  # Otherwise this machine was too busy for the server.
            break
    assert in_time
    assert [one for one in wrong if one] == []


async def test_what_is_found_out_again_is_shared_again(
    server: Shared, dns: DnsServer, https: HttpsServer, ca: Ca, tmp_path: Path
) -> None:
    for attempt in range(5):
        async with _fresh(server, dns, https, ca, tmp_path / str(attempt)) as world:
            world.in_dns("none", "1h")
            asked = []
            one, other = world.relays
            # "No policy" is believed for an hour. Both know it from the first lookup, then from the second.
            for later, relay in ((0, one), (1, other), (3700, one), (3701, other)):
                world.time.now = START + later
                asked.append((await world.ask(relay))[1])
            in_time = all(relay.fleet.status()["works"] for relay in world.relays)
        if in_time and asked == [["dns"], [], ["dns"], []]:
            return  # Otherwise this machine may have been too busy for the server.
    raise AssertionError(asked)


async def _wrong_lines(world: FleetWorld, scenario: Scenario) -> list[str]:
    order = ORDERS[SCENARIOS.index(scenario) % 3]()
    # A relay whose clock is wrong is alone with what it has. So here both have it before the clocks jump.
    first = next(step for step in scenario.steps if step.verb == "ask") if scenario.title.startswith("E") else None
    wrong = []
    with contextlib.suppress(_OtherTimeError):
        for step in scenario.steps:
            wrong.append(await _step(world, step, order))
            if step is first:
                wrong.append(await _copied(world, step))
    return wrong


async def _step(world: FleetWorld, step: Step, order: Iterator[int]) -> str:
    match step.verb:
        case "dns":
            world.in_dns(*step.words)
        case "https":
            world.at_host(*step.words)
        case "ask":
            world.time.now = START + step.time
            relay = world.relays[next(order)]
            is_new = await relay.lookup.entry(DOMAIN) == Entry()
            return _wrong(step, *await world.ask(relay), is_new=is_new)
        case "refresh":
            world.time.now = START + step.time
            return _wrong(step, *await world.refresh())
    return ""


async def _copied(world: FleetWorld, step: Step) -> str:
    """Have the second relay know what the first one has just been told, without asking anybody else."""
    told, asked = await world.ask(world.relays[1])
    return _wrong(step, told, asked) or (f"line {step.line}: a copy was asked for at {asked}" if asked else "")
