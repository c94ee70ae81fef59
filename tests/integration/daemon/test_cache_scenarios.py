"""The contract of the cache with everything real but the clock: DNS, HTTPS, SQLite (tests/data/cache_scenarios.txt)."""

import asyncio
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.store import Store
from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.exceptions import Exceptions
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import tls_context
from postfix_mtasts.sts.domain import NextHop, PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply
from tests.world.ca import Ca
from tests.world.dns import Behaviour, DnsServer
from tests.world.https import HttpsServer
from tests.world.scenarios import Scenario, Step, Words, read, seconds

POLICIES, SCENARIOS = read()
DOMAIN = PolicyDomain("example.com")
REPLY_RULES = ReplyRules(Style.PLAIN)
START = 1_700_000_000.0


class RealWorld:
    """One domain on real servers, and all that answers for it; the clock is ours."""

    def __init__(self, dns: DnsServer, https: HttpsServer, ca: Ca, store: Path) -> None:
        self._dns, self._https = dns, https
        self._tls = ca.issue(DOMAIN.policy_host()).server_context()
        dns.add(DOMAIN.policy_host(), "A", "127.0.0.1")
        self._words = Words(POLICIES, START)
        self._now = START
        self._memory = Memory(policies=10, notes=10)
        self._store = Store(str(store), lambda: self._now)
        resolver = Resolver([InetEndpoint(dns.address, dns.port)], timeout=30)
        loopback = [ipaddress.ip_network("127.0.0.0/8")]
        fetcher = Fetcher(resolver, tls_context(str(ca.file)), timeout=30, allow_addresses=loopback, port=https.port)
        self._lookup = Lookup(
            self._store,
            self._memory,
            resolver,
            fetcher,
            Dane(resolver, 10, lambda: self._now),
            REPLY_RULES,
            Exceptions(store.with_name("exceptions.json")),
            answer_within=30,
            clock=lambda: self._now,
        )

    async def step(self, step: Step) -> str | None:
        """Let happen what a line says; what came of it."""
        match step.verb:
            case "dns":
                self._in_dns(*step.words)
            case "https":
                self._at_host(*step.words)
            case "ask" | "refresh":
                self._now = START + step.time
                return await self._happens(step.verb)
            case "known":
                entry = self._memory.get(DOMAIN)
                assert entry
                return _anywhere(self._words.entry(entry))
        return None

    async def aclose(self) -> None:
        await self._lookup.aclose()
        await self._store.aclose()

    async def _happens(self, verb: str) -> str:
        before = self._requests()
        answers: list[Answer] = []
        if verb == "ask":
            answers.append((await self._lookup.answer(NextHop(DOMAIN), REPLY_RULES))[0])
        else:
            await self._lookup.renew(DOMAIN)
        work = asyncio.all_tasks() - {asyncio.current_task()}
        if work:
            await asyncio.wait(work)
        asked = [name for name, old, new in zip(("dns", "https"), before, self._requests(), strict=True) if new > old]
        entry = self._memory.get(DOMAIN)
        if not entry:
            return "forgotten"
        if verb == "refresh" and not asked:
            return "nothing"
        live = entry.live(self._now)
        if verb == "refresh" and live:
            answers.append(Apply(live.policy))
        elif work:
            answers.append((await self._lookup.answer(NextHop(DOMAIN), REPLY_RULES))[0])
        told = ", then ".join(dict.fromkeys(map(self._words.answer, answers)))
        return "; ".join([told, *([", ".join(asked)] if asked else [])])

    def _requests(self) -> tuple[int, int]:
        records = [query for query in self._dns.queries if query.name == DOMAIN.record_name()]
        return len(records), len(self._https.requests)

    def _in_dns(self, *words: str) -> None:
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

    def _at_host(self, word: str) -> None:
        body = str(POLICIES[word]) if word in POLICIES else "version: STSv1\n"
        status = 404 if word == "fails" else 200
        self._https.policy(DOMAIN.policy_host(), body, self._tls, status=status)


def _anywhere(text: str) -> str:
    """Without the address of the server."""
    return re.sub(r"127[.]0[.]0[.]1 port \d+: ", "", text)


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
def https() -> Iterator[HttpsServer]:
    with HttpsServer() as server:
        yield server


def _expected(step: Step) -> str:
    """What the line says, without what the log is told of it."""
    if step.verb == "known":
        return step.expected
    told, *rest = step.expected.split("; ")
    return "; ".join([told, *(part for part in rest[:1] if part.startswith(("dns", "https")))])


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
async def test_scenario(scenario: Scenario, dns: DnsServer, https: HttpsServer, ca: Ca, tmp_path: Path) -> None:
    world = RealWorld(dns, https, ca, tmp_path / "policies.sqlite")
    try:
        seen = [(step.line, await world.step(step)) for step in scenario.steps]
    finally:
        await world.aclose()
    assert seen == [(step.line, _expected(step) if step.expected else None) for step in scenario.steps]
