"""Sources that an administrator has seen enough of. They are left out of the view by source until they change.

A source changes when it reports a policy or a result type that was not among those of the last SPAN days before it was
hidden, or when markedly more sessions fail: on a day, more than MORE times as many as on the worst day before, and at
least LEAST more. Then it is not hidden any more. Nothing else that is stored depends on it: its sessions are counted.
"""

import datetime
import json
from dataclasses import dataclass
from typing import Any

from postfix_mtasts.reports.report import Report
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.views import WINDOWS

SPAN = max(WINDOWS)  # Days. Of mails that are taken in again, none is much older.
MORE = 2  # Times the failed sessions of the worst day before.
LEAST = 10  # Failed sessions more than on that day.
MAX_HIDDEN = 200  # Sources. A page names them.
MAX_KNOWN = 1000  # Policies, and result types, of a source: it may make up any number. What is new beyond is a change.

_SINCE = "WHERE r.verified = 1 AND r.sender = :sender AND r.day >= :first"
_POLICIES = f"""
SELECT DISTINCT r.domain, COALESCE(p.type, ''), COALESCE(p.mode, '')
FROM reports r JOIN policies p ON p.report = r.id {_SINCE} ORDER BY 1, 2, 3 LIMIT {MAX_KNOWN}
"""  # noqa: S608 - all of it is ours
_RESULTS = f"""
SELECT DISTINCT k.domain, k.result FROM kinds k
WHERE k.verified = 1 AND k.sender = :sender AND EXISTS (SELECT 1 FROM groups g WHERE g.kind = k.id AND g.day >= :first)
ORDER BY 1, 2 LIMIT {MAX_KNOWN}
"""  # noqa: S608 - all of it is ours
_WORST = f"""
SELECT CAST(MAX(failed) AS INTEGER) FROM (
    SELECT TOTAL(p.failed) AS failed FROM reports r JOIN policies p ON p.report = r.id {_SINCE} GROUP BY r.day
)
"""  # noqa: S608 - all of it is ours
_OF_DAY = """
SELECT CAST(TOTAL(p.failed) AS INTEGER) FROM reports r JOIN policies p ON p.report = r.id
WHERE r.verified = 1 AND r.sender = ? AND r.day = ?
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What a source reports: policies by domain, type and mode; result types by domain; failed sessions of a day."""

    policies: frozenset[tuple[str, str, str]]
    results: frozenset[tuple[str, str]]
    failed: int


def has_changed(before: Look, now: Look) -> bool:
    """Whether a source is to be seen again."""
    if not (now.policies <= before.policies and now.results <= before.results):
        return True
    return now.failed > MORE * before.failed and now.failed >= before.failed + LEAST


def look_of(report: Report, failed: int) -> Look:
    """What a report says, and how many sessions failed on its day."""
    results = {(policy.domain or "", failure.result or "") for policy in report.policies for failure in policy.failures}
    # As where groups of failures are written.
    results |= {(policy.domain or "", "") for policy in report.policies if policy.failed and not policy.failures}
    policies = {(policy.domain or "", policy.type or "", policy.mode or "") for policy in report.policies}
    return Look(frozenset(policies), frozenset(results), failed)


def is_known(store: Store, source: str) -> bool:
    """Whether there is a verified report of a source. Raises StoreError."""
    return store.one("SELECT 1 FROM reports WHERE verified = 1 AND sender = ?", (source,)) is not None


def hidden(store: Store) -> frozenset[str]:
    """The sources that are hidden. Raises StoreError."""
    if not store.one("SELECT 1 FROM sqlite_master WHERE name = 'hidden'"):  # Nobody has written since the upgrade.
        return frozenset()
    return frozenset(source for (source,) in store.select("SELECT sender FROM hidden"))


def hide(store: Store, source: str, now: datetime.datetime) -> bool:
    """Hide a source as it is now, within a transaction. Return whether there was room. Raises StoreError."""
    known = hidden(store)
    if source not in known and len(known) >= MAX_HIDDEN:
        return False
    span: dict[str, object] = {"sender": source, "first": (now.date() - datetime.timedelta(days=SPAN)).isoformat()}
    (failed,) = store.one(_WORST, span) or (None,)
    look = {"policies": store.select(_POLICIES, span), "results": store.select(_RESULTS, span), "failed": failed or 0}
    values = (source, int(now.timestamp()), json.dumps(look))
    store.execute("INSERT OR REPLACE INTO hidden VALUES (?, ?, ?)", values)
    return True


def unhide(store: Store, source: str) -> None:
    """Show a source again. Raises StoreError."""
    store.execute("DELETE FROM hidden WHERE sender = ?", (source,))


def reported(store: Store, source: str, report: Report, day: str) -> None:
    """A verified report on a day has been stored: show its source again if that has changed. Raises StoreError."""
    found = store.one("SELECT look FROM hidden WHERE sender = ?", (source,))
    if not found:
        return
    (failed,) = store.one(_OF_DAY, (source, day)) or (0,)
    if has_changed(_look(json.loads(found[0])), look_of(report, failed)):
        unhide(store, source)


def _look(kept: dict[str, Any]) -> Look:
    policies = frozenset((domain, kind, mode) for domain, kind, mode in kept["policies"])
    return Look(policies, frozenset((domain, result) for domain, result in kept["results"]), kept["failed"])
