"""Entries in memory, bounded in number and in octets. What is dropped here is in the store, or was only a "no policy".

Policies and "no policy" notes have separate bounds, so that no flood of domains without a policy can push out a policy.
When an entry is dropped, so are the replies that were made of it. `cache.memory` is the sum of the shares below: for
each of them the owner of a domain chooses how much he writes.
"""

import math
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from postfix_mtasts.cache.ready import Ready
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Entry, NoPolicy

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")

# Shares of `cache.memory`. `WAITING` is for what is not written to the database yet.
POLICIES, WAITING, NOTES, DANE, READY = 1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8
# What Python takes for an object and its place in a collection, besides the texts. A test compares with tracemalloc.
_ENTRY, _POLICY, _MX, _FAILED, _NOTE = 400, 250, 64, 350, 50


def octets(entry: Entry) -> int:
    """The memory that an entry takes, nearly."""
    total = _ENTRY
    if cached := entry.cached:
        total += _POLICY + sys.getsizeof(cached.text) + sys.getsizeof(cached.record_id)
        total += sum(_MX + sys.getsizeof(pattern.text) for pattern in cached.policy.mx)
    for failed in entry.failed:
        total += _FAILED + sys.getsizeof(failed.failure.reason) + sys.getsizeof(failed.record_id)
    if entry.note:
        answer = entry.note.answer
        total += _NOTE + sys.getsizeof(answer.reason if isinstance(answer, NoPolicy) else answer.failure.reason)
    return total


class Bounded(Generic[_K, _V]):
    """At most `limit` values by their keys, and at most so many `octets` of them, if `weigh` says how many one has.

    The least recently used one is dropped, and `on_drop` is told its key.
    """

    def __init__(
        self,
        limit: int,
        octets: float = math.inf,
        weigh: Callable[[_V], int] = lambda value: 0,
        on_drop: Callable[[_K], None] = lambda key: None,
    ) -> None:
        self._limit = limit
        self._most = octets
        self._weigh = weigh
        self._on_drop = on_drop
        self._values: OrderedDict[_K, _V] = OrderedDict()
        self.octets = 0

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
        self.forget(key)
        self._values[key] = value
        self.octets += self._weigh(value)
        while len(self._values) > self._limit or self.octets > self._most:
            dropped, value = self._values.popitem(last=False)
            self.octets -= self._weigh(value)
            self._on_drop(dropped)

    def forget(self, key: _K) -> None:
        """Drop what a key has."""
        if (value := self._values.pop(key, None)) is not None:
            self.octets -= self._weigh(value)

    def items(self) -> list[tuple[_K, _V]]:
        """All keys with their values."""
        return list(self._values.items())


class Memory:
    """At most `policies` entries with a policy and `notes` entries without, within their shares of so many octets."""

    def __init__(
        self, *, policies: int, notes: int, limit: float = math.inf, clock: Callable[[], float] = time.time
    ) -> None:
        self.ready = Ready(clock, limit * READY)
        self._policies: Bounded[PolicyDomain, Entry] = Bounded(policies, limit * POLICIES, octets, self.ready.drop)
        self._notes: Bounded[PolicyDomain, Entry] = Bounded(notes, limit * NOTES, octets, self.ready.drop)

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

    def notes(self) -> list[tuple[PolicyDomain, Entry]]:
        """All entries without a policy."""
        return self._notes.items()
