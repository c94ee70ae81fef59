"""What the running daemon answers now and why, and where a fresh discovery differs from that."""

from collections.abc import Iterator

from postfix_mtasts.counting import times
from postfix_mtasts.daemon.explain import Explanation
from postfix_mtasts.log.events import span
from postfix_mtasts.query.domain import asked
from postfix_mtasts.query.domain.asked import Fresh, Outcome
from postfix_mtasts.query.domain.describe import why
from postfix_mtasts.query.domain.remark import Remark, note, warning
from postfix_mtasts.query.domain.report import ExceptionReport, ExemptReport, RunningReport
from postfix_mtasts.query.running.render import ago, exception_words
from postfix_mtasts.sts.domain import NextHop
from postfix_mtasts.sts.entry import Apply, CachedPolicy, NoPolicy, Unavailable, YieldToDane
from postfix_mtasts.sts.observation import (
    DaneAbsent,
    DnsFailed,
    FetchFailed,
    PolicyFetched,
    PolicyInvalid,
    RecordFound,
    RecordInvalid,
)
from postfix_mtasts.sts.policy import Mode, Policy
from postfix_mtasts.sts.schedule import holds_off, wait


def running_report(
    known: Explanation,
    no_daemon: str | None,
    hop: NextHop,
    outcome: Outcome,
    now: float,
    exempt: ExceptionReport | None,
    without: Outcome,
) -> RunningReport:
    """What Postfix is answered. `no_daemon` is why no daemon could be asked, `exempt` what Postfix finds before.

    `without` is the outcome without the daemon's own exception.
    """
    live = known.entry.live(now)
    reply = asked.reply(outcome.answer, known, hop)
    later = asked.reply(outcome.next, known, hop) if outcome.next else None
    policy = outcome.answer.policy if isinstance(outcome.answer, Apply) else None
    return RunningReport(
        daemon=no_daemon is None,
        why=no_daemon,
        reply=reply,
        style=known.rules.style.value,
        waits=outcome.waits,
        next=later if later != reply else None,
        withheld=exempt is None and known.rules.withholds(without.answer),
        policy=policy.mode if policy else None,
        expires_in=live.expires_at() - now if live else None,
        because=tuple(_because(known, hop, outcome, now)) if no_daemon is None else (),
        exception=exempt,
        exempt=_exempt(known, reply, asked.reply(without.answer, known, hop)),
    )


def _exempt(known: Explanation, reply: str, without: str) -> ExemptReport | None:
    found = known.exception
    if not found or reply == without:
        return None
    return ExemptReport(
        found.domain, found.until, found.reason, found.level.value, found.dane, found.added, without=without
    )


def _because(known: Explanation, hop: NextHop, outcome: Outcome, now: float) -> Iterator[str]:
    if outcome.held and isinstance(outcome.answer, Unavailable):
        left = span(outcome.held.at + wait(outcome.held) - now)
        word = asked.reply(outcome.answer, known, hop).partition(" ")[0]
        yield f"the daemon has no policy and answers {word} until it may fetch again in {left}"
    elif outcome.waits:
        yield "the daemon has nothing valid cached: it looks the policy up while Postfix waits"
    elif outcome.awaits_dane:
        yield "the daemon looks up TLSA records while Postfix waits"
    else:
        yield "the daemon answers at once"
    if known.exception:
        yield f"exception {exception_words(known.exception, now)}"
    yield from _cached(known, now)
    if known.rules.withholds(outcome.answer):
        yield 'no policy is enforced (reply.enforce = false): Postfix is told "not found"'
    if isinstance(outcome.answer, YieldToDane):
        seen = "as it knows from DNS" if str(hop) in known.dane else "as DNS says now"
        yield f"DANE decides, {seen}: TLSA records of {short(list(outcome.answer.hosts))}"
    if outcome.late:
        yield f"no answer was found within {known.answer_within:g} s; it goes on, and keeps what it finds"


def _cached(known: Explanation, now: float) -> Iterator[str]:
    entry, cached = known.entry, known.entry.cached
    if entry.unread:
        yield "it cannot read its database: there may be a policy"
    if cached:
        end = cached.expires_at()
        when = f"expires in {span(end - now)}" if cached.is_live(now) else f"expired {ago(end, now)}"
        mode, fetched = cached.policy.mode.value, ago(cached.fetched_at, now)
        yield f"cached policy: mode {mode}, fetched {fetched} for id {cached.record_id}, {when}"
    if entry.note:
        reason = why(entry.note.answer)
        left = entry.checked_at + entry.note.ttl - now
        held = f", believed for {span(left)} more" if left > 0 and not entry.live(now) else ""
        yield f"the last lookup found no policy{held}: {reason}"
    for failed in entry.failed:
        yield f"failed {times(failed.count)} for id {failed.record_id}, last {ago(failed.at, now)}: {failed.failure}"
    if entry.checked_at:
        yield f"record checked {ago(entry.checked_at, now)}"


def differences(known: Explanation, hop: NextHop, fresh: Fresh, now: float) -> Iterator[Remark]:
    """Where the fresh discovery differs from what the daemon has, and what that means."""
    live = known.entry.live(now)
    if live:
        yield from _beside_live(live, hop, fresh, now)
    else:
        yield from _without_live(known, hop, fresh, now)
    dane = known.dane.get(str(hop))
    if dane and isinstance(dane, DaneAbsent) != isinstance(fresh.dane, DaneAbsent):
        yield note(
            "DNS now says something else about TLSA records than the daemon knows; it looks again within an hour"
        )


def _beside_live(live: CachedPolicy, hop: NextHop, fresh: Fresh, now: float) -> Iterator[Remark]:
    left = span(live.expires_at() - now)
    holds = f"the cached policy holds for {left} more"
    judge = note if live.policy.mode is Mode.NONE else warning
    found, fetched = fresh.record, fresh.fetched
    if isinstance(found, DnsFailed):
        yield judge(f"the TXT record cannot be looked up, but {holds}")
    elif isinstance(found, RecordInvalid):
        yield judge(f"the TXT record is broken, but {holds}; after that there is none")
    elif not isinstance(found, RecordFound) and live.policy.mode is Mode.NONE:
        yield note("the TXT record is gone; the cached mode none asks for nothing, so nothing changes")
    elif not isinstance(found, RecordFound):
        yield judge(f"the TXT record is gone, but {holds}: only mode none takes a policy back at once")
    elif isinstance(fetched, FetchFailed | PolicyInvalid):
        what = f"{fetched.failure.stage.value}: {fetched.failure.reason}"
        new = "" if found.record.id == live.record_id else "a new id is published, but "
        yield judge(f"{new}the policy cannot be fetched now ({what}), but {holds}")
    elif isinstance(fetched, PolicyFetched):
        yield from _beside_fetched(live, hop, fetched, left)


def _beside_fetched(live: CachedPolicy, hop: NextHop, fetched: PolicyFetched, left: str) -> Iterator[Remark]:
    old, new = live.policy, fetched.policy
    same_id = fetched.record_id == live.record_id
    if old == new:
        if not same_id:
            yield note("the id is new, the policy is the same: the daemon fetches it when Postfix asks next")
        return
    changes = "; ".join(_changes(old, new))
    if same_id:
        yield warning(
            f"the policy has changed, but the id in the TXT record has not ({changes}): the cached one applies until "
            f"the daily refresh, at other senders for up to {left}; {_hint(hop)}, and a new id in the record makes all "
            "senders look"
        )
    else:
        yield note(
            f"a new policy is published, with a new id ({changes}): the daemon looks the record up at most every five "
            "minutes, when Postfix asks, and fetches the new policy then; until then the cached one applies"
        )


def _changes(old: Policy, new: Policy) -> Iterator[str]:
    if old.mode is not new.mode:
        yield f"mode {old.mode.value} is now {new.mode.value}"
    before, after = (list(dict.fromkeys(map(str, policy.mx))) for policy in (old, new))
    gone, added = [one for one in before if one not in after], [one for one in after if one not in before]
    if gone:
        yield f"the cached one has mx {short(gone)}, which the new one has not"
    if added:
        yield f"the new one adds mx {short(added)}"
    if old.max_age != new.max_age:
        yield f"max_age {old.max_age} is now {new.max_age}"


def _hint(hop: NextHop) -> str:
    return f"`postfix-mtasts-query cache refresh {hop.domain}` makes this daemon look now"


def short(names: list[str], most: int = 10) -> str:
    """Some names, and how many there are beyond them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _without_live(known: Explanation, hop: NextHop, fresh: Fresh, now: float) -> Iterator[Remark]:
    entry = known.entry
    if not isinstance(fresh.fetched, PolicyFetched):
        return
    hint = _hint(hop)
    note_left = entry.checked_at + entry.note.ttl - now if entry.note else 0.0
    failed = holds_off(entry, fresh.fetched.record_id, now)
    if failed:
        left = span(failed.at + wait(failed) - now)
        yield warning(f"the policy can be fetched now, but the daemon waits {left} more after its failure; {hint}")
    elif note_left > 0 and entry.note and entry.checked_at <= now:
        seen = "there is none" if isinstance(entry.note.answer, NoPolicy) else "it is unavailable"
        yield warning(f"there is a policy now, but the daemon believes for {span(note_left)} more that {seen}; {hint}")
