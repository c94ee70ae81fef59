"""An entry as a row of the database: JSON with a version, so that a later version of this program can tell."""

import json
from typing import Any

from postfix_mtasts.sts.entry import CachedPolicy, Entry, FailedFetch
from postfix_mtasts.sts.observation import Failure, ResultType, Stage
from postfix_mtasts.sts.policy import MAX_AGE_LIMIT, Mode, MxPattern, Policy
from postfix_mtasts.sts.schedule import due_spans, renewal_fails, urgent_at

VERSION = 1
_MAX_TIME = 1e12  # Seconds; what is later comes from no clock.


class RowError(Exception):
    """The row is none of ours, or of another version; says why."""


def print_row(entry: Entry) -> str:
    """The row of an entry that has a policy. The last four fields follow from the rest: the database searches them."""
    cached = entry.cached
    if not cached:
        raise ValueError("an entry without a policy is not stored")
    fields = {
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
    return json.dumps(fields)


def parse_row(row: str | bytes) -> Entry:
    """The entry in a row. Raises RowError."""
    try:
        return _entry(json.loads(row))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise RowError(f"not an entry: {error!a}") from error


def _entry(fields: Any) -> Entry:
    version = _count(fields["version"])
    if version != VERSION:
        raise RowError(f"version {version}, not {VERSION}")
    policy = Policy(
        Mode(fields["mode"]), _count(fields["max_age"]), tuple(MxPattern(_text(mx)) for mx in _list(fields["mx"]))
    )
    if policy.max_age > MAX_AGE_LIMIT or (not policy.mx and policy.mode.checks_hosts):
        raise ValueError("no valid policy")
    unused_at = fields["unused_at"]
    return Entry(
        CachedPolicy(policy, _text(fields["text"]), _text(fields["record_id"]), _time(fields["fetched_at"])),
        failed=tuple(parse_failed(failed) for failed in _list(fields["failed"])),
        checked_at=_time(fields["checked_at"]),
        last_used=_time(fields["last_used"]),
        unused_at=None if unused_at is None else _time(unused_at),
    )


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
    failure = Failure(Stage(fields["stage"]), _text(fields["reason"]), None if kind is None else ResultType(kind))
    return FailedFetch(_text(fields["record_id"]), max(1, _count(fields["count"])), _time(fields["at"]), failure)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!a} is no list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!a} is no text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"{value!a} is no count")
    return value


def _time(value: Any) -> float:
    if type(value) not in (int, float) or not -_MAX_TIME < value < _MAX_TIME:
        raise TypeError(f"{value!a} is no time")
    return float(value)
