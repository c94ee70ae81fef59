"""What shadow mode probes, when, and what a domain of somebody else can make of that."""

import asyncio
import datetime
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.store import Store
from postfix_mtasts.cache.withheld import Result
from postfix_mtasts.config import Config, DaneSetting, ExceptionSetting, Level, parse
from postfix_mtasts.daemon import shadow as shadow_module
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.exceptions import Exceptions
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.daemon.shadow import CONCURRENCY, Shadow
from postfix_mtasts.delivery.hosts import MAX_ADDRESSES
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.dns.tlsa import MAX_HOSTS
from postfix_mtasts.postfix.installation import CLIENT_SETTINGS, Client, client_of, settings
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.postfix.socketmap import Request
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import tls_context
from postfix_mtasts.sts.domain import NextHop, PolicyDomain
from postfix_mtasts.sts.entry import CachedPolicy, Entry
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.world.ca import Ca
from tests.world.dns import DnsServer
from tests.world.smtp import SmtpServer

pytestmark = pytest.mark.usefixtures("namespace")

DAY = 86400.0
START = 1_800_000_000.0
HOUR_LONG = 3600.0
NOTFOUND = b"9:NOTFOUND ,"


@dataclass
class Scene:
    """A lookup that enforces nothing, and what it gathers; the clock is ours."""

    dns: DnsServer
    ca: Ca
    servers: ExitStack
    folder: Path
    now: float = START
    allow: str = '["127.0.0.0/8"]'

    def __post_init__(self) -> None:
        self.resolver = resolver = Resolver(parse(self._toml(), "x").dns.nameservers, timeout=30)
        self.memory = Memory(policies=20_000, notes=10, clock=self.clock)
        self.store = Store(str(self.folder / "policies.sqlite"), self.clock)
        self.dane = Dane(resolver, 10, self.clock)
        fetcher = Fetcher(resolver, tls_context(str(self.ca.file)), timeout=30)
        rules = ReplyRules(Style.PLAIN, enforce=False)
        self.exceptions = Exceptions(self.folder / "exceptions.json", self.clock)
        self.lookup = Lookup(
            self.store,
            self.memory,
            resolver,
            fetcher,
            self.dane,
            rules,
            self.exceptions,
            answer_within=30,
            clock=self.clock,
        )

    def clock(self) -> float:
        return self.now

    def _toml(self) -> bytes:
        return (
            f'[cache]\npath = "{self.folder / "policies.sqlite"}"\n'
            f'[dns]\nnameservers = ["{self.dns.address}:{self.dns.port}"]\n'
            f'[fetch]\nca_file = "{self.ca.file}"\nallow_addresses = {self.allow}\n'
        ).encode()

    def shadow(self, pause: float = 0, deadline: float = 30) -> Shadow:
        settings: Config = parse(self._toml(), "x")
        return Shadow(settings, self.lookup, self.resolver, self.dane, self.clock, pause, deadline)

    def know(self, domain: str, mode: Mode = Mode.ENFORCE) -> None:
        """Have a policy at hand that allows all below the domain."""
        policy = Policy(mode, 10**7, (MxPattern(f"*.{domain}"),))
        entry = Entry(CachedPolicy(policy, str(policy), "1", self.now), checked_at=self.now, last_used=self.now)
        self.memory.put(PolicyDomain(domain), entry)

    def host(self, name: str, address: str) -> None:
        self.dns.add(name, "A", address)

    def server(self, address: str, context: ssl.SSLContext | None = None, greeting: str = "220 ready") -> SmtpServer:
        return self.servers.enter_context(SmtpServer(address, context=context, greeting=greeting))

    async def ask(self, key: str) -> bytes:
        return (await self.lookup.reply(Request(b"postfix", key.encode()))).encode()

    async def aclose(self) -> None:
        await self.lookup.aclose()
        await self.store.aclose()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def parts(ca: Ca, tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    with DnsServer() as dns, ExitStack() as servers:
        yield lambda **changes: Scene(dns, ca, servers, tmp_path, **changes)


@pytest.fixture
async def scene(parts: Callable[..., Scene]) -> AsyncIterator[Scene]:
    made = parts()
    yield made
    await made.aclose()


class Running:
    """`async with Running(shadow): …`: it has begun, and probes."""

    def __init__(self, shadow: Shadow) -> None:
        self.shadow = shadow

    async def __aenter__(self) -> Shadow:
        await self.shadow.follow()
        self._task = asyncio.create_task(self.shadow.run())
        return self.shadow

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self.shadow.aclose()


async def soon(look: Callable[[], object]) -> None:
    """Wait until that is true."""
    async with asyncio.timeout(20):
        while not look():
            await asyncio.sleep(0.01)


def result(shadow: Shadow, key: str) -> Result | None:
    gathered = shadow._gathered
    assert gathered
    return next(known.result for hop, known in gathered.hops.items() if str(hop) == key)


async def probed(shadow: Shadow, key: str) -> tuple[str, str]:
    await soon(lambda: result(shadow, key))
    found = result(shadow, key)
    assert found
    return found.state, found.reason


async def test_a_domain_is_probed_as_postfix_would(scene: Scene) -> None:
    scene.know("good.test")
    scene.dns.add("good.test", "MX", "10 mx.good.test.")
    scene.host("mx.good.test", "127.0.1.1")
    server = scene.server("127.0.1.1", scene.ca.issue("mx.good.test").server_context())
    async with Running(scene.shadow()) as shadow:
        assert await scene.ask("good.test") == NOTFOUND
        assert await probed(shadow, "good.test") == ("delivered", "")
        counts = next(shadow.documents())
    assert (counts["asked"], counts["with_policy"], counts["enforced"], counts["delivered"]) == (1, 1, 1, 1)
    assert len(server.greeted) == 1
    assert server.greeted != [""]


async def test_modes_testing_and_none_are_as_before_and_every_withheld_query_counts(scene: Scene) -> None:
    scene.know("enforce.test")
    scene.know("testing.test", Mode.TESTING)
    async with Running(scene.shadow(pause=HOUR_LONG)) as shadow:
        for _ in range(3):
            assert await scene.ask("enforce.test") == NOTFOUND
            assert await scene.ask("testing.test") == NOTFOUND
        gathered = shadow._gathered
        assert gathered
        assert {str(hop): known.queries for hop, known in gathered.hops.items()} == {"enforce.test": 3}
        ready = [scene.lookup.at_once(Request(b"postfix", key).encode()) for key in (b"enforce.test", b"testing.test")]
        assert ready == [None, NOTFOUND]
        scene.know("enforce.test", Mode.NONE)
        await scene.ask("enforce.test")
        assert (len(gathered.hops), len(gathered.asked), len(gathered.with_policy)) == (0, 2, 2)


async def test_names_are_judged_as_the_style_in_force_has_it(scene: Scene) -> None:
    """A certificate with a name that the policy allows, but not with that of the MX host."""
    scene.know("style.test")
    scene.dns.add("style.test", "MX", "10 mx.style.test.")
    scene.host("mx.style.test", "127.0.1.1")
    server = scene.server("127.0.1.1", scene.ca.issue("other.style.test").server_context())
    found = []
    for name, checks in ((b"plain", True), (b"tlsrpt", False), (b"tlsrpt", True)):
        scene.now += 2
        async with Running(scene.shadow(pause=HOUR_LONG)) as shadow:
            await scene.lookup.reply(Request(name, b"style.test"))
        scene.now += DAY
        async with Running(scene.shadow()) as shadow:  # It is due, and goes by the style of the last query.
            shadow._client = Client("", checks_patterns=checks)
            await soon(lambda: (one := result(shadow, "style.test")) and one.at == scene.now)
            found.append(await probed(shadow, "style.test"))
    reason = "its MX mx.style.test: its certificate is for other.style.test, not for mx.style.test"
    assert found == [("delivered", ""), ("delivered", ""), ("deferred", reason)]
    client = client_of(await settings(CLIENT_SETTINGS))
    assert set(server.greeted) == {client.helo}


async def test_what_an_exception_decides_is_not_withheld(scene: Scene) -> None:
    scene.know("exempt.test")
    async with Running(scene.shadow(pause=HOUR_LONG)) as shadow:
        await scene.ask("exempt.test")
        assert next(shadow.documents())["enforced"] == 1
        exception = ExceptionSetting("exempt.test", datetime.date(2030, 1, 1), "why", Level.MAY)
        await scene.exceptions.load((exception,))
        assert await scene.ask("exempt.test") == b"6:OK may,"
        assert next(shadow.documents())["enforced"] == 0


@pytest.mark.parametrize("addresses", [1, 20])
async def test_of_a_hundred_mx_hosts_five_addresses_are_probed(scene: Scene, addresses: int) -> None:
    scene.know("many.test")
    for number in range(100):
        scene.dns.add("many.test", "MX", f"{number} mx{number}.many.test.")
        for address in range(addresses):
            scene.host(f"mx{number}.many.test", f"127.1.{number}.{address + 1}")
    server = scene.server("0.0.0.0")
    async with Running(scene.shadow()) as shadow:
        await scene.ask("many.test")
        state, reason = await probed(shadow, "many.test")
    assert (state, reason.partition(" (")[0]) == ("deferred", "its MX mx0.many.test does not offer STARTTLS")
    assert len(server.greeted) == MAX_ADDRESSES


async def test_of_a_hundred_mx_hosts_without_an_address_twenty_are_looked_up(scene: Scene) -> None:
    scene.know("lost.test")
    for number in range(100):
        scene.dns.add("lost.test", "MX", f"{number} mx{number}.lost.test.")
    async with Running(scene.shadow()) as shadow:
        await scene.ask("lost.test")
        assert (await probed(shadow, "lost.test"))[0] == "returned"
    assert len({query.name for query in scene.dns.queries if query.rdtype == "A"}) == MAX_HOSTS


async def test_addresses_inside_a_network_are_not_probed(parts: Callable[..., Scene]) -> None:
    scene = parts(allow="[]")
    scene.know("inside.test")
    scene.dns.add("inside.test", "MX", "10 mx.inside.test.")
    scene.host("mx.inside.test", "127.0.1.1")
    server = scene.server("127.0.1.1")
    async with Running(scene.shadow()) as shadow:
        await scene.ask("inside.test")
        reason = "its MX mx.inside.test has no public address, only 127.0.1.1"
        assert await probed(shadow, "inside.test") == ("unclear", reason)
    assert server.greeted == []
    await scene.aclose()


async def test_a_host_that_hangs_delays_no_answer_and_has_a_deadline(scene: Scene) -> None:
    for name in ("hangs.test", "other.test"):
        scene.know(name)
        scene.dns.add(name, "MX", f"10 mx.{name}.")
        scene.host(f"mx.{name}", "127.0.1.1")
    scene.server("127.0.1.1", greeting="")
    async with Running(scene.shadow(deadline=1.0)) as shadow:
        assert await scene.ask("hangs.test") == NOTFOUND
        await soon(lambda: shadow._under_way)
        assert await scene.ask("hangs.test") == NOTFOUND
        assert await scene.ask("other.test") == NOTFOUND
        assert result(shadow, "hangs.test") is None
        assert await probed(shadow, "hangs.test") == ("unclear", "its MX hosts took longer than 1 s")


@contextmanager
def flood(address: str) -> Iterator[list[int]]:
    """A host that sends the lines of a greeting without an end; how many octets it could send."""
    sent: list[int] = []
    with socket.create_server((address, 25)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        while True:
                            sent.append(connection.send(b"220-x\r\n" * 1000))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield sent
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


async def test_a_host_that_sends_without_an_end_is_heard_for_ten_thousand_octets(scene: Scene) -> None:
    scene.know("floods.test")
    scene.dns.add("floods.test", "MX", "10 mx.floods.test.")
    scene.host("mx.floods.test", "127.0.1.9")
    with flood("127.0.1.9") as sent:
        async with Running(scene.shadow()) as shadow:
            await scene.ask("floods.test")
            reason = "its MX mx.floods.test: its greeting is longer than 10000 bytes"
            assert await probed(shadow, "floods.test") == ("unclear", reason)
    assert sum(sent) < 2**23  # What the kernel's buffers take.


async def test_each_domain_is_probed_once_a_day(scene: Scene) -> None:
    scene.know("daily.test")
    scene.dns.add("daily.test", "MX", "10 mx.daily.test.")
    scene.host("mx.daily.test", "127.0.1.1")
    server = scene.server("127.0.1.1")
    async with Running(scene.shadow()) as shadow:
        for times, later in enumerate((0.0, DAY), start=1):
            scene.now = START + later
            await scene.ask("daily.test")
            await soon(lambda: (found := result(shadow, "daily.test")) and found.at == scene.now)
            await soon(lambda: not shadow._under_way)
            scene.now += DAY - 1
            await scene.ask("daily.test")
            assert (len(shadow._under_way), shadow._due.pop()) == (0, None)
            assert len(server.greeted) == times


async def test_domains_wait_for_each_other(scene: Scene) -> None:
    for name in ("first.test", "second.test"):
        scene.know(name)
        scene.dns.add(name, "MX", "0 .")
    async with Running(scene.shadow(pause=HOUR_LONG)) as shadow:
        for name in ("first.test", "second.test"):
            await scene.ask(name)
        assert await probed(shadow, "first.test") == ("returned", "it accepts no mail: it has a null MX record")
        await soon(lambda: not shadow._under_way)
        assert result(shadow, "second.test") is None


async def test_so_many_are_under_way_at_once(scene: Scene) -> None:
    scene.server("127.0.1.1", greeting="")
    names = [f"d{number}.test" for number in range(CONCURRENCY + 10)]
    for name in names:
        scene.know(name)
        scene.dns.add(name, "MX", f"10 mx.{name}.")
        scene.host(f"mx.{name}", "127.0.1.1")
    async with Running(scene.shadow()) as shadow:
        for name in names:
            await scene.ask(name)
        await soon(lambda: len(shadow._under_way) == CONCURRENCY)
        for _ in range(100):
            await asyncio.sleep(0)
            assert len(shadow._under_way) == CONCURRENCY


def test_owners_of_many_domains_take_turns() -> None:
    queue = shadow_module._Queue()
    for name in ("a.many.test", "b.many.test", "c.many.test", "few.example", "a.many.test"):
        queue.put(NextHop(PolicyDomain(name)))
    taken = [str(found) for _ in range(5) if (found := queue.pop())]
    assert taken == ["a.many.test", "few.example", "b.many.test", "c.many.test"]


async def test_nothing_is_probed_when_it_is_off(scene: Scene) -> None:
    scene.know("on.test")
    scene.lookup.rules = replace(scene.lookup.rules, enforce=True)
    async with Running(scene.shadow()) as shadow:
        assert await scene.ask("on.test") == b"44:OK secure match=.on.test servername=hostname,"
        assert (shadow.since, list(shadow.documents()), shadow._due.pop()) == (None, [{"since": None}], None)
    assert list(scene.folder.glob("*.shadow")) == []


async def test_the_date_and_what_was_found_are_kept_until_it_is_off(scene: Scene) -> None:
    scene.know("kept.test")
    scene.dns.add("kept.test", "MX", "0 .")
    scene.know("waits.test")
    async with Running(scene.shadow()) as shadow:
        await scene.ask("kept.test")
        found = await probed(shadow, "kept.test")
    scene.now += DAY / 2
    async with Running(scene.shadow(pause=HOUR_LONG)) as shadow:
        assert shadow.since == START
        assert await probed(shadow, "kept.test") == found
        scene.lookup.rules = replace(scene.lookup.rules, enforce=True)
        await shadow.follow()
        assert next(shadow.documents()) == {"since": None}
        assert list(scene.folder.glob("*.shadow")) == []
        scene.lookup.rules = replace(scene.lookup.rules, enforce=False)
        await shadow.follow()
        assert shadow.since == START + DAY / 2
        assert next(shadow.documents())["enforced"] == 0


async def test_what_was_not_probed_before_a_restart_is_probed_after_it(scene: Scene) -> None:
    for name in ("first.test", "second.test"):
        scene.know(name)
        scene.dns.add(name, "MX", "0 .")
    async with Running(scene.shadow(pause=HOUR_LONG)) as shadow:
        for name in ("first.test", "second.test"):
            await scene.ask(name)
        await probed(shadow, "first.test")
    async with Running(scene.shadow(pause=HOUR_LONG)) as shadow:
        assert (await probed(shadow, "second.test"))[0] == "returned"


async def test_a_file_that_is_damaged_is_told_of_and_begun_anew(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    path = scene.folder / "policies.sqlite.shadow"
    path.write_text("{")
    async with Running(scene.shadow()) as shadow:
        assert shadow.since == START
    assert f"shadow mode: {path}: not understood: " in caplog.text
    assert path.read_text().startswith('{"version": 1')


async def test_dane_that_decides_anyway_changes_nothing(scene: Scene) -> None:
    scene.lookup.rules = replace(scene.lookup.rules, dane=DaneSetting.YIELD)
    scene.dns.authenticated = {"signed"}
    scene.know("all.signed")
    scene.know("some.signed")
    for name, hosts in (("all.signed", ["mx"]), ("some.signed", ["mx", "other"])):
        for number, host in enumerate(hosts):
            scene.dns.add(name, "MX", f"{number} {host}.{name}.")
            scene.host(f"{host}.{name}", "127.0.1.1")
        scene.dns.add(f"_25._tcp.mx.{name}", "TLSA", "3 1 1 " + 32 * "ab")
    scene.server("127.0.1.1", scene.ca.issue("mx.some.signed", "other.some.signed").server_context())
    async with Running(scene.shadow()) as shadow:
        assert [await scene.ask(name) for name in ("all.signed", "some.signed")] == [NOTFOUND, NOTFOUND]
        assert await probed(shadow, "all.signed") == ("dane", "")
        # Enforced, Postfix would be told dane-only, and its other MX host would not count.
        reason = "its MX mx.some.signed: no TLSA record matches its certificate"
        assert await probed(shadow, "some.signed") == ("deferred", reason)


async def test_mx_hosts_that_have_changed_since_dane_was_looked_up(scene: Scene) -> None:
    scene.lookup.rules = replace(scene.lookup.rules, dane=DaneSetting.DANE_ONLY)
    scene.dns.authenticated = {"signed"}
    scene.know("moved.signed")
    scene.dns.add("moved.signed", "MX", "0 old.moved.signed.")
    scene.host("old.moved.signed", "127.0.1.1")
    scene.dns.add("_25._tcp.old.moved.signed", "TLSA", "3 1 1 " + 32 * "ab")
    await scene.dane.of(NextHop(PolicyDomain("moved.signed")))
    scene.dns.remove("moved.signed")
    scene.dns.add("moved.signed", "MX", "0 new.moved.signed.")
    scene.lookup.rules = replace(scene.lookup.rules, dane=DaneSetting.YIELD)
    async with Running(scene.shadow()) as shadow:
        await scene.ask("moved.signed")
        scene.lookup.rules = replace(scene.lookup.rules, dane=DaneSetting.DANE_ONLY)
        reason = "its MX hosts have changed since their TLSA records were looked up"
        assert await probed(shadow, "moved.signed") == ("unclear", reason)


async def test_a_reload_without_cas_stops_probes_and_not_the_daemon(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.know("later.test")
    scene.dns.add("later.test", "MX", "0 .")
    away = scene.ca.file.rename(scene.ca.file.with_name("away"))
    try:
        async with Running(scene.shadow()) as shadow:
            await scene.ask("later.test")
            trouble = f'fetch.ca_file = "{scene.ca.file}": no such file or directory'
            assert f"shadow mode: {trouble}; nothing is probed until the daemon is reloaded" in caplog.text
            away.rename(scene.ca.file)
            await shadow.follow()
            await scene.ask("later.test")
            assert (await probed(shadow, "later.test"))[0] == "returned"
    finally:
        away.exists() and away.rename(scene.ca.file)
