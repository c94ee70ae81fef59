"""What is known about a domain, and the answers that can follow from it.

An `Entry` has facts and when they were observed. It never has a reply for Postfix. Times are seconds since the epoch.
"""

import functools
from dataclasses import dataclass, replace

from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.observation import Failure
from postfix_mtasts.sts.policy import Policy


@dataclass(frozen=True, slots=True)
class Apply:
    """The domain has this policy. What Postfix is told depends on its mode."""

    policy: Policy
    fetched: bool = False  # The policy was fetched just now. If false, it comes from the cache.


@dataclass(frozen=True, slots=True)
class NoPolicy:
    """The domain has no policy."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The discovery failed, and no policy is cached."""

    failure: Failure
    defer: bool = False  # Mail is deferred, because there may be a cached policy or TLSA records that we cannot read.

    @property
    def reason(self) -> str:
        """Why there is no policy, as that of `NoPolicy`."""
        return str(self.failure)


@dataclass(frozen=True, slots=True)
class YieldToDane:
    """These MX hosts have TLSA records, which take precedence over the domain's policy (RFC 8461, 2)."""

    hosts: tuple[str, ...]
    only: bool = False  # Mail must not go to the other MX hosts: the policy is enforced, and they have no such records.


@dataclass(frozen=True, slots=True)
class Exempt:
    """An administrator wants the domain's policy not to count, whatever is known of it."""

    exception: PolicyException


Answer = Apply | NoPolicy | Unavailable | YieldToDane | Exempt


@dataclass(frozen=True, slots=True)
class CachedPolicy:
    """The last valid policy that was fetched. It may have expired."""

    policy: Policy
    text: str  # The policy file, as published.
    record_id: str
    fetched_at: float

    def expires_at(self) -> float:
        """The last moment at which the policy applies: its age "has not exceeded" max_age (RFC 8461, 5.1)."""
        return self.fetched_at + self.policy.max_age

    def is_live(self, now: float) -> bool:
        """Whether the policy applies now. With max_age 0 it applies only to the mail that it was fetched for."""
        return self.policy.max_age > 0 and now <= self.expires_at()


@dataclass(frozen=True, slots=True)
class FailedFetch:
    """Fetches that failed one after the other for the same record id: their number, and the last failure."""

    record_id: str
    count: int
    at: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Note:
    """The result of the last lookup, if it led to no policy. It is valid for `ttl` seconds from `Entry.checked_at`."""

    answer: NoPolicy | Unavailable
    ttl: float


@functools.lru_cache(maxsize=1000)
def noted(answer: NoPolicy | Unavailable, ttl: float) -> Note:
    """Return a note. Equal notes are one object, to save memory: most domains have no record."""
    return Note(answer, ttl)


@dataclass(frozen=True, slots=True)
class Entry:
    """All that is known about a domain. An entry with the defaults is that of an unknown domain."""

    cached: CachedPolicy | None = None
    failed: tuple[FailedFetch, ...] = ()  # The latest first.
    note: Note | None = None  # Not stored. After a restart the record is looked up again.
    checked_at: float = 0.0  # When the record was last looked up.
    last_used: float = 0.0  # When Postfix last asked for the domain, accurate to a day.
    unused_at: float | None = None  # When the domain was first found unused.
    expiry_told_at: float | None = None  # When the log was last told that the policy has expired. Not stored.
    unread: bool = False  # The database could not be read, so it may have a policy of the domain.

    def live(self, now: float) -> CachedPolicy | None:
        """The cached policy, if it applies now."""
        return self.cached if self.cached and self.cached.is_live(now) else None


def lasting(entry: Entry) -> Entry:
    """The part of an entry whose change is worth a write. The rest is written with it, or looked up after a restart."""
    return replace(entry, note=None, checked_at=0.0, expiry_told_at=None)
