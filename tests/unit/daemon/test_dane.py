"""What is known of next hops, by their domains. Each is a host of its own, whose address cannot be looked up."""

import asyncio
import time
from collections import Counter

from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.dns.resolver import Pinned, RRset
from postfix_mtasts.sts.domain import NextHop, PolicyDomain


def hop(number: int, port: str = "25") -> NextHop:
    return NextHop(PolicyDomain(f"host{number}.example"), mx=False, port=port)


async def known(*hops: NextHop, limit: int) -> Dane:
    dane = Dane(Pinned(), limit)
    for one in hops:
        await dane.of(one)
    return dane


def hops_of(dane: Dane, number: int) -> list[NextHop]:
    return [one for one, _ in dane.known(hop(number).domain)]


async def test_the_next_hops_of_a_domain_are_known_until_others_push_them_out() -> None:
    dane = await known(hop(0), hop(1), hop(1, "587"), limit=3)
    assert hops_of(dane, 1) == [hop(1), hop(1, "587")]
    await dane.of(hop(2))
    assert (hops_of(dane, 0), hops_of(dane, 1)) == ([], [hop(1), hop(1, "587")])
    for number in (3, 4):
        await dane.of(hop(number))
    assert (hops_of(dane, 2), hops_of(dane, 1), hops_of(dane, 4)) == ([], [hop(1, "587")], [hop(4)])


async def test_however_many_others_there_are_costs_nothing() -> None:
    """`warm` and `cache list` ask for each domain, and no query is answered meanwhile."""
    count = 2000
    dane = await known(*map(hop, range(count)), limit=count)
    begun = time.process_time()
    found = [hops_of(dane, number) for number in range(count)]
    assert time.process_time() - begun < 0.5
    assert found == [[hop(number)] for number in range(count)]


class Signed(Pinned):
    """Each domain has twenty MX hosts, and counts in which round of the event loop they are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.round = 0
        self.begun: Counter[int] = Counter()

    async def mx_hosts(self, name: str) -> RRset[str]:
        return RRset(tuple(f"mx{number}.{name}" for number in range(20)), name, secure=True, ttl=300.0)

    async def host(self, name: str) -> RRset[str]:
        self.begun[self.round] += 1
        return RRset((), name, secure=True, ttl=300.0)

    async def count_rounds(self) -> None:
        while True:
            self.round += 1
            await asyncio.sleep(0)


async def test_hosts_of_many_domains_take_turns() -> None:
    """Each costs a quarter of a millisecond, and the owner of a domain chooses how many he lists."""
    resolver = Signed()
    counting = asyncio.create_task(resolver.count_rounds())
    dane = Dane(resolver, 100)
    await asyncio.gather(*(dane.of(NextHop(PolicyDomain(f"d{number}.example"))) for number in range(20)))
    counting.cancel()
    assert resolver.begun.total() == 400
    assert max(resolver.begun.values()) == 1
