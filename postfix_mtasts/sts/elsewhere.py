"""What other relays of a fleet know of a domain, and what of it counts here: pure functions beside `decide`.

Whatever another relay observed has the time at which it was observed there, never the time at which it was copied. So a
copy prolongs nothing. A time that lies in the future by more than clocks differ comes from a wrong clock, and what has
it does not count.
"""

from dataclasses import dataclass, replace

from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.schedule import MAX_FAILED, holds_off, is_recent, refresh_interval, wait

MAX_SKEW = 60.0  # Seconds by which the clocks of two relays may differ.


@dataclass(frozen=True, slots=True)
class KnownElsewhere:
    """What another relay knows of the domain, before a policy is fetched (`fetch`, the record id) or DNS is asked."""

    entry: Entry
    fetch: str | None = None


@dataclass(frozen=True, slots=True)
class ForgottenElsewhere:
    """An administrator had the whole fleet forget the domain at this time."""

    at: float


def joined(ours: Entry, theirs: Entry, now: float) -> Entry:
    """Our entry with what another relay knows and we do not. Of two fetches the newer counts, and none that expired."""
    cached = _newer(ours.cached, theirs.cached, now)
    since = cached.fetched_at if cached else float("-inf")
    is_ours = cached is ours.cached
    latest = {failed.record_id: failed for failed in ours.failed if is_ours or failed.at > since}
    for failed in _past(theirs.failed, now):
        known = latest.get(failed.record_id)
        if failed.at > since and (not known or not failed.at <= known.at <= now):
            latest[failed.record_id] = failed
    failures = tuple(sorted(latest.values(), key=lambda failed: -failed.at)[:MAX_FAILED])
    entry = replace(ours, cached=cached, failed=failures)
    checked_at = past(theirs.checked_at, now)
    if checked_at is None or (ours.checked_at <= now and checked_at <= ours.checked_at):
        return entry
    return replace(entry, checked_at=checked_at, note=theirs.note)


def shared(entry: Entry, now: float) -> Entry | None:
    """What of an entry others may use: what holds, and nothing of who asked. None if that is nothing.

    A policy that has expired is part of it, such as one with max_age 0: it takes the place of an older one. What was
    observed in the future, before the clock was put right, is nothing: others would not believe it.
    """
    if past(seen_at(entry), now) is None:
        return None
    note = entry.note if entry.note and is_recent(entry.checked_at, now, entry.note.ttl) else None
    failed = tuple(failed for failed in entry.failed if holds_off(entry, failed.record_id, now))
    kept = Entry(entry.cached, failed, note, entry.checked_at)
    return kept if kept.cached or failed or note else None


def shared_until(entry: Entry, now: float) -> float:
    """Until when something of a shared entry holds."""
    ends = [now, *(failed.at + wait(failed) for failed in entry.failed)]
    if entry.cached:
        ends.append(entry.cached.expires_at())
    if entry.note:
        ends.append(entry.checked_at + entry.note.ttl)
    return max(ends)


def seen_at(entry: Entry) -> float:
    """When the latest of what an entry says was observed."""
    fetched = [entry.cached.fetched_at] if entry.cached else []
    return max(entry.checked_at, *fetched, *(failed.at for failed in entry.failed), 0.0)


def is_older(entry: Entry, at: float, now: float) -> bool:
    """Whether all that is known was observed before a time, which has passed."""
    return past(at, now) is not None and seen_at(replace(entry, checked_at=0.0) if entry.cached else entry) < at


def is_left_over(cached: CachedPolicy, now: float) -> bool:
    """Whether a shared policy was not renewed for twice its time, as in an old backup: whoever uses it does so."""
    return now > cached.fetched_at + 2 * refresh_interval(cached)


def past(then: float, now: float) -> float | None:
    """A time of another clock, as one that has passed on ours; None if its clock is wrong."""
    return min(then, now) if then <= now + MAX_SKEW else None


def _newer(ours: CachedPolicy | None, theirs: CachedPolicy | None, now: float) -> CachedPolicy | None:
    fetched_at = past(theirs.fetched_at, now) if theirs else None
    if not theirs or fetched_at is None:
        return ours
    theirs = replace(theirs, fetched_at=fetched_at)
    is_ours_newer = ours is not None and fetched_at <= ours.fetched_at <= now
    # Nothing is taken that has expired. But what we have is over if another policy, with a shorter life, came after it.
    return ours if is_ours_newer or (ours is None and not theirs.is_live(now)) else theirs


def _past(failures: tuple[FailedFetch, ...], now: float) -> list[FailedFetch]:
    moved = ((failed, past(failed.at, now)) for failed in failures)
    return [replace(failed, at=at) for failed, at in moved if at is not None]
