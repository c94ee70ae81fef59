"""What the control socket says of all domains: everything, or in brief."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from postfix_mtasts.cache.brief import Summary, Urgency, brief
from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.row import is_key, print_row
from postfix_mtasts.cache.store import Store, StoreError
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Entry, Unavailable

MOST = 100  # Domains with trouble, and others, that are listed in brief.
_ROWS_AT_ONCE = 10  # Rows that are sent before other tasks may run. The largest take two milliseconds each.
_AT_ONCE = 1000  # Entries that are looked at in brief before other tasks may run: some milliseconds.

JSON = dict[str, Any]


class Listing:
    """Lists what memory and the store have. `document` says all that is known of a domain (`daemon.known`)."""

    def __init__(
        self, memory: Memory, store: Store, dane: Dane, document: Callable[[PolicyDomain, Entry], JSON]
    ) -> None:
        self._memory = memory
        self._store = store
        self._dane = dane
        self._document = document

    async def everything(self) -> AsyncIterator[JSON]:
        """Each domain, for `list`. Raises StoreError."""
        at_hand = dict(self._memory.policies())
        numbers = itertools.count(1)
        unavailable = ((domain, entry) for domain, entry in self._memory.notes() if _is_unavailable(entry))
        for domain, entry in (*at_hand.items(), *unavailable):
            yield self._printed(domain, entry)
            if next(numbers) % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
        async for domain, row in self._store.rows():
            if domain not in at_hand:
                yield {"domain": domain.name, "row": row}
            if next(numbers) % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def in_brief(self) -> AsyncIterator[JSON]:
        """How many there are, and those that matter most, for `brief`. Raises StoreError."""
        now, summary = time.time(), Summary(MOST)
        failing, at_hand = self._dane.failing(), dict[str, tuple[PolicyDomain, Entry]]()
        items = iter((*self._memory.policies(), *self._memory.notes()))
        while some := list(itertools.islice(items, _AT_ONCE)):
            found = []
            for domain, entry in some:
                is_deferred = domain in failing and self._document(domain, entry)["deferred"] is not None
                if entry.cached or _is_unavailable(entry) or is_deferred:
                    at_hand[domain.name] = (domain, entry)
                    one = brief(domain.name, entry, now)
                    found.append(one._replace(urgency=Urgency.UNKNOWN) if is_deferred else one)
            summary.add(found)
            await asyncio.sleep(0)
        async for page in self._store.briefs(now):
            summary.add(one for one in page if one.domain not in at_hand)
        yield {"domains": summary.domains, "in_trouble": summary.in_trouble, "modes": dict(summary.modes)}
        for number, one in enumerate((*summary.troubled, *summary.others), 2):
            domain, known = at_hand.get(one.domain) or await self._stored(one.domain)
            if known:
                is_well = one.urgency == Urgency.NONE
                yield self._printed(domain, known) if is_well else self._document(domain, known)
            if number % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _printed(self, domain: PolicyDomain, entry: Entry) -> JSON:
        return {"domain": domain.name, "row": print_row(entry)} if entry.cached else self._document(domain, entry)

    async def _stored(self, name: str) -> tuple[PolicyDomain, Entry | None]:
        domain = PolicyDomain(name)
        try:
            return domain, await self._store.get(domain) if is_key(name) else None
        except StoreError:  # Its row cannot be understood, or it could be read a moment ago.
            return domain, None


def _is_unavailable(entry: Entry) -> bool:
    """Whether there may be a policy that could not be fetched."""
    return bool(entry.failed) or (entry.note is not None and isinstance(entry.note.answer, Unavailable))
