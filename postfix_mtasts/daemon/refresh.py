"""Renews policies before they expire, and forgets those that nobody uses.

Each minute it takes some of the domains that are due, a few at a time. After a start with many of them, or a long
outage, that spreads them over hours.
"""

import asyncio
from collections.abc import Callable

from postfix_mtasts.cache.store import Store
from postfix_mtasts.daemon.lookup import Lookup

TICK = 60.0  # Seconds.
SHARE = 1 / 180  # Of the domains that are due, in one tick: all that wait now are done in three hours.
AT_LEAST = 10  # Domains in one tick.
CONCURRENCY = 4


async def run(store: Store, lookup: Lookup, clock: Callable[[], float]) -> None:
    """Renew and forget, for ever."""
    while True:
        await asyncio.sleep(TICK)
        await tick(store, lookup, clock())


async def tick(store: Store, lookup: Lookup, now: float) -> None:
    """One round, at the time `now`."""
    due = await store.due(now)
    some = iter(due[: max(AT_LEAST, round(len(due) * SHARE))])

    async def work() -> None:
        for domain in some:
            await lookup.renew(domain)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
