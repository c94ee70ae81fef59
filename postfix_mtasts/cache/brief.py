"""All that is known of domains, in brief: how many policies there are of each mode, and which domains come first."""

import heapq
from collections import Counter
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from postfix_mtasts.sts.entry import Entry
from postfix_mtasts.sts.schedule import renewal_fails

EXPIRED = "expired"


class Urgency(IntEnum):
    """How much a domain matters to whoever reads the list. `statements.BRIEF` has the same rule."""

    UNKNOWN = 0  # It may have a policy, and none could be fetched.
    NOT_RENEWED = 1  # It has a policy that could not be renewed.
    NONE = 2


class Brief(NamedTuple):
    """A domain in a list, which sorts as it matters. `mode` is that of its policy, `expired`, or empty without one."""

    urgency: int
    domain: str
    mode: str


def brief(domain: str, entry: Entry, now: float) -> Brief:
    """What is known of a domain, in brief."""
    if live := entry.live(now):
        urgency = Urgency.NOT_RENEWED if renewal_fails(entry) else Urgency.NONE
        return Brief(urgency, domain, live.policy.mode.value)
    is_unknown = entry.failed or not entry.cached
    return Brief(Urgency.UNKNOWN if is_unknown else Urgency.NONE, domain, EXPIRED if entry.cached else "")


class Summary:
    """Of many domains: how many there are, in trouble and in each mode; and the first `most` in trouble, and others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.domains = self.in_trouble = 0
        self.modes: Counter[str] = Counter()
        self.troubled: list[Brief] = []
        self.others: list[Brief] = []

    def add(self, some: Iterable[Brief]) -> None:
        """Count some more, which must be others."""
        some = list(some)
        self.domains += len(some)
        self.modes.update(one.mode for one in some if one.mode)
        troubled = [one for one in some if one.urgency < Urgency.NONE]
        self.in_trouble += len(troubled)
        self.troubled = heapq.nsmallest(self._most, self.troubled + troubled)
        self.others = heapq.nsmallest(self._most, self.others + [one for one in some if one.urgency == Urgency.NONE])
