"""Renews policies before they expire, and forgets those that Postfix no longer asks for.

Each minute it works on a share of the domains that are due, four at a time. So when many domains are due at once, after
a start or a long outage, the work is spread over hours. Whoever has many domains due, such as one host that hangs and
gives all its names a short max_age, takes turns with the owners of others, and holds up each place for seconds only.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence

from postfix_mtasts.cache.store import Store
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.sts.domain import PolicyDomain

TICK = 60.0  # Seconds between two rounds.
SHARE = 1 / 180  # Of the domains that are due, for each round. So all of them are done in three hours.
AT_LEAST = 10  # Domains for each round.
CONCURRENCY = 4  # Domains at once.
PATIENCE = 15.0  # Seconds for a domain; the fetch goes on behind.
# Labels at the end of domains by which they take turns: all of co.uk as if it were one owner's, and its owners among
# themselves; so up to those of city.kawasaki.jp.
_LABELS = (2, 3, 4)


async def run(store: Store, lookup: Lookup, clock: Callable[[], float]) -> None:
    """Do a round every minute, forever. `clock` returns seconds since the epoch."""
    while True:
        await asyncio.sleep(TICK)
        await tick(store, lookup, clock())


async def tick(store: Store, lookup: Lookup, now: float) -> None:
    """Do one round, at the time `now` in seconds since the epoch."""
    due = await asyncio.to_thread(by_turns, await store.due(now))  # Of many, it takes a tenth of a second.
    some = iter(due[: max(AT_LEAST, round(len(due) * SHARE))])

    async def work() -> None:
        for domain in some:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await lookup.renew(domain)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


def by_turns(domains: Sequence[PolicyDomain], labels: Sequence[int] = _LABELS) -> Sequence[PolicyDomain]:
    """The same domains: the first of each owner, in their order, then the second of each, and so on."""
    if not labels or len(domains) < 2:
        return domains
    owners: dict[str, list[PolicyDomain]] = {}
    for domain in domains:
        owners.setdefault(domain.end(labels[0]), []).append(domain)
    ordered = (by_turns(some, labels[1:]) for some in owners.values())
    return [domain for turn in itertools.zip_longest(*ordered) for domain in turn if domain]
