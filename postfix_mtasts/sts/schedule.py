"""When something is to happen to a cached policy: back-off, refresh, expiry, forgetting.

`decide` says what happens then. Spans are in seconds, times in seconds since the epoch.
"""

import zlib

from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.observation import DaneFailed, DaneObservation

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

CHECK_AFTER = 5 * _MINUTE  # How old a lookup of the record may be: Postfix's minimal_backoff_time.
NOTE_AT_LEAST, NOTE_AT_MOST = _MINUTE, _HOUR  # How long "no policy" is believed, whatever TTL DNS gives.
BACK_OFF = (5 * _MINUTE, 15 * _MINUTE, _HOUR, 6 * _HOUR)  # "five minutes or longer" (RFC 8461, 3.3).
BACK_OFF_JITTER = 0.2  # From the second one on, a wait is lengthened by up to this fraction.
MAX_FAILED = 8  # Record ids of a domain whose failures are remembered.
REFRESH_AFTER = _DAY  # Or after half of max_age, whichever comes first (RFC 8461, 10.2).
REFRESH_JITTER = 0.1  # An interval is shortened by up to this fraction.
SHORTEST_REFRESH = 5 * _MINUTE  # A policy that would be due more often is not refreshed, and expires.
URGENT = 0.25  # With less of max_age left, a policy that cannot be renewed is about to be lost.
USE_COUNTS_FOR = _DAY  # The time of the last use is accurate to a day, so that a query seldom costs a write.
TELL_AGAIN_AFTER = _DAY  # Seconds before the log repeats that a policy has expired.
UNUSED_AFTER = 30 * _DAY  # Without a query from Postfix; then a policy is no longer refreshed.
FORGET_GRACE = _DAY  # A domain must look unused and expired for so long, in case the clock has jumped.


def dane_ttl(dane: DaneObservation) -> float:
    """For how many seconds what was seen of a next hop's TLSA records may be believed."""
    return NOTE_AT_LEAST if isinstance(dane, DaneFailed) else min(max(dane.ttl, NOTE_AT_LEAST), NOTE_AT_MOST)


def due_spans(entry: Entry, cached: CachedPolicy) -> tuple[tuple[float | None, float | None], ...]:
    """From when and until when `Due` has something to do. None stands for the beginning and the end of time."""
    return (
        (refresh_at(entry, cached), min(cached.expires_at(), entry.last_used + UNUSED_AFTER)),
        (forget_at(entry), None),
        (None, cached.fetched_at),  # The clock was ahead when the policy was fetched.
    )


def renewal_fails(entry: Entry, *, no_record: bool = False) -> bool:
    """Whether the policy of an entry could not be renewed. For mode none that is no failure (RFC 8461, 10.2).

    `no_record`: the last lookup found none, or failed.
    """
    is_wanted = entry.cached is not None and entry.cached.policy.mode.checks_hosts
    return is_wanted and (no_record or bool(entry.failed))


def urgent_at(cached: CachedPolicy) -> float:
    """From when on a policy that cannot be renewed is about to be lost."""
    return cached.expires_at() - URGENT * cached.policy.max_age


def outranked_within(cached: CachedPolicy, now: float) -> tuple[float, float]:
    """A stored row stays if another daemon fetched it within this interval: after ours, and not in the future."""
    return cached.fetched_at, now


def refresh_at(entry: Entry, cached: CachedPolicy) -> float:
    """When `Due` will have the policy of an entry fetched, if it still lives then and the domain is still in use."""
    due = cached.fetched_at + refresh_interval(cached)
    failed = failed_fetch(entry, cached.record_id)
    return max(due, failed.at + wait(failed)) if failed else due


def is_unused(entry: Entry, now: float) -> bool:
    """Whether Postfix has not asked for so long that the policy is no longer refreshed."""
    return entry.last_used <= unused_since(now)


def unused_since(now: float) -> float:
    """Domains that Postfix has not asked for after this time are unused."""
    return now - UNUSED_AFTER


def forget_at(entry: Entry) -> float:
    """When `Due` will note that a domain is unused, or have it forgotten: never while its policy lives."""
    unused = entry.last_used + UNUSED_AFTER if entry.unused_at is None else entry.unused_at + FORGET_GRACE
    return max(unused, entry.cached.expires_at()) if entry.cached else unused


def is_recent(then: float, now: float, span: float) -> bool:
    """Whether a time lies within the last `span` seconds. A time in the future does not: a clock was wrong."""
    return then <= now < then + span


def failed_fetch(entry: Entry, record_id: str) -> FailedFetch | None:
    """The fetches for a record id that failed."""
    return next((failed for failed in entry.failed if failed.record_id == record_id), None)


def holds_off(entry: Entry, record_id: str, now: float) -> FailedFetch | None:
    """The failure because of which a policy is not fetched yet (RFC 8461, 3.3)."""
    failed = failed_fetch(entry, record_id)
    return failed if failed and is_recent(failed.at, now, wait(failed)) else None


def wait(failed: FailedFetch) -> float:
    """How long no fetch is tried after one that failed."""
    if failed.count == 1:
        return BACK_OFF[0]
    return BACK_OFF[min(failed.count, len(BACK_OFF)) - 1] * (1 + BACK_OFF_JITTER * _jitter(failed.record_id, failed.at))


def refresh_interval(cached: CachedPolicy) -> float:
    """How long after its fetch a policy is fetched again. One that is too short-lived for that is never due."""
    interval = min(REFRESH_AFTER, cached.policy.max_age / 2)
    if interval < SHORTEST_REFRESH:
        return cached.policy.max_age + 1.0  # After its end: never.
    return interval * (1 - REFRESH_JITTER * _jitter(cached.text, cached.fetched_at))


def _jitter(*facts: object) -> float:
    """A number from 0 to 1 that differs from entry to entry, and is the same each time it is asked for."""
    return zlib.crc32(repr(facts).encode()) / 2**32
