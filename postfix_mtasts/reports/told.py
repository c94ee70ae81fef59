"""Reads from the database what alerts are decided on, and keeps there what has been told."""

import datetime
from collections import defaultdict
from collections.abc import Mapping

from postfix_mtasts.reports.alerts import HISTORY, LOOK_BACK, REGULAR, Facts, Failures, Kind, Subject, Told
from postfix_mtasts.reports.store import Store

# Each bound is on what senders choose, and keeps one of them from taking the place of the others.
_MAX_OF_SENDER = 300  # Result types at domains that one sender reports.
_MAX_FAILURES = 10_000  # The same of all senders.
_MAX_DAYS = 200_000  # Days of senders at domains with failures.
_MAX_REGULAR = 1000  # Senders that report regularly.

_FAILURES = f"""
SELECT sender, domain, result, CAST(sessions AS INTEGER), since, last, host, hosts FROM (
    SELECT k.sender, k.domain, k.result, TOTAL(g.sessions) AS sessions, MIN(g.day) AS since, MAX(g.day) AS last,
        MAX(k.mx) AS host, COUNT(DISTINCT NULLIF(k.mx, '')) AS hosts,
        ROW_NUMBER() OVER (PARTITION BY k.sender ORDER BY TOTAL(g.sessions) DESC, k.domain, k.result) AS place
    FROM kinds k CROSS JOIN groups g ON g.kind = k.id AND g.day BETWEEN :first AND :last
    WHERE k.verified = 1 GROUP BY k.sender, k.domain, k.result
) WHERE place <= {_MAX_OF_SENDER} ORDER BY place, sender LIMIT {_MAX_FAILURES}
"""  # noqa: S608 - all of it is ours
_SESSIONS = f"""
SELECT r.sender, r.domain, r.day, CAST(TOTAL(p.successful) + TOTAL(p.failed) AS INTEGER)
FROM reports r LEFT JOIN policies p ON p.report = r.id
WHERE r.verified = 1 AND r.day BETWEEN :first AND :last
    AND EXISTS (SELECT 1 FROM kinds k WHERE k.verified = 1 AND k.sender = r.sender AND k.domain = r.domain)
GROUP BY r.sender, r.domain, r.day LIMIT {_MAX_DAYS}
"""  # noqa: S608 - all of it is ours
_REPORTED = f"""
SELECT sender, GROUP_CONCAT(day) FROM (
    SELECT DISTINCT sender, day FROM reports WHERE verified = 1 AND day BETWEEN :first AND :last
) GROUP BY sender HAVING COUNT(*) >= {REGULAR} ORDER BY COUNT(*) DESC, sender LIMIT {_MAX_REGULAR}
"""  # noqa: S608 - all of it is ours


def known(store: Store, today: datetime.date) -> Facts:
    """What verified senders reported before today. Raises StoreError."""
    span = _days_before(today, LOOK_BACK)
    failures = [
        Failures(sender, domain, result, sessions, _date(since), _date(last), host, hosts)
        for sender, domain, result, sessions, since, last, host, hosts in store.select(_FAILURES, span)
    ]
    sessions: defaultdict[tuple[str, str], dict[datetime.date, int]] = defaultdict(dict)
    for sender, domain, day, count in store.select(_SESSIONS, span):
        sessions[sender, domain][_date(day)] = count
    reported = {
        sender: frozenset(map(_date, days.split(",")))
        for sender, days in store.select(_REPORTED, _days_before(today, HISTORY))
    }
    return Facts(failures, sessions, reported)


def told(store: Store) -> dict[Subject, Told]:
    """What has been told and is not over. Raises StoreError."""
    rows = store.select("SELECT kind, name, result, since, still FROM told")
    return {
        Subject(Kind(kind), name, result): Told(_date(since), bool(still)) for kind, name, result, since, still in rows
    }


def keep(store: Store, now_told: Mapping[Subject, Told]) -> None:
    """Keep what has been told, in place of what was kept before. Raises StoreError."""
    rows = [
        (subject.kind.value, subject.name, subject.result, one.since.isoformat(), one.still)
        for subject, one in now_told.items()
    ]
    with store.transaction():
        store.execute("DELETE FROM told")
        store.execute_many("INSERT INTO told VALUES (?, ?, ?, ?, ?)", rows)


def _days_before(today: datetime.date, days: int) -> dict[str, object]:
    day = datetime.timedelta(days=1)
    return {"first": (today - days * day).isoformat(), "last": (today - day).isoformat()}


def _date(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)
