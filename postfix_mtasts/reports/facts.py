"""Reads from the database what the views are made of, and single reports."""

import datetime
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, Report
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.viewing import Facts, Limits, is_hidden, ranked
from postfix_mtasts.reports.views import Day, FailureGroup, LeftOut, PolicyTotal, ReportLine, Sender, Window

MAX_GROUPS = 50_000  # Groups of failures in a window: those of most sessions. All that is known of them is in memory.
_OF_WINDOW = "r.day BETWEEN :first AND :last AND r.verified IN (1, :least) AND (:domain IS NULL OR r.domain = :domain)"

# SUM() fails if a sum has more than 63 bits, which anybody can report.
_DAYS = f"""
SELECT r.sender, r.verified, r.day, CAST(TOTAL(p.successful) AS INTEGER), CAST(TOTAL(p.failed) AS INTEGER)
FROM reports r LEFT JOIN policies p ON p.report = r.id WHERE {_OF_WINDOW} GROUP BY r.sender, r.verified, r.day
"""  # noqa: S608 - all of it is ours
_POLICIES = """
SELECT r.domain, p.type, p.mode, CAST(TOTAL(p.successful) AS INTEGER), CAST(TOTAL(p.failed) AS INTEGER)
FROM reports r JOIN policies p ON p.report = r.id
WHERE r.verified = :verified AND r.sender = :sender AND r.day BETWEEN :first AND :last
    AND (:domain IS NULL OR r.domain = :domain)
GROUP BY r.domain, p.type, p.mode ORDER BY 5 DESC, 4 DESC, 1, 2, 3 LIMIT :limit
"""
_GROUPS = f"""
SELECT k.result, k.sender, k.verified, k.domain, k.mx, k.receiving_ip, k.code, s.sessions, s.since, s.until,
    f.sending_ip, f.information
FROM (
    SELECT g.kind, CAST(TOTAL(g.sessions) AS INTEGER) AS sessions, MIN(g.day) AS since, MAX(g.day) AS until,
        MAX(g.example) AS example
    FROM kinds o CROSS JOIN groups g ON g.kind = o.id AND g.day BETWEEN :first AND :last
    WHERE o.verified IN (1, :least) AND (:domain IS NULL OR o.domain = :domain)
    GROUP BY o.id ORDER BY sessions DESC LIMIT {MAX_GROUPS}
) s JOIN kinds k ON k.id = s.kind LEFT JOIN failures f ON f.id = s.example
"""  # noqa: S608 - all of it is ours
_LINE = """
SELECT r.key, r.sender, r.verified, r.organization, r.report_id, r.start, r.[end], r.domain,
    p.type, p.mode, COALESCE(p.successful, 0), COALESCE(p.failed, 0)
FROM reports r LEFT JOIN policies p ON p.report = r.id
"""
_OF_SENDER = """
WHERE r.verified = :verified AND r.sender = :sender AND r.day BETWEEN :first AND :last
    AND (:domain IS NULL OR r.domain = :domain)
"""
_LINES = f"{_LINE} {_OF_SENDER} ORDER BY r.day DESC, r.[end] DESC, r.id DESC, p.id LIMIT :limit"
_COUNT = f"SELECT COUNT(*) FROM reports r LEFT JOIN policies p ON p.report = r.id {_OF_SENDER}"  # noqa: S608 - all of it is ours
_UNVERIFIED = """
SELECT COUNT(*) FROM reports r
WHERE r.verified = 0 AND r.day BETWEEN :first AND :last AND (:domain IS NULL OR r.domain = :domain)
"""
_REPORTS = """
SELECT r.id, r.domain, r.key, r.organization, r.report_id, r.start, r.[end], r.problems, m.name,
    m.dkim, m.signer, m.dkim_reason
FROM reports r JOIN messages m ON m.id = r.message
"""
# The verified first, and of each sender the last ones first: however many one of them sends, the others are there too.
_KEYS = """
SELECT r.key FROM reports r WHERE r.day BETWEEN :first AND :last
ORDER BY r.verified DESC,
    ROW_NUMBER() OVER (PARTITION BY r.verified, r.sender ORDER BY r.day DESC, r.[end] DESC, r.id DESC), r.id DESC
LIMIT :limit
"""
_FAILURES = """
SELECT result, sessions, mx, receiving_ip, sending_ip, code, information FROM failures WHERE policy = ? ORDER BY id
"""
_RECENT = """
SELECT r.key, r.sender, r.verified, r.organization, r.start, r.[end], r.domain,
    CAST(TOTAL(p.successful) AS INTEGER), CAST(TOTAL(p.failed) AS INTEGER)
FROM (
    SELECT * FROM reports WHERE day BETWEEN :first AND :last ORDER BY day DESC, [end] DESC, id DESC
    LIMIT :limit OFFSET :offset
) r LEFT JOIN policies p ON p.report = r.id GROUP BY r.id ORDER BY r.day DESC, r.[end] DESC, r.id DESC
"""
_OF_DOMAIN = """
SELECT COUNT(*), CAST(TOTAL(p.successful) AS INTEGER), CAST(TOTAL(p.failed) AS INTEGER)
FROM reports r JOIN policies p ON p.report = r.id
WHERE r.domain = :domain AND r.verified = 1 AND r.day BETWEEN :first AND :last
"""
_MAX_FOUND = 100  # Reports that are shown for one report-id.


def facts(
    store: Store,
    window: Window,
    domain: str | None,
    limits: Limits,
    *,
    unverified: bool,
    hidden: Collection[str] = (),
    only: str | None = None,
) -> Facts:
    """What is known of a window, of one policy domain or of all, with senders that are not verified or without.

    What is to be listed of senders is read of the first ones that are not `hidden`, or of the verified sender `only`.
    """
    span: dict[str, object] = {
        "first": window.first.isoformat(),
        "last": window.last.isoformat(),
        "domain": domain,
        "least": 0 if unverified else 1,
    }
    days = _days(store, span)
    policies, lines, counts = {}, {}, {}
    senders = [sender for sender in ranked(days) if not is_hidden(sender, hidden)]
    if only is not None:
        senders = [sender for sender in days if is_hidden(sender, {only})]
    for sender in senders[: limits.rows]:
        of_sender = span | {"sender": sender.domain or "", "verified": sender.verified}
        policies[sender] = [
            PolicyTotal(row[0] or None, *row[1:])
            for row in store.select(_POLICIES, of_sender | {"limit": limits.policies})
        ]
        lines[sender] = [_line(row) for row in store.select(_LINES, of_sender | {"limit": limits.reports})]
        (counts[sender],) = store.one(_COUNT, of_sender) or (0,)
    left_out = LeftOut(
        unverified=0 if unverified else (store.one(_UNVERIFIED, span) or (0,))[0],
        quarantined=(store.one("SELECT COUNT(*) FROM messages WHERE state = 'quarantined'") or (0,))[0],
    )
    groups = [_group(row) for row in store.select(_GROUPS, span)]
    return Facts(days, policies, groups, lines, counts, left_out, hidden)


def _days(store: Store, span: dict[str, object]) -> dict[Sender, list[Day]]:
    """The days on which each sender reported."""
    days: defaultdict[Sender, list[Day]] = defaultdict(list)
    for sender, verified, day, successful, failed in store.select(_DAYS, span):
        date = datetime.date.fromisoformat(day)
        days[Sender(sender or None, bool(verified))].append(Day(date, successful or 0, failed or 0))
    return days


@dataclass(frozen=True, slots=True)
class Recent:
    """A report in a list: what `pages` shows of it."""

    key: str
    sender: Sender
    organization: str | None
    start: datetime.datetime
    end: datetime.datetime
    domain: str | None
    successful: int
    failed: int


def recent(store: Store, window: Window, first: int, most: int) -> list[Recent]:
    """At most so many reports of a window, verified or not, the last ones first, from a number on."""
    span = {"first": window.first.isoformat(), "last": window.last.isoformat(), "offset": first, "limit": most}
    found = []
    for row in store.select(_RECENT, span):
        key, sender, verified, organization, start, end, domain, successful, failed = row
        who = Sender(sender or None, bool(verified))
        found.append(
            Recent(key, who, organization, _time(start), _time(end), domain or None, successful or 0, failed or 0)
        )
    return found


def by_domain(store: Store, window: Window, domains: Sequence[str]) -> dict[str, tuple[int, int]]:
    """How many sessions of some policy domains succeeded and failed in a window, by reports of verified senders."""
    span: dict[str, object] = {"first": window.first.isoformat(), "last": window.last.isoformat()}
    found = {}
    for domain in domains:
        row = store.one(_OF_DOMAIN, span | {"domain": domain})
        if row and row[0]:
            found[domain] = (row[1] or 0, row[2] or 0)
    return found


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored report: what it says of one policy domain, and the message that it came in."""

    key: str
    message: str  # Its name in the spool.
    report: Report
    dkim: Dkim


def stored(store: Store, name: str) -> list[Stored]:
    """The reports with a key, or with a report-id, the first ones first."""
    found = store.select(f"{_REPORTS} WHERE r.key = ?", (name,))
    found = found or store.select(f"{_REPORTS} WHERE r.report_id = ? ORDER BY r.id LIMIT {_MAX_FOUND}", (name,))
    return [_stored(store, row) for row in found]


def stored_of(store: Store, window: Window, most: int) -> Iterator[Stored]:
    """At most so many reports of a window, verified or not, one by one. If there are more, each sender has a share."""
    span = {"first": window.first.isoformat(), "last": window.last.isoformat(), "limit": most}
    for (key,) in store.select(_KEYS, span):
        yield from stored(store, key)


def _stored(store: Store, row: tuple[Any, ...]) -> Stored:
    identifier, domain, key, organization, report_id, start, end, problems, message, dkim, signer, reason = row
    policies = tuple(
        Policy(
            domain or None,
            kind,
            mode,
            successful,
            failed,
            tuple(Failure(*of) for of in store.select(_FAILURES, (policy,))),
        )
        for policy, kind, mode, successful, failed in store.select(
            "SELECT id, type, mode, successful, failed FROM policies WHERE report = ? ORDER BY id", (identifier,)
        )
    )
    report = Report(
        organization, report_id, _time(start), _time(end), policies, tuple(problems.split("\n") if problems else ())
    )
    return Stored(key, message, report, Dkim(DkimState(dkim), signer, reason))


def _line(row: tuple[Any, ...]) -> ReportLine:
    key, sender, verified, organization, report_id, start, end, domain, *rest = row
    who = Sender(sender or None, bool(verified))
    return ReportLine(key, who, organization, report_id, _time(start), _time(end), domain or None, *rest)


def _group(row: tuple[Any, ...]) -> FailureGroup:
    result, sender, verified, domain, mx, receiving_ip, code, sessions, since, until, sending_ip, information = row
    return FailureGroup(
        result=result or None,
        sender=Sender(sender or None, bool(verified)),
        domain=domain or None,
        mx=mx or None,
        receiving_ip=receiving_ip or None,
        code=code or None,
        sessions=sessions,
        since=datetime.date.fromisoformat(since),
        last=datetime.date.fromisoformat(until),
        sending_ip=sending_ip,
        information=information,
    )


def _time(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
