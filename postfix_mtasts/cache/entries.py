"""What is known of domains: in memory, and behind it in the store."""

from postfix_mtasts.cache.memory import Bounded, Memory
from postfix_mtasts.cache.store import Store, StoreError
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Entry, lasting

_MAX_UNREAD = 1000  # Domains of which the store could not be read, and a fetch has failed.


class Entries:
    """Entries by their domains. What is in memory is written to the store again when that has begun anew."""

    def __init__(self, memory: Memory, store: Store) -> None:
        self._memory = memory
        self._store = store
        self._unread: Bounded[PolicyDomain, Entry] = Bounded(_MAX_UNREAD)
        store.on_anew = self._store_all

    def at_hand(self, domain: PolicyDomain) -> Entry | None:
        """What is in memory of a domain."""
        return self._memory.get(domain)

    async def get(self, domain: PolicyDomain) -> Entry:
        """What is known of a domain."""
        return self._memory.get(domain) or await self.stored(domain)

    async def stored(self, domain: PolicyDomain) -> Entry:
        """What the store has of a domain, at hand from then on."""
        try:
            stored = await self._store.get(domain)
        except StoreError:
            return self._unread.get(domain) or Entry(unread=True)
        self._unread.forget(domain)
        if entry := self._memory.get(domain):
            return entry  # Another task was faster, and may know more.
        if stored:
            self._memory.put(domain, stored)
        return stored or Entry()

    def keep(self, domain: PolicyDomain, before: Entry, after: Entry | None) -> None:
        """Keep what is known now of a domain, `after` what was known before; None: forget it."""
        if not after:
            self._memory.forget(domain)
            self._store.forget(domain, before)
        elif after.unread:
            self._unread.put(domain, after)  # Its failures count: a policy is fetched again after five minutes only.
        elif after is not before:
            self._memory.put(domain, after)
            if after.cached and lasting(after) != lasting(before):
                self._store.put(domain, after)

    def _store_all(self) -> None:
        for domain, entry in self._memory.policies():
            self._store.put(domain, entry)
