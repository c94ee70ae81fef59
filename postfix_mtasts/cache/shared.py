"""An entry as relays share it: a line with two times, by which the server knows the newer one, and then JSON.

The JSON has the domain, and a policy is in it as a row of the database. What does not parse, or is about another
domain, is unknown, never "no policy".
"""

import json
from dataclasses import replace
from typing import Any, NamedTuple

from postfix_mtasts.cache.row import (
    RowError,
    count_of,
    list_of,
    parse_failed,
    parse_fields,
    print_failed,
    row_fields,
    text_of,
    time_of,
)
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.elsewhere import MAX_SKEW, seen_at, shared, shared_until
from postfix_mtasts.sts.entry import Entry, NoPolicy, Note, Unavailable
from postfix_mtasts.sts.observation import Failure, ResultType, Stage
from postfix_mtasts.sts.schedule import MAX_FAILED, NOTE_AT_MOST

VERSION = 1
# Octets of a value. The longest policy file has 65,536, its mx are in the row once more, and there is room for as many
# escapes. A file that is full of control characters is not shared.
MAX_VALUE = 2**18
_AT_LEAST = 60.0  # Seconds that a value stays, so that others see it when they are told of it.
_NEVER = -1.0  # Before every fetch.


class Value(NamedTuple):
    """A value for the server. A stored one stays if it has a later fetch, or with the same fetch was seen later.

    But not if it is from later than `until`: that comes from a wrong clock. After `lasts` seconds it is deleted.
    """

    text: str
    fetched_at: float
    seen_at: float
    until: float
    lasts: float


def print_shared(domain: PolicyDomain, entry: Entry, now: float) -> Value | None:
    """What of an entry is shared; None if that is nothing, or too large."""
    kept = shared(entry, now)
    if not kept:
        return None
    fetched_at = kept.cached.fetched_at if kept.cached else _NEVER
    document = {
        "version": VERSION,
        "domain": domain.name,
        "row": row_fields(replace(kept, failed=())) if kept.cached else None,
        "failed": [print_failed(failed) for failed in kept.failed],
        "note": _print_note(kept.note),
        "checked_at": kept.checked_at,
    }
    text = f"{fetched_at:.6f} {seen_at(kept):.6f}\n{json.dumps(document)}"
    if len(text) > MAX_VALUE:
        return None
    return Value(text, fetched_at, seen_at(kept), now + MAX_SKEW, max(_AT_LEAST, shared_until(kept, now) - now))


def parse_shared(domain: PolicyDomain, value: bytes) -> Entry:
    """The entry in a value about a domain. Raises RowError."""
    try:
        if len(value) > MAX_VALUE:
            raise RowError(f"more than {MAX_VALUE} octets")
        fields = json.loads(value.partition(b"\n")[2])
        if (version := count_of(fields["version"])) != VERSION:
            raise RowError(f"version {version}, not {VERSION}")
        if (name := text_of(fields["domain"])) != domain.name:
            raise RowError(f"about {name[:255]!a}")
        row = fields["row"]
        return Entry(
            None if row is None else parse_fields(row).cached,
            tuple(map(parse_failed, list_of(fields["failed"])[:MAX_FAILED])),
            _parse_note(fields["note"]),
            time_of(fields["checked_at"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise RowError(f"not an entry: {str(error)[:200]!a}") from error


def _print_note(note: Note | None) -> dict[str, Any] | None:
    if not note:
        return None
    match note.answer:
        case NoPolicy(reason):
            said: dict[str, Any] = {"no_policy": True, "reason": reason}
        case Unavailable(failure):
            kind = failure.result_type
            said = {
                "no_policy": False,
                "reason": failure.reason,
                "stage": failure.stage.value,
                "result_type": kind.value if kind else None,
            }
    return said | {"ttl": note.ttl}


def _parse_note(fields: Any) -> Note | None:
    if fields is None:
        return None
    reason, ttl = text_of(fields["reason"]), min(max(time_of(fields["ttl"]), 0.0), NOTE_AT_MOST)
    if fields["no_policy"] is True:
        # Others choose the reason of a record that is invalid; a failure bounds what it keeps of it.
        return Note(NoPolicy(Failure(Stage.RECORD, reason).reason), ttl)
    kind = fields["result_type"]
    return Note(Unavailable(Failure(Stage(fields["stage"]), reason, None if kind is None else ResultType(kind))), ttl)
