"""What the daemon answers from, as JSON: the whole of what it knows of a domain, and its rules for replies.

The control socket gives it to postfix-mtasts-query, which decides from it by the daemon's own rules what Postfix is
answered now, without a trace in the daemon.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from postfix_mtasts.cache.row import RowError, parse_failed, parse_row, print_failed, print_row
from postfix_mtasts.config import DaneSetting, Level, OnFailure, OnTesting
from postfix_mtasts.daemon.dane import DaneEntry
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.sts.domain import NextHop
from postfix_mtasts.sts.entry import Entry, FailedFetch, NoPolicy, Note, Unavailable
from postfix_mtasts.sts.exception import PolicyException
from postfix_mtasts.sts.observation import DaneAbsent, DaneFailed, DaneObservation, DaneUsable, Failure

JSON = dict[str, Any]


class ExplanationError(Exception):
    """The daemon's words are not understood: it may be of another version."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the daemon answers from. `dane` has what holds of each next hop; `answer_within` is in seconds.

    `exception` is the one that holds for the domain.
    """

    entry: Entry
    rules: ReplyRules
    answer_within: float
    dane: dict[str, DaneObservation]
    exception: PolicyException | None = None


def print_explanation(
    entry: Entry,
    rules: ReplyRules,
    answer_within: float,
    dane: Iterable[tuple[NextHop, DaneEntry]],
    exception: PolicyException | None,
) -> JSON:
    """An explanation as JSON."""
    return {
        "row": print_row(entry) if entry.cached else None,
        "failed": [print_failed(failed) for failed in entry.failed],
        "note": _print_note(entry.note),
        "checked_at": entry.checked_at,
        "unread": entry.unread,
        "style": rules.style.value,
        "on_failure": rules.on_failure.value,
        "testing": rules.testing.value,
        "dane": rules.dane.value,
        "answer_within": answer_within,
        "next_hops": {str(hop): _print_dane(seen.observation) for hop, seen in dane},
        "exception": exception and print_exception(exception),
    }


def parse_explanation(document: JSON) -> Explanation:
    """An explanation from its JSON. Raises ExplanationError."""
    try:
        stored = parse_row(document["row"]) if document["row"] else Entry()
        entry = Entry(
            stored.cached,
            tuple(parse_failed(failed) for failed in document["failed"]),
            _parse_note(document["note"]),
            document["checked_at"],
            stored.last_used,
            stored.unused_at,
            unread=document["unread"],
        )
        rules = ReplyRules(
            Style(document["style"]),
            OnFailure(document["on_failure"]),
            OnTesting(document["testing"]),
            DaneSetting(document["dane"]),
        )
        dane = {hop: _parse_dane(seen) for hop, seen in document["next_hops"].items()}
        exception = document["exception"] and parse_exception(document["exception"])
        return Explanation(entry, rules, float(document["answer_within"]), dane, exception)
    except (RowError, ValueError, TypeError, KeyError) as error:
        raise ExplanationError(f"the daemon's reply is not understood: {error!a}") from error


def print_exception(exception: PolicyException) -> JSON:
    """An exception as JSON."""
    return dataclasses.asdict(exception) | {"level": exception.level.value}


def parse_exception(document: JSON) -> PolicyException:
    """An exception from its JSON, which may have more members. Raises KeyError and ValueError."""
    members = {field.name: document[field.name] for field in dataclasses.fields(PolicyException)}
    return PolicyException(**members | {"level": Level(members["level"])})


def _print_note(note: Note | None) -> JSON | None:
    if not note:
        return None
    answer = note.answer
    what = {"no_policy": answer.reason} if isinstance(answer, NoPolicy) else {"failure": _print_failure(answer.failure)}
    return {"ttl": note.ttl, **what}


def _parse_note(note: JSON | None) -> Note | None:
    if not note:
        return None
    answer = NoPolicy(note["no_policy"]) if "no_policy" in note else Unavailable(_parse_failure(note["failure"]))
    return Note(answer, note["ttl"])


def _print_dane(dane: DaneObservation) -> JSON:
    match dane:
        case DaneUsable(hosts, ttl, covers_all):
            return {"hosts": hosts, "ttl": ttl, "covers_all": covers_all}
        case DaneAbsent(reason, ttl):
            return {"reason": reason, "ttl": ttl}
        case DaneFailed(failure):
            return {"failure": _print_failure(failure)}


def _parse_dane(dane: JSON) -> DaneObservation:
    if "hosts" in dane:
        return DaneUsable(tuple(dane["hosts"]), dane["ttl"], dane["covers_all"])
    return DaneAbsent(dane["reason"], dane["ttl"]) if "reason" in dane else DaneFailed(_parse_failure(dane["failure"]))


def _print_failure(failure: Failure) -> JSON:
    return print_failed(FailedFetch("", 1, 0.0, failure)) | {"is_local": failure.is_local}


def _parse_failure(fields: JSON) -> Failure:
    failure = parse_failed(fields).failure
    return Failure(failure.stage, failure.reason, failure.result_type, fields["is_local"])
