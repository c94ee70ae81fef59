"""Makes the two views of the facts that the store sums. Rules, without I/O."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from postfix_mtasts.reports.meaning import Severity, meaning
from postfix_mtasts.reports.views import (
    Day,
    FailureGroup,
    LeftOut,
    PolicyTotal,
    ReportLine,
    Result,
    ResultsView,
    Sender,
    Source,
    SourcesView,
    Successes,
    Window,
)
from postfix_mtasts.sts.domain import HostnameError, hostname


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

    Of the senders that are listed, `lines` has as many policies of reports as are to be listed, the last ones first,
    and `counts` how many there are. The verified senders in `hidden` are not listed.
    """

    days: Mapping[Sender, Sequence[Day]]
    policies: Mapping[Sender, Sequence[PolicyTotal]]
    failures: Sequence[FailureGroup]
    lines: Mapping[Sender, Sequence[ReportLine]]
    counts: Mapping[Sender, int]
    left_out: LeftOut
    hidden: Collection[str] = ()


def ranked(days: Mapping[Sender, Sequence[Day]]) -> list[Sender]:
    """The senders: the verified first, then those with most failed sessions, then with most sessions."""
    failed = {sender: sum(day.failed for day in of_sender) for sender, of_sender in days.items()}
    successful = {sender: sum(day.successful for day in of_sender) for sender, of_sender in days.items()}
    return sorted(
        days, key=lambda sender: (not sender.verified, -failed[sender], -successful[sender], sender.domain or "")
    )


def is_hidden(sender: Sender, hidden: Collection[str]) -> bool:
    """Whether a sender is among those that are hidden. Who is not verified may name anybody."""
    return sender.verified and sender.domain in hidden


def by_source(window: Window, domain: str | None, facts: Facts, limits: Limits = SHORT) -> SourcesView:
    """The view by source."""
    failures: defaultdict[Sender, list[FailureGroup]] = defaultdict(list)
    for group in facts.failures:
        failures[group.sender].append(group)
    senders = [sender for sender in ranked(facts.days) if sender in facts.lines][: limits.rows]
    sources = tuple(_source(window, sender, facts, failures[sender], limits) for sender in senders)
    hidden = {sender for sender in facts.days if is_hidden(sender, facts.hidden)}
    more = len(facts.days.keys() - hidden - {*senders})
    names = tuple(sorted(sender.domain or "" for sender in hidden))
    return SourcesView(window, domain, sources, more, facts.left_out, names)


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
    days = _together(window, facts)
    failed = sum(day.failed for day in days)
    return ResultsView(window, domain, days, successes, failed, listed, len(results) - len(listed), facts.left_out)


def _together(window: Window, facts: Facts) -> tuple[Day, ...]:
    """The days of all sources together."""
    sums = {date: [0, 0] for date in window.days()}
    for days in facts.days.values():
        for day in days:
            sums[day.date][0] += day.successful
            sums[day.date][1] += day.failed
    return tuple(Day(date, successful, failed) for date, (successful, failed) in sums.items())


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
    domains = _ranked((group.domain, group.sessions) for group in groups if is_hostname(group.domain))
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
    return sorted(groups, key=_order)


def _order(group: FailureGroup) -> tuple[int | str | bool, ...]:
    sender = group.sender
    names = (group.result, sender.domain, group.domain, group.mx, group.receiving_ip, group.code)
    return (-group.sessions, not sender.verified, *(name or "" for name in names))


def _ranked(sessions: Iterable[tuple[str | None, int]]) -> tuple[str, ...]:
    """The names, that of most sessions first. None is left out."""
    sums: defaultdict[str, int] = defaultdict(int)
    for name, count in sessions:
        if name is not None:
            sums[name] += count
    return tuple(sorted(sums, key=lambda name: (-sums[name], name)))


def is_hostname(domain: str | None) -> bool:
    """Whether it can stand in a command. Of what a sender wrote, nothing else may."""
    try:
        return domain is not None and hostname(domain) == domain
    except HostnameError:
        return False
