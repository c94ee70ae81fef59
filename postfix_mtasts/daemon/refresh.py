"""Renews policies before they expire, and forgets those that Postfix no longer asks for.

Each minute it works on a share of the domains that are due, four at a time. So when many domains are due at once, after
a start or a long outage, the work is spread over hours.
"""

import asyncio
from collections.abc import Callable

from postfix_mtasts.cache.store import Store
from postfix_mtasts.daemon.lookup import Lookup

TICK = 60.0  # Seconds.
SHARE = 1 / 180  # Of the domains that are due, for each round. So all of them are done in three hours.
AT_LEAST = 10  # Domains for each round.
CONCURRENCY = 4


async def run(store: Store, lookup: Lookup, clock: Callable[[], float]) -> None:
    """Do a round every minute, forever. `clock` returns seconds since the epoch."""
    while True:
        await asyncio.sleep(TICK)
        await tick(store, lookup, clock())


async def tick(store: Store, lookup: Lookup, now: float) -> None:
    """Do one round, at the time `now` in seconds since the epoch."""
    due = await store.due(now)
    some = iter(due[: max(AT_LEAST, round(len(due) * SHARE))])

    async def work() -> None:
        for domain in some:
            await lookup.renew(domain)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
