"""What a round of the refresher does to a real database, with the policy hosts of all domains gone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.store import Store
from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.daemon import refresh
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.exceptions import Exceptions
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import tls_context
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import CachedPolicy, Entry
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from postfix_mtasts.sts.schedule import FORGET_GRACE, UNUSED_AFTER
from tests.world.ca import Ca
from tests.world.dns import Behaviour, DnsServer

NOW = 1_700_000_000.0
DAY = 86400.0
P1 = Policy(Mode.ENFORCE, 604800, (MxPattern("mail.example.com"),))
DUE = Entry(CachedPolicy(P1, str(P1), "A", NOW - 2 * DAY), checked_at=NOW, last_used=NOW - DAY)
UNUSED = Entry(CachedPolicy(P1, str(P1), "A", NOW - 8 * DAY), checked_at=NOW, last_used=NOW - UNUSED_AFTER)


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(str(tmp_path / "policies.sqlite"), lambda: NOW)
    yield opened
    await opened.aclose()


@pytest.fixture
def lookup(store: Store, dns: DnsServer, tmp_path: Path) -> Lookup:
    resolver = Resolver([InetEndpoint(dns.address, dns.port)], timeout=30)
    return Lookup(
        store,
        Memory(policies=1000, notes=1000),
        resolver,
        Fetcher(resolver, tls_context(str(Ca(tmp_path).file)), timeout=30),
        Dane(resolver, 1000, lambda: NOW),
        ReplyRules(Style.PLAIN),
        Exceptions(tmp_path / "exceptions.json"),
        answer_within=30,
        clock=lambda: NOW,
    )


def domain(number: int) -> PolicyDomain:
    return PolicyDomain(f"d{number:05}.test")


def fetched_from(dns: DnsServer) -> list[str]:
    return sorted({query.name for query in dns.queries})


async def test_ten_thousand_do_not_stampede_and_the_first_to_expire_goes_first(
    store: Store, lookup: Lookup, dns: DnsServer
) -> None:
    for number in range(10_000):
        cached = CachedPolicy(P1, str(P1), "A", NOW - 3 * DAY + number)
        store.put(domain(number), replace(DUE, cached=cached))
    assert await store.flush()
    await refresh.tick(store, lookup, NOW)
    assert fetched_from(dns) == [f"mta-sts.{domain(number)}" for number in range(56)]
    await store.flush()
    assert (await store.due(NOW))[:1] == [domain(56)]


async def test_a_few_are_done_at_once(store: Store, lookup: Lookup, dns: DnsServer) -> None:
    for number in range(20):
        store.put(domain(number), DUE)
    await store.flush()
    await refresh.tick(store, lookup, NOW)
    await store.flush()
    await refresh.tick(store, lookup, NOW)
    assert fetched_from(dns) == [f"mta-sts.{domain(number)}" for number in range(20)]


@pytest.mark.parametrize(
    ("entry", "is_due"),
    [
        pytest.param(DUE, True, id="older than a day"),
        pytest.param(replace(DUE, cached=CachedPolicy(P1, str(P1), "A", NOW - DAY / 2)), False, id="younger"),
        pytest.param(replace(DUE, cached=CachedPolicy(P1, str(P1), "A", NOW - 8 * DAY)), False, id="expired"),
        pytest.param(replace(DUE, cached=CachedPolicy(P1, str(P1), "A", NOW + 60)), True, id="fetched tomorrow"),
        pytest.param(replace(DUE, last_used=NOW - UNUSED_AFTER - 1), False, id="unused: it lives on"),
        pytest.param(UNUSED, True, id="unused and expired"),
        pytest.param(replace(UNUSED, unused_at=NOW - DAY / 2), False, id="seen unused half a day ago"),
        pytest.param(replace(UNUSED, unused_at=NOW - FORGET_GRACE), True, id="to be forgotten"),
    ],
)
async def test_which_are_due(store: Store, entry: Entry, is_due: bool) -> None:
    store.put(domain(1), entry)
    await store.flush()
    assert await store.due(NOW) == ([domain(1)] if is_due else [])


async def test_who_is_not_used_is_forgotten(store: Store, lookup: Lookup, dns: DnsServer) -> None:
    store.put(domain(1), replace(UNUSED, unused_at=NOW - FORGET_GRACE))
    await store.flush()
    await refresh.tick(store, lookup, NOW)
    await store.flush()
    assert (await store.get(domain(1)), fetched_from(dns)) == (None, [])


async def test_who_hangs_holds_up_a_place_for_seconds_only(
    store: Store, lookup: Lookup, dns: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lookups themselves take 30 seconds."""
    monkeypatch.setattr("postfix_mtasts.daemon.refresh.PATIENCE", 0.1)
    for number in range(9):
        dns.set_behaviour(f"mta-sts.evil{number}.test", Behaviour(silent=True))
        expires_first = CachedPolicy(P1, str(P1), "A", NOW - 3 * DAY + number)
        store.put(PolicyDomain(f"evil{number}.test"), replace(DUE, cached=expires_first))
    store.put(PolicyDomain("good.test"), DUE)
    assert await store.flush()
    async with asyncio.timeout(25):
        await refresh.tick(store, lookup, NOW)
    assert "mta-sts.good.test" in fetched_from(dns)
    await lookup.aclose()


@pytest.mark.parametrize(
    ("due", "turns"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param(["a.test", "b.test"], ["a.test", "b.test"], id="two owners"),
        pytest.param(
            ["1.bad.test", "2.bad.test", "bad.test", "3.bad.test", "a.test", "x.b.test"],
            ["1.bad.test", "a.test", "x.b.test", "2.bad.test", "bad.test", "3.bad.test"],
            id="one that has many takes turns",
        ),
        pytest.param(
            ["1.bad.co.test", "2.bad.co.test", "3.bad.co.test", "other.co.test", "a.test", "x.last.co.test"],
            ["1.bad.co.test", "a.test", "other.co.test", "x.last.co.test", "2.bad.co.test", "3.bad.co.test"],
            id="many owners below one name take turns too",
        ),
        pytest.param(
            ["a.b.1.bad.c.co.test", "a.b.2.bad.c.co.test", "3.bad.c.co.test", "good.c.co.test"],
            ["a.b.1.bad.c.co.test", "good.c.co.test", "a.b.2.bad.c.co.test", "3.bad.c.co.test"],
            id="by four labels at most",
        ),
    ],
)
def test_owners_take_turns(due: list[str], turns: list[str]) -> None:
    assert refresh.by_turns([PolicyDomain(name) for name in due]) == [PolicyDomain(name) for name in turns]
