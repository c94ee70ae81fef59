"""The two views of what was reported: by the source that reported it, and by its result. Values and rules, without I/O.

The store sums the facts, and the rules here put them together. A report counts for one day in UTC. Sessions are summed
from `summary`, except those of a result type, which only the details of a report have: details may overlap, so no total
is made of them (RFC 8460, 4.4).
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from postfix_mtasts.reports.meaning import Meaning, Severity, meaning
from postfix_mtasts.sts.domain import HostnameError, hostname

DAYS = 14  # Of a window, unless another number is asked for.
MAX_DAYS = 400
_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """Days in UTC, both included."""

    first: datetime.date
    last: datetime.date

    def days(self) -> tuple[datetime.date, ...]:
        """All days, the first one first."""
        return tuple(self.first + number * _DAY for number in range((self.last - self.first).days + 1))


def window(today: datetime.date, days: int = DAYS) -> Window:
    """The last `days` days before today. Reports on a day come after its end, so a window ends a day back."""
    return Window(today - days * _DAY, today - _DAY)


def day_of(start: datetime.datetime, end: datetime.datetime) -> datetime.date:
    """The day in UTC for which a report counts: that of the middle of its time.

    Senders that begin their day at midnight of their own time mean the day of which they report the larger part.
    """
    return (start + max(end - start, datetime.timedelta()) / 2).date()


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent reports: the domain of a valid DKIM signature.

    If the sender is not verified, it is the domain of a signature that does not count, or None.
    """

    domain: str | None
    verified: bool


@dataclass(frozen=True, slots=True)
class Day:
    """How many sessions of a day succeeded and failed."""

    date: datetime.date
    successful: int
    failed: int


@dataclass(frozen=True, slots=True)
class PolicyTotal:
    """The sessions of a source under one kind of policy."""

    domain: str | None
    type: str | None
    mode: str | None
    successful: int
    failed: int


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures that differ in nothing but the sending IP address and the explanation."""

    result: str | None  # None: the report gives no type for these failures.
    sender: Sender
    domain: str | None  # The policy domain.
    mx: str | None
    receiving_ip: str | None
    code: str | None
    sessions: int
    since: datetime.date  # The first and the last day in the window.
    last: datetime.date
    sending_ip: str | None  # Examples: of the last day.
    information: str | None


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One policy of a stored report. `key` names the report in `show` and in addresses of pages: 20 hex digits.

    A report about several policy domains is stored as several, each with a key of its own.
    """

    key: str
    sender: Sender
    organization: str | None
    report_id: str | None
    start: datetime.datetime
    end: datetime.datetime
    domain: str | None
    type: str | None
    mode: str | None
    successful: int
    failed: int


@dataclass(frozen=True, slots=True)
class Source:
    """A row of the view by source."""

    sender: Sender
    organization: str | None  # The name in the last report: free text of the sender.
    successful: int
    failed: int
    last_report: datetime.datetime  # The end of the time of the last report in the window.
    days: tuple[Day, ...]  # All days of the window.
    worst: str | None  # A result type. None if nothing failed, or if no report gives a type.
    severity: Severity  # Of `worst`; NOTE if nothing failed.
    policies: tuple[PolicyTotal, ...]  # Those with most failed sessions first.
    failures: tuple[FailureGroup, ...]  # Those with most sessions first.
    reports: tuple[ReportLine, ...]  # The last ones first.
    more_failures: int  # Groups, and policies of reports, that are not listed.
    more_reports: int

    @property
    def sessions(self) -> int:
        """All sessions."""
        return self.successful + self.failed

    @property
    def share(self) -> float:
        """The share of sessions that failed, from 0 to 1."""
        return self.failed / self.sessions if self.sessions else 0.0


@dataclass(frozen=True, slots=True)
class Successes:
    """The first row of the view by result."""

    sessions: int
    sources: int  # That had any.
    since: datetime.date | None  # The first day with any in the window.


@dataclass(frozen=True, slots=True)
class Result:
    """A row of the view by result."""

    result: str | None  # None: failures for which reports give no type.
    sessions: int
    sources: int
    mx: tuple[str, ...]  # The MX hosts affected, that of most sessions first.
    since: datetime.date  # The first and the last day in the window.
    last: datetime.date
    failures: tuple[FailureGroup, ...]  # Those with most sessions first.
    more_failures: int  # Groups that are not listed.
    meaning: Meaning
    command: str  # Checks the domain with most failures. Empty if reports name none.
    more_mx: int = 0  # MX hosts that are not listed.


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a view does not count: reports whose sender is not verified, and mails in quarantine."""

    unverified: int  # Reports in the window. 0 if they are counted.
    quarantined: int  # Mails, of any time.


@dataclass(frozen=True, slots=True)
class SourcesView:
    """The view by source. `domain` is the policy domain that was asked for, or None for all."""

    window: Window
    domain: str | None
    sources: tuple[Source, ...]  # The verified first, then those with most failed sessions, then most sessions.
    more: int  # Sources that are not listed.
    left_out: LeftOut


@dataclass(frozen=True, slots=True)
class ResultsView:
    """The view by result. `failed` is the number of sessions that failed, of which `results` are the kinds."""

    window: Window
    domain: str | None
    successes: Successes
    failed: int
    results: tuple[Result, ...]  # The severest first, then those with most sessions.
    more: int  # Result types that are not listed: senders may make up any number.
    left_out: LeftOut


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a view lists."""

    rows: int  # Sources, or result types.
    failures: int  # Groups of failures in a row.
    reports: int  # Policies of reports in a row.
    policies: int
    mx: int


SHORT = Limits(rows=50, failures=20, reports=20, policies=20, mx=20)
LONG = Limits(rows=1000, failures=1000, reports=1000, policies=1000, mx=1000)  # With --all.


@dataclass(frozen=True, slots=True)
class Facts:
    """What the store knows of a window: sums by day, by policy, and groups of failures.

    Of the senders that are listed, which are the first in `ranked`, `lines` has as many policies of reports as are to
    be listed, the last ones first, and `counts` how many there are.
    """

    days: Mapping[Sender, Sequence[Day]]
    policies: Mapping[Sender, Sequence[PolicyTotal]]
    failures: Sequence[FailureGroup]
    lines: Mapping[Sender, Sequence[ReportLine]]
    counts: Mapping[Sender, int]
    left_out: LeftOut


def ranked(days: Mapping[Sender, Sequence[Day]]) -> list[Sender]:
    """The senders: the verified first, then those with most failed sessions, then with most sessions."""
    failed = {sender: sum(day.failed for day in of_sender) for sender, of_sender in days.items()}
    successful = {sender: sum(day.successful for day in of_sender) for sender, of_sender in days.items()}
    return sorted(
        days, key=lambda sender: (not sender.verified, -failed[sender], -successful[sender], sender.domain or "")
    )


def by_source(window: Window, domain: str | None, facts: Facts, limits: Limits = SHORT) -> SourcesView:
    """The view by source."""
    failures: defaultdict[Sender, list[FailureGroup]] = defaultdict(list)
    for group in facts.failures:
        failures[group.sender].append(group)
    senders = ranked(facts.days)
    sources = tuple(_source(window, sender, facts, failures[sender], limits) for sender in senders[: limits.rows])
    return SourcesView(window, domain, sources, len(senders) - len(sources), facts.left_out)


def by_result(window: Window, domain: str | None, facts: Facts, limits: Limits = SHORT) -> ResultsView:
    """The view by result."""
    groups: defaultdict[str | None, list[FailureGroup]] = defaultdict(list)
    for group in facts.failures:
        groups[group.result].append(group)
    results = sorted(
        (_result(result, of_it, limits) for result, of_it in groups.items()),
        key=lambda result: (-result.meaning.severity, -result.sessions, result.result or ""),
    )
    listed = tuple(results[: limits.rows])
    successful = {sender: [day for day in days if day.successful] for sender, days in facts.days.items()}
    successes = Successes(
        sessions=sum(day.successful for days in successful.values() for day in days),
        sources=sum(map(bool, successful.values())),
        since=min((day.date for days in successful.values() for day in days), default=None),
    )
    failed = sum(day.failed for days in facts.days.values() for day in days)
    return ResultsView(window, domain, successes, failed, listed, len(results) - len(listed), facts.left_out)


def _source(window: Window, sender: Sender, facts: Facts, groups: Sequence[FailureGroup], limits: Limits) -> Source:
    known = {day.date: day for day in facts.days[sender]}
    lines = facts.lines[sender][: limits.reports]
    failures = _most_first(groups)
    worst = max(failures, key=lambda group: meaning(group.result, group.code).severity, default=None)
    return Source(
        sender=sender,
        organization=lines[0].organization,
        successful=sum(day.successful for day in known.values()),
        failed=sum(day.failed for day in known.values()),
        last_report=lines[0].end,
        days=tuple(known.get(date, Day(date, 0, 0)) for date in window.days()),
        worst=worst.result if worst else None,
        severity=meaning(worst.result, worst.code).severity if worst else Severity.NOTE,
        policies=tuple(facts.policies[sender][: limits.policies]),
        failures=tuple(failures[: limits.failures]),
        reports=tuple(lines),
        more_failures=len(failures[limits.failures :]),
        more_reports=facts.counts[sender] - len(lines),
    )


def _result(result: str | None, groups: Sequence[FailureGroup], limits: Limits) -> Result:
    failures = _most_first(groups)
    codes = {group.code for group in groups}
    mx = _ranked((group.mx, group.sessions) for group in groups)
    domains = _ranked((group.domain, group.sessions) for group in groups if _is_hostname(group.domain))
    return Result(
        result=result,
        sessions=sum(group.sessions for group in groups),
        sources=len({group.sender for group in groups}),
        mx=mx[: limits.mx],
        since=min(group.since for group in groups),
        last=max(group.last for group in groups),
        failures=tuple(failures[: limits.failures]),
        more_failures=len(failures[limits.failures :]),
        meaning=meaning(result, codes.pop() if len(codes) == 1 else None),
        command=f"postfix-mtasts-query --probe {domains[0]}" if domains else "",
        more_mx=len(mx[limits.mx :]),
    )


def _most_first(groups: Iterable[FailureGroup]) -> list[FailureGroup]:
    return sorted(groups, key=lambda group: (-group.sessions, str(group)))


def _ranked(sessions: Iterable[tuple[str | None, int]]) -> tuple[str, ...]:
    """The names, that of most sessions first. None is left out."""
    sums: defaultdict[str, int] = defaultdict(int)
    for name, count in sessions:
        if name is not None:
            sums[name] += count
    return tuple(sorted(sums, key=lambda name: (-sums[name], name)))


def _is_hostname(domain: str | None) -> bool:
    """Whether it can stand in a command. Of what a sender wrote, nothing else may."""
    try:
        return domain is not None and hostname(domain) == domain
    except HostnameError:
        return False
