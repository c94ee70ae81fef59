"""What Postfix is answered if it asks now: by the daemon's own rules, from what it knows and what DNS and HTTPS say."""

import math
from dataclasses import dataclass, replace

from postfix_mtasts.daemon.explain import Explanation
from postfix_mtasts.daemon.steps import too_late
from postfix_mtasts.postfix.reply import beside_dane, reply_to
from postfix_mtasts.sts.decide import Decision, LookUpRecord, decide
from postfix_mtasts.sts.domain import NextHop
from postfix_mtasts.sts.entry import Answer, Exempt, FailedFetch
from postfix_mtasts.sts.observation import (
    Asked,
    DaneObservation,
    FetchObservation,
    Observation,
    RecordFound,
    RecordObservation,
)
from postfix_mtasts.sts.schedule import holds_off


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a fresh discovery observed, and after how many seconds. `complete` is false if it was given up.

    What DNS says of DANE came after `dane_seconds`, infinity if that was given up.
    """

    record: RecordObservation
    fetched: FetchObservation | None
    dane: DaneObservation
    seconds: float
    complete: bool = True
    dane_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows if Postfix asks now.

    `answer` is the answer, and `policy_answer` the one without DANE and without an exception. If `waits`, Postfix waits
    until the discovery is done, or until it is `late`. `next` is the answer to the next query, or None if that is
    unknown. `held` is the failed fetch because of which the policy is not fetched yet. `awaits_dane`: Postfix waits
    until the daemon knows whether DANE decides.
    """

    answer: Answer
    policy_answer: Answer
    waits: bool
    late: bool
    next: Answer | None
    held: FailedFetch | None = None
    awaits_dane: bool = False


def ask(known: Explanation, hop: NextHop, fresh: Fresh, now: float) -> Outcome:
    """What the daemon does with a query at the time `now`, if all that it looks up is as in `fresh`."""
    decision = decide(known.entry, Asked(), now)
    at_once = decision.answer
    while decision.action:
        decision = _perform(decision, fresh, now)
    found = decision.answer
    if not found:
        raise AssertionError("neither an answer nor an action")
    later = _then(found, known, hop, fresh) if fresh.complete else None
    if at_once:
        left = _now(at_once, known, hop, fresh)
        return Outcome(left, at_once, False, False, later, awaits_dane=_awaits_dane(at_once, known, hop))
    if not fresh.complete or fresh.seconds >= known.answer_within:
        answer = too_late(known.answer_within, defer=known.entry.unread)
        return Outcome(_now(answer, known, hop, fresh) if known.exception else answer, answer, True, True, later)
    seen = fresh.record
    held = holds_off(known.entry, seen.record.id, now) if isinstance(seen, RecordFound) else None
    return Outcome(_now(found, known, hop, fresh), found, True, False, later, held)


def if_enforced(outcome: Outcome, known: Explanation, hop: NextHop, fresh: Fresh) -> Outcome:
    """The same, if an enforced policy were not withheld: DANE may decide then."""
    enforcing = replace(known, rules=replace(known.rules, enforce=True))
    return replace(outcome, answer=_now(outcome.policy_answer, enforcing, hop, fresh))


def reply(answer: Answer, known: Explanation, hop: NextHop) -> str:
    """The reply to Postfix as it is sent, such as `OK secure match=…`."""
    sent = reply_to(hop.domain, answer, known.rules)
    return f"{sent.status.value} {sent.text}".rstrip()


def _perform(decision: Decision, fresh: Fresh, now: float) -> Decision:
    seen: Observation | None = fresh.record if isinstance(decision.action, LookUpRecord) else fresh.fetched
    if seen is None or decision.entry is None:
        raise AssertionError("a record that was found has its policy fetched")
    return decide(decision.entry, seen, now)


def _now(answer: Answer, known: Explanation, hop: NextHop, fresh: Fresh) -> Answer:
    """What Postfix is answered, for as long as it waits."""
    if _awaits_dane(answer, known, hop) and fresh.dane_seconds >= known.answer_within:
        return too_late(known.answer_within, defer=True)
    return _left(answer, known, hop, fresh)


def _then(answer: Answer, known: Explanation, hop: NextHop, fresh: Fresh) -> Answer | None:
    is_unknown = _awaits_dane(answer, known, hop) and math.isinf(fresh.dane_seconds)
    return None if is_unknown else _left(answer, known, hop, fresh)


def _left(answer: Answer, known: Explanation, hop: NextHop, fresh: Fresh) -> Answer:
    answer = Exempt(known.exception) if known.exception else answer
    return beside_dane(answer, known.dane.get(str(hop), fresh.dane)) if known.rules.heeds_dane(answer) else answer


def _awaits_dane(answer: Answer, known: Explanation, hop: NextHop) -> bool:
    answer = Exempt(known.exception) if known.exception else answer
    return known.rules.heeds_dane(answer) and str(hop) not in known.dane
