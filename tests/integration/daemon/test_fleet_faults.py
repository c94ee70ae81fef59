"""Two relays that are asked while the server that they share fails, in each way that one can: every answer is right.

Nobody waits for a server that has failed once, and no relay loses what it had.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_mtasts.cache.fleet_jobs import Put
from postfix_mtasts.cache.fleet_server import FleetServer
from postfix_mtasts.cache.shared import print_shared
from postfix_mtasts.config_fleet import FleetPlace
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Apply, CachedPolicy, Entry
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.integration.conftest import filled, small_disk
from tests.world.ca import Ca
from tests.world.dns import Behaviour, DnsServer
from tests.world.fleet import Shared
from tests.world.https import HttpsServer
from tests.world.relay import Relay, Relays
from tests.world.wire import Wire

# Python leaves a socket open if it is reset between connect() and the handshake, which a killed server may do.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
EACH = 4  # Domains that are asked for before a fault, as it begins, while it lasts, and afterwards.
DAY = 86400.0


def names(when: str) -> list[PolicyDomain]:
    return [PolicyDomain(f"{when}{number}.test") for number in range(EACH)]


BEFORE, BEGINS, LASTS, AFTER, MORE = map(names, ("before", "begins", "lasts", "after", "more"))
ALL = [*BEFORE, *BEGINS, *LASTS, *AFTER, *MORE]


def policy_of(domain: PolicyDomain, host: str = "mx") -> Policy:
    return Policy(Mode.ENFORCE, int(7 * DAY), (MxPattern(f"{host}.{domain}"),))


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Ca:
    return Ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def internet(ca: Ca) -> Iterator[tuple[DnsServer, HttpsServer]]:
    """All domains do everything right."""
    context = ca.issue(*(domain.policy_host() for domain in ALL)).server_context()
    with DnsServer() as dns, HttpsServer() as https:
        for domain in ALL:
            dns.add_txt(domain.record_name(), b"v=STSv1; id=1;")
            dns.add(domain.policy_host(), "A", "127.0.0.1")
            https.policy(domain.policy_host(), str(policy_of(domain)), context)
        yield dns, https


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory, ca: Ca) -> Iterator[Shared]:
    with Shared(tmp_path_factory.mktemp("fleet"), ca) as server:
        yield server


@pytest.fixture
def server(started: Shared) -> Shared:
    with started.admin() as admin:
        admin.flushall()
    return started


class Setting:
    """A fleet of two, and what it is asked for."""

    def __init__(
        self, place: FleetPlace, server: Shared, internet: tuple[DnsServer, HttpsServer], ca: Ca, folder: Path
    ) -> None:
        self.server = server
        self._dns, self._https = internet
        self._new: Callable[[str], Relay] = lambda name: Relay(
            place, self._dns, self._https, ca, folder / f"{name}.sqlite", time.time, patient=False
        )
        self.relays = Relays(map(self._new, "ab"))

    async def ask(self, domains: Sequence[PolicyDomain]) -> None:
        """Ask both relays for all of them at the same time. Their answers are right."""
        pairs = [(relay, domain) for domain in domains for relay in self.relays]
        answers = await asyncio.gather(*(relay.ask(domain) for relay, domain in pairs))
        told = [answer.policy if isinstance(answer, Apply) else answer for answer in answers]
        assert told == [policy_of(domain) for _, domain in pairs]

    def asked(self) -> list[int]:
        return [relay.fleet.status()["asked"] for relay in self.relays]

    async def joined(self) -> None:
        """Return when all relays take part again, as soon as they look."""
        for relay in self.relays:
            await relay.fleet.beat()
            while not relay.fleet.status()["works"]:
                await asyncio.sleep(0.05)
                await relay.fleet.beat()

    async def broken(self) -> None:
        """Return when no relay asks the server any more. Until then they are asked for more, and answer right."""
        more = iter(MORE)
        while any(relay.fleet.status()["works"] for relay in self.relays):
            if domain := next(more, None):
                await self.ask([domain])
            await asyncio.sleep(0.01)  # The thread may be later than what waits for it.

    async def join_anew(self) -> Relay:
        """Another relay, that knows nothing."""
        relay = self._new("c")
        await self.relays.add(relay)
        return relay

    async def shared_again(self, domains: Sequence[PolicyDomain]) -> None:
        """Return when the server has all that the relays know. Then another relay answers so while DNS is gone."""
        keys = [f"mtasts:d:{domain}" for domain in domains]
        with self.server.admin() as admin:
            while admin.exists(*keys) < len(keys):
                await self.joined()  # A busy machine may have been too late for one.
                await asyncio.sleep(0.01)
        self._dns.set_behaviour(".", Behaviour(rcode="SERVFAIL"))
        try:
            relay = await self.join_anew()
            for domain in domains:
                while not isinstance(answer := await relay.ask(domain), Apply):
                    relay.memory.forget(domain)  # This machine was too busy for the server.
                    await relay.fleet.beat()
                assert answer.policy == policy_of(domain)
        finally:
            self._dns.set_behaviour(".", Behaviour())

    async def nothing_was_lost(self, domains: Sequence[PolicyDomain]) -> None:
        """While DNS and all policy hosts are gone, and what the relays know is no longer fresh, they answer from it."""
        self._dns.set_behaviour(".", Behaviour(rcode="SERVFAIL"))
        try:
            await self.ask(domains)
            await self.relays.work()
            for relay in self.relays:
                relay.ahead += 3 * DAY
            await self.ask(domains)
            await self.relays.work()
        finally:
            self._dns.set_behaviour(".", Behaviour())


@asynccontextmanager
async def fleet(
    server: Shared, internet: tuple[DnsServer, HttpsServer], ca: Ca, folder: Path, place: FleetPlace | None = None
) -> AsyncIterator[Setting]:
    setting = Setting(place or server.place, server, internet, ca, folder)
    try:
        await setting.relays.start()
        yield setting
    finally:
        await setting.relays.aclose()


Fault = Callable[[Setting], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def killed(setting: Setting) -> AsyncIterator[None]:
    setting.server.kill()
    yield
    setting.server.start()


@asynccontextmanager
async def stopped(setting: Setting) -> AsyncIterator[None]:
    with setting.server.stopped():
        yield


@asynccontextmanager
async def full(setting: Setting) -> AsyncIterator[None]:
    with setting.server.admin() as admin:
        admin.config_set("maxmemory", "1")
    yield
    with setting.server.admin() as admin:
        admin.config_set("maxmemory", "0")


@asynccontextmanager
async def refused(setting: Setting) -> AsyncIterator[None]:
    """The password is another one, and connections are closed."""
    with setting.server.admin() as admin:
        admin.acl_setuser("mtasts", enabled=False)
        admin.client_kill_filter(user="mtasts")
        yield
        admin.acl_setuser("mtasts", enabled=True)


@pytest.mark.parametrize("fault", [killed, stopped, full, refused])
async def test_a_server_that_does_not_work_is_done_without(
    fault: Fault, server: Shared, internet: tuple[DnsServer, HttpsServer], ca: Ca, tmp_path: Path
) -> None:
    async with fleet(server, internet, ca, tmp_path) as setting:
        await setting.ask(BEFORE)
        under_way = asyncio.create_task(setting.ask(BEGINS))
        await asyncio.sleep(0)
        async with fault(setting):
            await under_way
            await setting.broken()
            asked = setting.asked()
            await setting.ask([*LASTS, *BEFORE])
            for relay in setting.relays:
                await relay.fleet.beat()  # As after the thirty seconds for which the breaker is open.
            await setting.ask(AFTER[:2])
            assert setting.asked() == asked  # Nobody has waited for it again.
        await setting.joined()
        await setting.ask(AFTER)
        assert setting.asked() > asked
        await setting.shared_again([*BEFORE, *BEGINS, *LASTS, *AFTER])
        await setting.nothing_was_lost([*BEFORE, *BEGINS, *LASTS, *AFTER])


async def test_a_server_whose_disk_is_full_is_done_without(
    namespace: None, internet: tuple[DnsServer, HttpsServer], ca: Ca, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk, Shared(disk / "server", ca, "--appendonly", "yes") as server:
        async with fleet(server, internet, ca, tmp_path) as setting:
            await setting.ask(BEFORE)
            with filled(disk):
                for relay in setting.relays:
                    while "MISCONF" not in str(relay.fleet.status()["trouble"]):
                        await relay.fleet.beat()  # What it writes has room for some time.
                asked = setting.asked()
                await setting.ask([*LASTS, *BEFORE])
                assert setting.asked() == asked
            await setting.joined()
            await setting.ask(AFTER)
            await setting.nothing_was_lost([*BEFORE, *LASTS, *AFTER])


@pytest.mark.parametrize("closes", [True, False])
async def test_a_network_that_is_cut_in_the_middle_of_a_reply(
    closes: bool, server: Shared, internet: tuple[DnsServer, HttpsServer], ca: Ca, tmp_path: Path
) -> None:
    with Wire(server.port, closes=closes) as wire:
        place = replace(server.place, server=("127.0.0.1", wire.port))
        async with fleet(server, internet, ca, tmp_path, place) as setting:
            await setting.ask(BEFORE)
            wire.left = 50
            await setting.ask(BEGINS)
            await setting.broken()
            asked = setting.asked()
            await setting.ask([*LASTS, *BEFORE])
            assert setting.asked() == asked
            wire.left = None
            await setting.joined()
            await setting.ask(AFTER)
            await setting.shared_again([*BEFORE, *BEGINS, *LASTS, *AFTER])
            await setting.nothing_was_lost([*BEFORE, *BEGINS, *LASTS, *AFTER])


def emptied(setting: Setting) -> None:
    with setting.server.admin() as admin:
        admin.flushall()


def of_another_domain(setting: Setting) -> None:
    with setting.server.admin() as admin:
        value = admin.get(f"mtasts:d:{BEFORE[0]}")
        assert value
        for domain in LASTS:
            admin.set(f"mtasts:d:{domain}", value)


def garbage(setting: Setting) -> None:
    with setting.server.admin() as admin:
        admin.lpush(f"mtasts:d:{LASTS[0]}", "a list")
        admin.set(f"mtasts:d:{LASTS[1]}", b"1 1\n" + b"[" * 100_000)
        admin.set(f"mtasts:d:{LASTS[2]}", b"\xff" * 2**21)
        admin.set(f"mtasts:l:{LASTS[3]}", b"nobody")
        for key in ("relays", "forgotten", "since"):
            admin.set(f"mtasts:{key}", b"\0")


def an_hour_ahead(setting: Setting) -> None:
    setting.relays[0].ahead = 3600.0


def an_hour_behind(setting: Setting) -> None:
    setting.relays[0].ahead = -3600.0


@pytest.mark.parametrize("fault", [emptied, of_another_domain, garbage, an_hour_ahead, an_hour_behind])
async def test_what_is_wrong_on_the_server_or_at_one_relay_is_not_believed(
    fault: Callable[[Setting], None], server: Shared, internet: tuple[DnsServer, HttpsServer], ca: Ca, tmp_path: Path
) -> None:
    async with fleet(server, internet, ca, tmp_path) as setting:
        await setting.ask(BEFORE)
        await setting.relays.rest()
        under_way = asyncio.create_task(setting.ask(BEGINS))
        fault(setting)
        await under_way
        for domain in LASTS:  # The one with the wrong clock is asked first, and shares what it finds.
            await setting.relays[0].ask(domain)
            await setting.relays.work()
            await setting.ask([domain])
        right = setting.relays[1]
        for domain in [*BEFORE, *BEGINS, *LASTS]:
            entry = await right.lookup.entry(domain)
            assert entry.cached
            assert entry.cached.fetched_at <= time.time()
            assert entry.checked_at <= time.time()
        await setting.ask([*BEFORE, *AFTER])
        if fault is emptied:
            for relay in setting.relays:
                await relay.fleet.beat()
            await setting.shared_again([*BEFORE, *BEGINS, *LASTS, *AFTER])
        await setting.nothing_was_lost([*BEFORE, *BEGINS, *LASTS, *AFTER])


def shared_long_ago(server: Shared, domain: PolicyDomain, days: float, max_age_days: float) -> None:
    """As a relay has shared it so many days ago: another policy than the one of today."""
    fetched_at = time.time() - days * DAY
    policy = replace(policy_of(domain, "old"), max_age=int(max_age_days * DAY))
    entry = Entry(CachedPolicy(policy, str(policy), "0", fetched_at), checked_at=fetched_at)
    value = print_shared(domain, entry, fetched_at)
    assert value
    writer = FleetServer(server.place)
    writer.do([Put(domain.name, value)])
    writer.close()


async def test_an_old_dump_that_is_restored_revives_nothing(
    server: Shared, internet: tuple[DnsServer, HttpsServer], ca: Ca, tmp_path: Path
) -> None:
    for domain, max_age_days in zip(LASTS, (30, 7, 30, 7), strict=True):
        shared_long_ago(server, domain, days=8, max_age_days=max_age_days)
    with server.admin() as admin:
        admin.save()
        admin.flushall()
    begun = time.time()
    dump = server.folder / "dump.rdb"
    shutil.move(dump, server.folder / "last-week.rdb")
    async with fleet(server, internet, ca, tmp_path) as setting:
        await setting.ask([*BEFORE, *LASTS[:2]])
        await setting.relays.work()
        server.kill()
        shutil.move(server.folder / "last-week.rdb", dump)
        server.start()
        dump.unlink()
        await setting.joined()
        with server.admin() as admin:
            assert admin.exists(*(f"mtasts:d:{domain}" for domain in LASTS)) == len(LASTS)
        await setting.join_anew()
        await setting.ask([*BEFORE, *LASTS, *AFTER])
        await setting.relays.work()
        for relay in setting.relays:
            for domain in LASTS:
                cached = (await relay.lookup.entry(domain)).cached
                assert cached
                assert cached.policy == policy_of(domain)
                assert cached.fetched_at > begun
        await setting.nothing_was_lost([*BEFORE, *LASTS, *AFTER])


async def test_what_an_old_dump_does_not_have_is_shared_again(
    server: Shared, internet: tuple[DnsServer, HttpsServer], ca: Ca, tmp_path: Path
) -> None:
    async with fleet(server, internet, ca, tmp_path) as setting:
        await setting.ask(BEFORE)
        await setting.relays.work()
        with server.admin() as admin:
            admin.save()
            old = server.folder / "old.rdb"
            shutil.move(server.folder / "dump.rdb", old)
            await setting.ask(LASTS)
            await setting.relays.work()
            while admin.exists(*(f"mtasts:d:{domain}" for domain in LASTS)) < len(LASTS):
                await setting.joined()  # A busy machine may have been too late for one.
                await asyncio.sleep(0.01)
        await setting.joined()
        for relay in setting.relays:
            relay.ahead = 50.0  # All of that was not just now: what is on its way when trouble begins is shared again.
        server.kill()
        shutil.move(old, server.folder / "dump.rdb")
        server.start()
        (server.folder / "dump.rdb").unlink()
        await setting.shared_again([*BEFORE, *LASTS])
