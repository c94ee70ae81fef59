"""Entries in memory, in a bounded number. What is dropped here is still in the store, or was only a "no policy".

Policies and "no policy" notes have separate bounds, so that no flood of domains without a policy can push out a policy.
When an entry is dropped, so are the replies that were made of it.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from postfix_mtasts.cache.ready import Ready
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Entry

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Bounded(Generic[_K, _V]):
    """At most `limit` values by their keys. The least recently used one is dropped, and `on_drop` is told its key."""

    def __init__(self, limit: int, on_drop: Callable[[_K], None] = lambda key: None) -> None:
        self._limit = limit
        self._on_drop = on_drop
        self._values: OrderedDict[_K, _V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: _K) -> _V | None:
        """The value of a key; it counts as used."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: _K, value: _V) -> None:
        """Note a value."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            dropped, _ = self._values.popitem(last=False)
            self._on_drop(dropped)

    def forget(self, key: _K) -> None:
        """Drop what a key has."""
        self._values.pop(key, None)

    def items(self) -> list[tuple[_K, _V]]:
        """All keys with their values."""
        return list(self._values.items())


class Memory:
    """At most `policies` entries with a policy and `notes` entries without. The least recently used one is dropped."""

    def __init__(self, *, policies: int, notes: int, clock: Callable[[], float] = time.time) -> None:
        self.ready = Ready(clock)
        self._policies: Bounded[PolicyDomain, Entry] = Bounded(policies, self.ready.drop)
        self._notes: Bounded[PolicyDomain, Entry] = Bounded(notes, self.ready.drop)

    def get(self, domain: PolicyDomain) -> Entry | None:
        """What is known of a domain; it counts as used."""
        return self._policies.get(domain) or self._notes.get(domain)

    def put(self, domain: PolicyDomain, entry: Entry) -> None:
        """Note what is known of a domain."""
        self.forget(domain)
        (self._policies if entry.cached else self._notes).put(domain, entry)

    def forget(self, domain: PolicyDomain) -> None:
        """Drop what is known of a domain."""
        self.ready.drop(domain)
        self._policies.forget(domain)
        self._notes.forget(domain)

    def count_notes(self) -> int:
        """How many entries without a policy there are."""
        return len(self._notes)

    def policies(self) -> list[tuple[PolicyDomain, Entry]]:
        """All entries with a policy."""
        return self._policies.items()
