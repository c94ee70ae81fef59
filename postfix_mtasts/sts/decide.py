"""The life of a cached policy: what an observation changes in an entry, the answer to Postfix, and what to do next.

    decide(entry, observation, now) -> Decision(entry, answer, action, notices)

`daemon/lookup` passes in what happened: `Asked` when Postfix asks, `Due` when `daemon/refresh` finds that it is time,
`RefreshRequested` when an administrator wants a policy fetched. Then it performs the action of the decision and passes
in what that observed, until a decision has no action. All rules about the cache stand here, and their times in
`schedule`:

- A policy lives from its fetch for max_age. Only a fetched valid policy replaces it; no failure ends it early, and no
  answer of DNS prolongs it.
- A live policy is answered at once. Its record is looked up behind the answer; another id means a fetch.
- A fetch that failed is not repeated for the same id before its time.
- A policy is fetched again daily, whatever its record says, for as long as Postfix asks for the domain. It is forgotten
  only when nobody asks and it has expired. Otherwise the next mail would be a first contact.
- A clock that jumps neither revives, nor deletes, nor freezes anything: what was noted in the future was long ago.
"""

from dataclasses import dataclass, replace

from postfix_mtasts.sts.elsewhere import ForgottenElsewhere, KnownElsewhere, is_left_over, is_older, joined
from postfix_mtasts.sts.entry import Answer, Apply, CachedPolicy, Entry, FailedFetch, NoPolicy, Unavailable, noted
from postfix_mtasts.sts.observation import (
    Asked,
    DnsFailed,
    Due,
    Failure,
    FetchFailed,
    Observation,
    PolicyFetched,
    PolicyInvalid,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    RecordObservation,
)
from postfix_mtasts.sts.policy import Policy
from postfix_mtasts.sts.schedule import (
    CHECK_AFTER,
    MAX_FAILED,
    NOTE_AT_LEAST,
    NOTE_AT_MOST,
    TELL_AGAIN_AFTER,
    USE_COUNTS_FOR,
    failed_fetch,
    forget_at,
    holds_off,
    is_recent,
    is_unused,
    refresh_interval,
    urgent_at,
)


@dataclass(frozen=True, slots=True)
class RefreshRequested:
    """An administrator wants the policy fetched now, whatever its age, id and failures. `record` is what DNS says."""

    record: RecordObservation


@dataclass(frozen=True, slots=True)
class LookUpRecord:
    """Ask DNS for the TXT record."""


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """Fetch the policy that the record with this id announces."""

    record_id: str


Action = LookUpRecord | FetchPolicy


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """Another policy took the place of a live one. That is the owner's right, and the way to weaken it."""

    old: Policy
    new: Policy


@dataclass(frozen=True, slots=True)
class NotRenewed:
    """A live policy could not be confirmed, for this reason; it holds for `expires_in` seconds more."""

    reason: str
    expires_in: float
    urgent: bool


@dataclass(frozen=True, slots=True)
class HadExpired:
    """The domain is answered without a policy. Its policy expired `since` seconds ago."""

    policy: Policy
    since: float


Notice = PolicyChanged | NotRenewed | HadExpired


@dataclass(frozen=True, slots=True)
class Decision:
    """The entry as it is now (None: forget it), the answer if there is one yet, what to do, and what to tell.

    Before the time `until`, whoever asks gets the same answer, unless something is observed.
    """

    entry: Entry | None
    answer: Answer | None = None
    action: Action | None = None
    notices: tuple[Notice, ...] = ()
    until: float = 0.0


Happening = Observation | RefreshRequested | KnownElsewhere | ForgottenElsewhere


def decide(entry: Entry, observation: Happening, now: float) -> Decision:
    """What follows from an observation at the time `now`."""
    match observation:
        case Asked():
            return _asked(entry, now)
        case Due():
            return _due(entry, now)
        case RefreshRequested(RecordFound(record)):
            return Decision(replace(entry, checked_at=now, note=None), action=FetchPolicy(record.id))
        case RefreshRequested(seen):
            return decide(entry, seen, now)
        case KnownElsewhere(theirs, fetch):
            return _known_elsewhere(entry, theirs, fetch, now)
        case ForgottenElsewhere(at):
            return Decision(None if is_older(entry, at, now) else entry)
        case RecordFound(record):
            return _record_found(entry, record.id, now)
        case RecordAbsent(ttl):
            return _no_record(entry, NoPolicy("no _mta-sts TXT record"), ttl, now)
        case RecordInvalid(reason, ttl):
            return _no_record(entry, NoPolicy(f"invalid _mta-sts TXT record: {reason}"), ttl, now)
        case DnsFailed(failure) | FetchFailed(failure) if failure.is_local:
            return _unable(entry, failure, now)
        case DnsFailed(failure):
            return _no_record(entry, Unavailable(failure), NOTE_AT_LEAST, now)
        case PolicyFetched():
            return _fetched(entry, observation, now)
        case PolicyInvalid(failure, record_id) | FetchFailed(failure, record_id):
            return _fetch_failed(entry, failure, record_id, now)


def _asked(entry: Entry, now: float) -> Decision:
    if entry.unused_at is not None or not is_recent(entry.last_used, now, USE_COUNTS_FOR):
        entry = replace(entry, last_used=now, unused_at=None)
    live = entry.live(now)
    if live:
        # Before mail is given up, DNS must have been asked for a newer policy (RFC 8461, 5).
        if not is_recent(entry.checked_at, now, CHECK_AFTER):
            return Decision(entry, Apply(live.policy), LookUpRecord())
        return Decision(entry, Apply(live.policy), until=min(entry.checked_at + CHECK_AFTER, live.expires_at()))
    if entry.note and is_recent(entry.checked_at, now, entry.note.ttl):
        return Decision(entry, entry.note.answer, until=entry.checked_at + entry.note.ttl)
    return Decision(entry, action=LookUpRecord())


def _due(entry: Entry, now: float) -> Decision:
    if entry.unread:
        return Decision(entry)  # The stored policy may live, and be in use.
    if is_unused(entry, now):
        is_noted = entry.unused_at is not None and entry.unused_at <= now
        if now < forget_at(entry if is_noted else replace(entry, unused_at=None)):
            return Decision(entry)
        return Decision(None if is_noted else replace(entry, unused_at=now))
    live = entry.live(now)
    # Whatever the record says: the body may change under the same id, and DNS may be all that is down (RFC 8461, 10.2).
    if (
        live
        and not is_recent(live.fetched_at, now, refresh_interval(live))
        and not holds_off(entry, live.record_id, now)
    ):
        return Decision(entry, action=FetchPolicy(live.record_id))
    return Decision(entry)


def asks_others(entry: Entry, action: Action, now: float) -> bool:
    """Whether other relays are asked what they know before an action: where nothing lives, and before each fetch."""
    return isinstance(action, FetchPolicy) or not entry.live(now)


def _known_elsewhere(entry: Entry, theirs: Entry, fetch: str | None, now: float) -> Decision:
    """What another relay observed counts as if it had been observed here, at the time when it was."""
    before, was_checked = entry.live(now), is_recent(entry.checked_at, now, CHECK_AFTER)
    entry = joined(entry, theirs, now)
    live = entry.live(now)
    if live and before and live.policy != before.policy:
        notices: tuple[Notice, ...] = (PolicyChanged(before.policy, live.policy),)
    else:
        notices = ()
    action: Action = LookUpRecord() if fetch is None else FetchPolicy(fetch)
    is_theirs = live is not None and live != before
    if live and is_theirs and is_left_over(live, now) and not holds_off(entry, live.record_id, now):
        # It is what remains if it cannot be fetched.
        return Decision(entry, action=FetchPolicy(live.record_id), notices=notices)
    if fetch is None:
        if live and is_recent(entry.checked_at, now, CHECK_AFTER):
            return Decision(entry, Apply(live.policy), notices=notices)
        if not live and entry.note and is_recent(entry.checked_at, now, entry.note.ttl):
            return _without_policy(entry, entry.note.answer, entry.note.ttl, now)
        return Decision(entry, action=action, notices=notices)
    # If the record was looked up just now, its id says which policy is wanted.
    if live and ((is_theirs and (live.record_id == fetch or not was_checked)) or holds_off(entry, fetch, now)):
        return Decision(entry, Apply(live.policy), notices=notices)
    return Decision(entry, action=action, notices=notices)


def _record_found(entry: Entry, record_id: str, now: float) -> Decision:
    entry = replace(entry, checked_at=now, note=None)
    live = entry.live(now)
    if live and live.record_id == record_id:
        return Decision(entry, Apply(live.policy))
    # Ids have no order: another one is a newer policy. An expired policy is fetched even if the id is the same.
    failed = holds_off(entry, record_id, now)
    if not failed:
        return Decision(entry, action=FetchPolicy(record_id))
    if live:
        return Decision(entry, Apply(live.policy))
    return _without_policy(entry, Unavailable(failed.failure), NOTE_AT_LEAST, now)


def _no_record(entry: Entry, answer: NoPolicy | Unavailable, ttl: float, now: float) -> Decision:
    """DNS has no record, or gave no answer. That alone does not end a live policy (RFC 8461, 3.1 and 3.3)."""
    told = entry.note
    entry = replace(entry, checked_at=now)
    live = entry.live(now)
    if not live:
        return _without_policy(entry, answer, min(max(ttl, NOTE_AT_LEAST), NOTE_AT_MOST), now)
    entry = replace(entry, note=noted(answer, NOTE_AT_LEAST))
    notices = () if told and told.answer == answer else _not_renewed(live, answer.reason, now)
    return Decision(entry, Apply(live.policy), notices=notices)


def _fetched(entry: Entry, fetched: PolicyFetched, now: float) -> Decision:
    """The only way in which a policy begins to live, or goes on living."""
    live = entry.live(now)
    return Decision(
        replace(
            entry,
            cached=CachedPolicy(fetched.policy, fetched.text, fetched.record_id, now),
            failed=(),
            note=None,
            unread=False,
        ),
        Apply(fetched.policy, fetched=True),
        notices=(PolicyChanged(live.policy, fetched.policy),) if live and live.policy != fetched.policy else (),
    )


def _fetch_failed(entry: Entry, failure: Failure, record_id: str, now: float) -> Decision:
    before = failed_fetch(entry, record_id)
    failed = FailedFetch(record_id, before.count + 1 if before else 1, now, failure)
    others = tuple(one for one in entry.failed if one.record_id != record_id)
    entry = replace(entry, failed=(failed, *others)[:MAX_FAILED])
    live = entry.live(now)
    if live:
        return Decision(entry, Apply(live.policy), notices=_not_renewed(live, str(failure), now))
    return _without_policy(entry, Unavailable(failure), NOTE_AT_LEAST, now)


def _unable(entry: Entry, failure: Failure, now: float) -> Decision:
    """This machine could not look: nothing is known, and nothing is noted of the domain."""
    live = entry.live(now)
    return Decision(entry, Apply(live.policy) if live else Unavailable(failure, defer=True))


def _without_policy(entry: Entry, answer: NoPolicy | Unavailable, ttl: float, now: float) -> Decision:
    notices: tuple[Notice, ...] = ()
    had_one = entry.cached is not None and entry.cached.policy.mode.checks_hosts
    told_at = entry.expiry_told_at
    if entry.cached and had_one and (told_at is None or not is_recent(told_at, now, TELL_AGAIN_AFTER)):
        notices = (HadExpired(entry.cached.policy, now - entry.cached.expires_at()),)
        entry = replace(entry, expiry_told_at=now)
    if entry.unread:
        # The store may have a policy, so nothing is noted. If the lookup has failed too, mail is deferred.
        return Decision(entry, replace(answer, defer=True) if isinstance(answer, Unavailable) else answer)
    return Decision(replace(entry, note=noted(answer, ttl)), answer, notices=notices)


def _not_renewed(live: CachedPolicy, reason: str, now: float) -> tuple[Notice, ...]:
    """Tell the administrator, unless the mode is none (RFC 8461, 3.3 and 10.2)."""
    if not live.policy.mode.checks_hosts:
        return ()
    return (NotRenewed(reason, live.expires_at() - now, urgent=now > urgent_at(live)),)
