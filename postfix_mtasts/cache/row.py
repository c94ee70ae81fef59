"""An entry as a row of the database: JSON with a version, so that a later version of this program can tell."""

import json
from typing import Any

from postfix_mtasts.sts.domain import PolicyDomainError, next_hop
from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.observation import Failure, ResultType, Stage
from postfix_mtasts.sts.policy import MAX_AGE_LIMIT, Mode, MxPattern, Policy
from postfix_mtasts.sts.schedule import due_spans, renewal_fails, urgent_at

VERSION = 1
_MAX_TIME = 1e12  # Seconds; what is later comes from no clock.


class RowError(Exception):
    """The row is none of ours, or of another version; says why."""


def print_row(entry: Entry) -> str:
    """The row of an entry that has a policy."""
    return json.dumps(row_fields(entry))


def row_fields(entry: Entry) -> dict[str, Any]:
    """The fields of a row. The last four follow from the rest: the database searches them."""
    cached = entry.cached
    if not cached:
        raise ValueError("an entry without a policy is not stored")
    return {
        "version": VERSION,
        "mode": cached.policy.mode.value,
        "max_age": cached.policy.max_age,
        "mx": [pattern.text for pattern in cached.policy.mx],
        "text": cached.text,
        "record_id": cached.record_id,
        "fetched_at": cached.fetched_at,
        "checked_at": entry.checked_at,
        "last_used": entry.last_used,
        "unused_at": entry.unused_at,
        "failed": [print_failed(failed) for failed in entry.failed],
        "due": due_spans(entry, cached),
        "expires_at": cached.expires_at(),
        "renewal_fails": renewal_fails(entry),
        "urgent_at": urgent_at(cached),
    }


def parse_row(row: str | bytes) -> Entry:
    """The entry in a row. Raises RowError."""
    try:
        return parse_fields(json.loads(row))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise RowError(f"not an entry: {error!a}") from error


def parse_fields(fields: Any) -> Entry:
    """The entry in the fields of a row. Raises RowError, ValueError, TypeError, KeyError and OverflowError."""
    version = count_of(fields["version"])
    if version != VERSION:
        raise RowError(f"version {version}, not {VERSION}")
    policy = Policy(
        Mode(fields["mode"]), count_of(fields["max_age"]), tuple(MxPattern(text_of(mx)) for mx in list_of(fields["mx"]))
    )
    if policy.max_age > MAX_AGE_LIMIT or (not policy.mx and policy.mode.checks_hosts):
        raise ValueError("no valid policy")
    unused_at = fields["unused_at"]
    return Entry(
        CachedPolicy(policy, text_of(fields["text"]), text_of(fields["record_id"]), time_of(fields["fetched_at"])),
        failed=tuple(parse_failed(failed) for failed in list_of(fields["failed"])),
        checked_at=time_of(fields["checked_at"]),
        last_used=time_of(fields["last_used"]),
        unused_at=None if unused_at is None else time_of(unused_at),
    )


def is_key(text: str) -> bool:
    """Whether a key of the database is one of ours."""
    try:
        return next_hop(text.encode()).domain.name == text
    except PolicyDomainError:
        return False


def print_failed(failed: FailedFetch) -> dict[str, Any]:
    """The part of a row that tells of failed fetches for one record id."""
    kind = failed.failure.result_type
    return {
        "record_id": failed.record_id,
        "count": failed.count,
        "at": failed.at,
        "stage": failed.failure.stage.value,
        "reason": failed.failure.reason,
        "result_type": kind.value if kind else None,
    }


def parse_failed(fields: Any) -> FailedFetch:
    """The failed fetches in the part of a row. Raises ValueError, TypeError and KeyError."""
    kind = fields["result_type"]
    failure = Failure(Stage(fields["stage"]), text_of(fields["reason"]), None if kind is None else ResultType(kind))
    return FailedFetch(text_of(fields["record_id"]), max(1, count_of(fields["count"])), time_of(fields["at"]), failure)


def list_of(value: Any) -> list[Any]:
    """A value of JSON that must be a list. Raises TypeError."""
    if not isinstance(value, list):
        raise TypeError(f"{value!a} is no list")
    return value


def text_of(value: Any) -> str:
    """A value of JSON that must be a text. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{value!a} is no text")
    return value


def count_of(value: Any) -> int:
    """A value of JSON that must be a whole number, not negative. Raises TypeError."""
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!a} is no count")
    return value


def time_of(value: Any) -> float:
    """A value of JSON that must be a time, in seconds since the epoch. Raises TypeError."""
    if type(value) not in (int, float) or not -_MAX_TIME < value < _MAX_TIME:
        raise TypeError(f"{value!a} is no time")
    return float(value)
