"""When the reply to a request lies ready, and what ends that; with real DNS, HTTPS and SQLite, and a clock of ours."""

import asyncio
import ipaddress
import os
import resource
import sqlite3
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.store import Store
from postfix_mtasts.config import DaneSetting, InetEndpoint, OnFailure
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.exceptions import Exceptions
from postfix_mtasts.daemon.lookup import MAX_BEHIND, Lookup
from postfix_mtasts.dns.resolver import Resolver, RRset, Tlsa
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.postfix.socketmap import Request
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import tls_context
from postfix_mtasts.sts.domain import NextHop, PolicyDomain
from postfix_mtasts.sts.elsewhere import KnownElsewhere
from postfix_mtasts.sts.entry import CachedPolicy, Entry
from postfix_mtasts.sts.observation import DaneFailed, DaneUsable, Failure, Stage
from postfix_mtasts.sts.policy import parse
from tests.world.ca import Ca
from tests.world.dns import Behaviour, DnsServer
from tests.world.https import HttpsServer

_T = TypeVar("_T")
HAS = PolicyDomain("has.test")
START = 1_700_000_000.0
SECURE = b"47:OK secure match=mx.has.test servername=hostname,"
NOTFOUND = b"9:NOTFOUND ,"
POLICY = "version: STSv1\nmode: enforce\nmx: mx.has.test\nmax_age: 604800\n"


def request(key: str, name: str = "postfix") -> Request:
    return Request(name.encode(), key.encode())


@dataclass
class Service:
    """A lookup over a world in which `has.test` has a policy and `has-not.test` none."""

    dns: DnsServer
    https: HttpsServer
    ca: Ca
    now: float = START
    rules: ReplyRules = field(default_factory=lambda: ReplyRules(Style.PLAIN))

    @asynccontextmanager
    async def running(self, folder: Path, notes: int = 10) -> AsyncIterator["Service"]:
        def clock() -> float:
            return self.now

        resolver = Resolver([InetEndpoint(self.dns.address, self.dns.port)], timeout=30)
        fetcher = Fetcher(
            resolver,
            tls_context(str(self.ca.file)),
            timeout=30,
            allow_addresses=[ipaddress.ip_network("127.0.0.0/8")],
            port=self.https.port,
        )
        self.store = store = Store(str(folder / "policies.sqlite"), clock)
        await store.open()
        memory, dane = Memory(policies=10, notes=notes, clock=clock), Dane(resolver, 10, clock)
        self.exceptions = Exceptions(folder / "exceptions.json", clock)
        self.lookup = Lookup(
            store, memory, resolver, fetcher, dane, self.rules, self.exceptions, answer_within=30, clock=clock
        )
        try:
            yield self
        finally:
            await self.lookup.aclose()
            await store.aclose()

    async def ask(self, key: str, name: str = "postfix", *, times: int = 1) -> list[tuple[bytes | None, bytes]]:
        """Ask as often; what lay ready each time, and the reply that comes without looking at that."""
        asked = request(key, name)
        return [(self.lookup.at_once(asked.encode()), (await self.lookup.reply(asked)).encode()) for _ in range(times)]

    def ready(self, key: str, name: str = "postfix") -> bytes | None:
        return self.lookup.at_once(request(key, name).encode())


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def world(ca: Ca) -> Iterator[Service]:
    with DnsServer() as dns, HttpsServer() as https:
        dns.add_txt(HAS.record_name(), b"v=STSv1; id=1;")
        dns.add(HAS.policy_host(), "A", "127.0.0.1")
        https.policy(HAS.policy_host(), POLICY, ca.issue(HAS.policy_host()).server_context())
        yield Service(dns, https, ca)


@pytest.mark.parametrize(
    ("key", "reply"),
    [
        ("has.test", SECURE),
        ("[has.test]:587", SECURE),
        ("HAS.test", SECURE),
        ("has-not.test", NOTFOUND),
        (".has.test", NOTFOUND),
        ("label", NOTFOUND),
    ],
)
async def test_what_is_known_lies_ready_from_the_second_time_on(
    world: Service, tmp_path: Path, key: str, reply: bytes
) -> None:
    async with world.running(tmp_path):
        found = await world.ask(key, times=4)
    first = (None, reply)
    # A key that names no domain is known from the beginning.
    known = [first, (reply, reply)] if key in (".has.test", "label") else [first, first]
    assert found == [*known, (reply, reply), (reply, reply)]


async def test_each_style_has_its_own(world: Service, tmp_path: Path) -> None:
    async with world.running(tmp_path):
        replies = {name: (await world.ask("has.test", name, times=3))[-1] for name in ("plain", "tlsrpt", "postfix")}
    assert replies["plain"] == replies["postfix"] == (SECURE, SECURE)
    ready, made = replies["tlsrpt"]
    assert ready == made
    assert b" policy_type=sts policy_domain=has.test mx_host_pattern=mx.has.test " in made


@pytest.mark.parametrize(
    ("key", "reply", "span"),
    [
        pytest.param("has.test", SECURE, 300.0, id="until the record is looked up again"),
        pytest.param("has-not.test", NOTFOUND, 120.0, id="for the negative TTL"),
    ],
)
async def test_until_when(world: Service, tmp_path: Path, key: str, reply: bytes, span: float) -> None:
    world.dns.negative_ttl = 120
    async with world.running(tmp_path):
        await world.ask(key, times=2)
        ready = []
        for world.now in (START, START + span - 1, START + span, START - 1, START + span - 1):
            ready.append(world.ready(key))
    assert ready == [reply, reply, None, None, reply]


@pytest.mark.parametrize("key", ["has.test", "has-not.test"])
@pytest.mark.parametrize("how", ["forget", "refresh", "rules"])
async def test_what_ends_it_before(world: Service, tmp_path: Path, key: str, how: str) -> None:
    async with world.running(tmp_path):
        await world.ask(key, times=3)
        domain = PolicyDomain(key)
        match how:
            case "forget":
                await world.lookup.forget(domain)
            case "refresh":
                await world.lookup.refresh(domain)
            case _:
                world.lookup.rules = ReplyRules(Style.TLSRPT)
        assert world.ready(key) is None


async def test_a_new_policy_ends_the_reply_made_of_the_old_one(world: Service, tmp_path: Path) -> None:
    async with world.running(tmp_path):
        await world.ask("has.test", times=3)
        world.https.policy(
            HAS.policy_host(),
            POLICY.replace("enforce", "none"),
            world.ca.issue(HAS.policy_host()).server_context(),
        )
        await world.lookup.refresh(HAS)
        assert await world.ask("has.test", times=2) == [(None, NOTFOUND), (NOTFOUND, NOTFOUND)]


async def test_a_domain_pushed_out_of_memory_has_no_ready_reply(world: Service, tmp_path: Path) -> None:
    async with world.running(tmp_path, notes=1):
        await world.ask("has-not.test", times=2)
        await world.ask("other.test")
        assert world.ready("has-not.test") is None


async def test_nothing_is_ready_while_a_record_is_to_be_looked_up(world: Service, tmp_path: Path) -> None:
    """The query after five minutes begins the lookup; until DNS has answered, each gets what was known."""
    async with world.running(tmp_path):
        await world.ask("has.test", times=2)
        world.now += 301
        world.dns.set_behaviour(HAS.record_name(), Behaviour(silent=True))
        assert await world.ask("has.test", times=3) == [(None, SECURE)] * 3
        while [query.name for query in world.dns.queries].count(HAS.record_name()) < 2:
            await asyncio.sleep(0.01)


async def test_a_failure_lies_ready_for_as_long_as_it_is_believed(world: Service, tmp_path: Path) -> None:
    world.rules = ReplyRules(Style.PLAIN, OnFailure.TEMP)
    world.dns.set_behaviour("_mta-sts.broken.test", Behaviour(rcode="SERVFAIL"))
    async with world.running(tmp_path):
        found = await world.ask("broken.test", times=3)
        world.now += 60
        assert world.ready("broken.test") is None
    replies = {reply for _, reply in found}
    (reply,) = replies
    assert reply.split(b":", 1)[1].startswith(b"TEMP TXT lookup: ")
    assert [ready for ready, _ in found] == [None, None, reply]


async def test_where_the_row_cannot_be_read_a_policy_that_failed_is_not_fetched_for_each_query(
    world: Service, tmp_path: Path
) -> None:
    row = sqlite3.connect(tmp_path / "policies.sqlite", isolation_level=None)
    row.execute("CREATE TABLE policies (key TEXT PRIMARY KEY, value BLOB)")
    row.execute("INSERT INTO policies VALUES ('has.test', 'none of ours')")
    row.close()
    world.https.policy(HAS.policy_host(), "", world.ca.issue(HAS.policy_host()).server_context(), status=404)
    async with world.running(tmp_path):
        failed = await world.ask("has.test", times=5)
        assert {reply.split(b":", 1)[1].split(b" ")[0] for _, reply in failed} == {b"TEMP"}
        assert len(world.https.requests) == 1
        world.now += 300
        world.https.policy(HAS.policy_host(), POLICY, world.ca.issue(HAS.policy_host()).server_context())
        assert [reply for _, reply in await world.ask("has.test", times=2)] == [SECURE] * 2
        assert len(world.https.requests) == 2


async def test_mail_is_deferred_if_the_process_was_stopped_while_a_domain_was_looked_up(
    world: Service, tmp_path: Path
) -> None:
    """It had no chance to hear of a policy."""
    world.dns.set_behaviour("_mta-sts.slow.test", Behaviour(silent=True))
    async with world.running(tmp_path):
        world.lookup.answer_within = 0.5
        asyncio.get_running_loop().call_later(0.1, time.sleep, 2.5)
        stopped = await world.ask("slow.test")
    assert stopped == [(None, b"50:TEMP discovery: no result within 0.5 s; it goes on,")]


@pytest.mark.parametrize(
    ("dane", "reply"),
    [
        (DaneSetting.OFF, SECURE),
        (DaneSetting.YIELD, b"50:TEMP discovery: no result within 0.5 s; it goes on,"),
    ],
)
async def test_a_policy_that_another_relay_tells_of_meanwhile_holds(
    world: Service, tmp_path: Path, dane: DaneSetting, reply: bytes
) -> None:
    """Though this one cannot find it in time. Where DANE may decide, it is not known yet whether it does."""
    world.dns.set_behaviour(HAS.record_name(), Behaviour(silent=True))
    world.rules = ReplyRules(Style.PLAIN, dane=dane)
    policy, _ = parse(POLICY.encode())
    theirs = KnownElsewhere(Entry(CachedPolicy(policy, POLICY, "1", START), checked_at=START))
    async with world.running(tmp_path):
        world.lookup.answer_within = 0.5
        asked = asyncio.create_task(world.ask("has.test"))
        while not world.lookup.under_way:
            await asyncio.sleep(0)
        await world.lookup.learn(HAS, theirs)
        assert await asked == [(None, reply)]


async def test_what_dane_says_ends_a_ready_reply_too(world: Service, tmp_path: Path) -> None:
    world.rules = ReplyRules(Style.PLAIN, dane=DaneSetting.YIELD)
    world.dns.add("has.test", "MX", "10 mx.has.test.", ttl=120)
    async with world.running(tmp_path):
        await world.ask("has.test", times=2)
        ready = []
        for world.now in (START, START + 119, START + 120):
            ready.append(world.ready("has.test"))
        asked = await world.ask("has.test", times=3)
    assert asked == [(None, SECURE), (None, SECURE), (SECURE, SECURE)]
    assert ready == [SECURE, SECURE, None]


async def test_known_policies_are_looked_up_again_though_new_domains_hang(world: Service, tmp_path: Path) -> None:
    """However many hang: the others have places of their own."""
    hanging = [f"hangs{number}.test" for number in range(2 * MAX_BEHIND)]
    for name in hanging:
        world.dns.set_behaviour(f"_mta-sts.{name}", Behaviour(silent=True))
    async with world.running(tmp_path):
        assert await world.ask("has.test") == [(None, SECURE)]
        waiting = [asyncio.create_task(world.lookup.reply(request(name))) for name in hanging]
        while len({query.name for query in world.dns.queries}) < len(hanging) + 2:
            await asyncio.sleep(0.01)
        world.now += 301
        asked = len([query for query in world.dns.queries if query.name == HAS.record_name()])
        assert await world.ask("has.test") == [(None, SECURE)]
        while len([query for query in world.dns.queries if query.name == HAS.record_name()]) == asked:
            await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("hanging", "other", "most"),
    [("x{}.bad.test", "good.test", 50), ("x{}.bad.co.test", "good.co.test", 25)],
)
async def test_an_owner_whose_nameservers_hang_leaves_places_to_others(
    world: Service, tmp_path: Path, hanging: str, other: str, most: int
) -> None:
    known = Entry(CachedPolicy(parse(POLICY.encode())[0], POLICY, "1", START), checked_at=START - 301, last_used=START)
    domains = [*(hanging.format(number) for number in range(2 * MAX_BEHIND)), other]
    async with world.running(tmp_path):
        for name in domains:
            world.dns.set_behaviour(f"_mta-sts.{name}", Behaviour(silent=True))
            world.store.put(PolicyDomain(name), known)
        for name in domains:
            assert await world.ask(name) == [(None, SECURE)]
        while f"_mta-sts.{other}" not in (asked := {query.name for query in world.dns.queries}):
            await asyncio.sleep(0.01)
    assert asked == {f"_mta-sts.{name}" for name in (*domains[:most], other)}


class Exhausted(Resolver):
    """A resolver that has no descriptor left once a lookup of this kind begins; or from the beginning."""

    before = "mx_hosts"

    async def mx_hosts(self, name: str) -> RRset[str]:
        return await self._in_time("mx_hosts", super().mx_hosts(name))

    async def host(self, name: str) -> RRset[str]:
        return await self._in_time("host", super().host(name))

    async def tlsa(self, name: str) -> RRset[Tlsa]:
        return await self._in_time("tlsa", super().tlsa(name))

    async def _in_time(self, kind: str, lookup: Coroutine[Any, Any, RRset[_T]]) -> RRset[_T]:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)  # The lowest number that a file can have now.
        os.close(free)
        if kind == self.before:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            return await lookup
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("lookup", ["mx_hosts", "host", "tlsa"])
async def test_dane_is_unknown_while_this_machine_lacks_descriptors(world: Service, lookup: str) -> None:
    """The lookup has not failed: it was not made, and nothing is kept of it."""
    world.dns.authenticated = {"test"}
    world.dns.add("has.test", "MX", "10 mx.has.test.")
    world.dns.add("mx.has.test", "A", "192.0.2.1")
    world.dns.add("_25._tcp.mx.has.test", "TLSA", "3 1 1 " + 32 * "ab")
    resolver = Exhausted([InetEndpoint(world.dns.address, world.dns.port)], timeout=30)
    dane, resolver.before = Dane(resolver, 10), lookup
    found = await dane.of(NextHop(HAS))
    assert found == DaneFailed(Failure(Stage.TLSA, "too many open files", None, is_local=True))
    assert dane.at_hand(NextHop(HAS)) is None
    resolver.before = ""
    assert await dane.of(NextHop(HAS)) == DaneUsable(("mx.has.test",), 300.0)
