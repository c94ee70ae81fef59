"""What the TLS reports that are taken in here (RFC 8460) say of a published domain, from the database of `reports`.

Only what a verified sender says counts, and only of days after the one on which the present record was announced: a
report on that day may be about the policy before.
"""

import datetime
from pathlib import Path

from postfix_mtasts import config
from postfix_mtasts.publish.ready import WITHOUT_FAILURE_FOR, Facts
from postfix_mtasts.publish.state import DAY, State
from postfix_mtasts.query.output import QueryError, Status
from postfix_mtasts.reports.meaning import RESULTS, Severity, meaning
from postfix_mtasts.reports.store import Store, StoreError

_SPAN = "BETWEEN :first AND :last"
# A sender that found no policy says nothing of what the policy would do.
_SEEN = f"""
SELECT COUNT(DISTINCT r.sender), COUNT(DISTINCT r.day), TOTAL(p.successful) + TOTAL(p.failed)
FROM reports r JOIN policies p ON p.report = r.id
WHERE r.domain = :domain AND r.verified = 1 AND r.day {_SPAN} AND p.type = 'sts'
"""  # noqa: S608 - all of it is ours


def _listed(severity: Severity) -> str:
    return ", ".join(f"'{result}'" for result in RESULTS if meaning(result).severity is severity)


# Of each kind, the last day is found without its groups being read.
_FAILED = f"""
SELECT MAX(last), COUNT(DISTINCT CASE WHEN last >= :week AND result IN ({_listed(Severity.ERROR)}) THEN sender END)
FROM (
    SELECT k.sender, k.result, (SELECT MAX(g.day) FROM groups g WHERE g.kind = k.id AND g.day {_SPAN}) AS last
    FROM kinds k WHERE k.domain = :domain AND k.verified = 1 AND k.result NOT IN ({_listed(Severity.NOTE)})
)
"""  # noqa: S608 - all of it is ours


def told(settings: config.Reports, state: State, now: float) -> Facts | None:
    """What reports say of a domain; None if no reports are taken in here. Raises QueryError."""
    path = Path(settings.path)
    if not _exists(path):
        return None
    since = now if state.record is None else state.clock.date(state.announced_at)
    span: dict[str, object] = {
        "domain": state.domain.name,
        "first": _day(since + DAY),
        "last": _day(now),
        "week": _day(now - WITHOUT_FAILURE_FOR),
    }
    try:
        with Store(path) as store:
            store.open_to_read()
            with store.snapshot():
                reporters, days, sessions = store.one(_SEEN, span) or (0, 0, 0.0)
                last, failing = store.one(_FAILED, span) or (None, 0)
    except StoreError as error:
        raise QueryError(f"TLS reports: {error}", error.hint, Status.UNAVAILABLE) from error
    return Facts(reporters, days, int(sessions), None if last is None else _end(last), failing)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # It may be there, where we may not look. To open it says why.
        return True


def _day(time: float) -> str:
    return datetime.datetime.fromtimestamp(time, datetime.UTC).date().isoformat()


def _end(day: str) -> float:
    """The end of a day, as a time."""
    midnight = datetime.datetime.combine(datetime.date.fromisoformat(day), datetime.time(), datetime.UTC)
    return midnight.timestamp() + DAY
