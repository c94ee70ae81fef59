"""What is known of a domain, facts with their times and never a reply, and the answers that may follow from it.

Times are seconds since the epoch.
"""

import functools
from dataclasses import dataclass

from postfix_mtasts.sts.observation import Failure
from postfix_mtasts.sts.policy import Policy


@dataclass(frozen=True, slots=True)
class Apply:
    """The domain has this policy; what that means for Postfix depends on its mode."""

    policy: Policy
    fetched: bool = False  # Just now; otherwise it was cached.


@dataclass(frozen=True, slots=True)
class NoPolicy:
    """The domain has none."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """What holds for mail to the domain could not be found out, and no policy is cached."""

    failure: Failure
    defer: bool = False  # Mail must wait: a policy may be cached after all, or DANE may have to be applied.


@dataclass(frozen=True, slots=True)
class YieldToDane:
    """These MX hosts of the domain are checked by their TLSA records, whatever its policy (RFC 8461, 2)."""

    hosts: tuple[str, ...]


Answer = Apply | NoPolicy | Unavailable | YieldToDane


@dataclass(frozen=True, slots=True)
class CachedPolicy:
    """The last valid policy that was fetched. It may have expired."""

    policy: Policy
    text: str  # The policy file as it was published.
    record_id: str
    fetched_at: float

    def expires_at(self) -> float:
        """The last moment at which it binds: its age "has not exceeded" max_age then (RFC 8461, 5.1)."""
        return self.fetched_at + self.policy.max_age

    def is_live(self, now: float) -> bool:
        """Whether it binds. With max_age 0 it does so only for the mail that it was fetched for."""
        return self.policy.max_age > 0 and now <= self.expires_at()


@dataclass(frozen=True, slots=True)
class FailedFetch:
    """The fetches for one record id that failed in a row: how many, and the last."""

    record_id: str
    count: int
    at: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Note:
    """What the last lookup said that led to no policy; it may be believed for `ttl` seconds from `Entry.checked_at`."""

    answer: NoPolicy | Unavailable
    ttl: float


@functools.lru_cache(maxsize=1000)
def noted(answer: NoPolicy | Unavailable, ttl: float) -> Note:
    """A note, the same one for all domains of which the same is known: mostly that they have no record."""
    return Note(answer, ttl)


@dataclass(frozen=True, slots=True)
class Entry:
    """All that is known of a domain; the defaults are those of one never heard of."""

    cached: CachedPolicy | None = None
    failed: tuple[FailedFetch, ...] = ()  # The latest first.
    note: Note | None = None  # Not stored: a restart asks again.
    checked_at: float = 0.0  # When DNS was last asked for the record.
    last_used: float = 0.0  # When Postfix last asked, to a day.
    unused_at: float | None = None  # When it was first seen that Postfix asks no more.
    unread: bool = False  # The store could not be read: it may have a policy.

    def live(self, now: float) -> CachedPolicy | None:
        """The policy that binds now."""
        return self.cached if self.cached and self.cached.is_live(now) else None
