"""What the control socket says of a domain, and of exceptions, as JSON."""

from collections.abc import Iterable, Iterator
from typing import Any

from postfix_mtasts.cache.row import print_failed, print_row
from postfix_mtasts.daemon.dane import DaneEntry
from postfix_mtasts.daemon.exceptions import Exceptions
from postfix_mtasts.daemon.explain import print_exception, tlsa_document
from postfix_mtasts.postfix.reply import ReplyRules, beside_dane, reply_to
from postfix_mtasts.postfix.socketmap import Status
from postfix_mtasts.sts.domain import NextHop, PolicyDomain
from postfix_mtasts.sts.entry import Answer, Apply, Entry, Exempt, NoPolicy, Unavailable
from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.observation import DaneObservation

JSON = dict[str, Any]

_MAX_SHOWN = 10  # Exceptions in the status.


def print_known(
    domain: PolicyDomain,
    entry: Entry,
    dane: Iterable[tuple[NextHop, DaneEntry]],
    exception: PolicyException | None,
    rules: ReplyRules,
    now: float,
) -> JSON:
    """All that is known about a domain, as for `show`."""
    note, dane = entry.note, list(dane)
    return {
        "domain": domain.name,
        "row": print_row(entry) if entry.cached else None,
        "checked_at": entry.checked_at,
        "failed": [print_failed(failed) for failed in entry.failed],
        "note": note
        and {
            "no_policy": isinstance(note.answer, NoPolicy),  # If false, it is unknown whether there is a policy.
            "reason": note.answer.reason,
            "until": entry.checked_at + note.ttl,
        },
        "unread": entry.unread,
        "withheld": entry.cached is not None and rules.withholds(Apply(entry.cached.policy)),
        "dane": [{"next_hop": str(hop), "seen_at": seen.at} | tlsa_document(seen.observation) for hop, seen in dane],
        "exception": exception and print_exception(exception),
        "deferred": deferral(domain, answer_of(entry, exception, now), [seen.observation for _, seen in dane], rules),
    }


def answer_of(entry: Entry, exception: PolicyException | None, now: float) -> Answer | None:
    """What is answered from what is known, without DANE; None if that is nothing."""
    if exception:
        return Exempt(exception)
    if live := entry.live(now):
        return Apply(live.policy)
    if entry.note:
        return entry.note.answer
    return Unavailable(entry.failed[0].failure) if entry.failed else None


def deferral(
    domain: PolicyDomain, answer: Answer | None, dane: Iterable[DaneObservation], rules: ReplyRules
) -> str | None:
    """Why mail to a domain, or to one of its next hops, is deferred; None if it is not, as far as is known."""
    if answer is None:
        return None
    answers = [beside_dane(answer, one) for one in dane] if rules.heeds_dane(answer) else []
    replies = (reply_to(domain, one, rules) for one in answers or [answer])
    return next((reply.text for reply in replies if reply.status is Status.TEMP), None)


def print_exceptions(exceptions: Exceptions) -> Iterator[JSON]:
    """Each exception and its use, as for `exceptions`."""
    now = exceptions.now()
    for one in exceptions.all():
        use = exceptions.use_of(one)
        yield print_exception(one) | {
            "over": one.is_over(now),
            "overruled": exceptions.is_overruled(one),
            "used": use.count,
            "last_used": use.last,
            "since": exceptions.since,
            "domains": [domain.name for domain in use.domains],
        }


def print_holding(exceptions: Exceptions) -> JSON:
    """How many exceptions hold, and those of them that end first, as for `status`."""
    holding = exceptions.holding()
    first = [print_exception(one) | {"used": exceptions.use_of(one).count} for one in holding[:_MAX_SHOWN]]
    counts = {"holding": len(holding), "since": exceptions.since}
    return {**counts, "first_to_end": first, "trouble": exceptions.trouble or None}
