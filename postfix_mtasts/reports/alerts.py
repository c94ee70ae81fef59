"""Decides what an administrator is told of, once each: what is new, still there after a week, and over. Rules, no I/O.

There are two kinds of trouble: failures of a result type at a domain, and the silence of a source that reported daily.
Days are in UTC. A report on a day comes after its end, so nothing is concluded from today, and no silence from
yesterday. Only reports of verified senders are looked at: whoever calls this leaves out the others.
"""

import datetime
import enum
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from postfix_mtasts.reports.meaning import RESULTS, Severity, meaning

LOOK_BACK = 14  # Days in which failures are looked for. What began earlier and lasts has been told of.
HISTORY = 44  # Days in which the reports of a source are looked at.
REGULAR = 12  # Days with reports in a source's last fortnight that make it one that reports daily.
OTHER = "other"  # Stands for all result types that are not in RFC 8460: senders may make up any number.
MAX_TOLD = 20_000  # Troubles that are remembered. Of more, a new one is not told.
_FORTNIGHT = 14
_RECENT = 3  # Days without a failure after which it may be over.
_STILL = 7  # Days after which it is told again.
_SILENT = 3  # Reports that are due and missing.
_DUE = 2  # Days after which the report on a day has come.
_FEW, _MANY = 0.1, 0.5  # Shares of sessions below which failures are a note, and from which on they are an error.


class Kind(enum.Enum):
    """A kind of trouble."""

    FAILURES = "failures"
    SILENCE = "silence"


class News(enum.Enum):
    """What is told of a trouble."""

    NEW = "new"
    STILL = "still"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Subject:
    """A trouble: failures of a result type at a policy domain, or the silence of the source `name`.

    The result is OTHER for a type that is not in RFC 8460, and empty for failures without a type, and for silence. The
    name is empty for a report that names no domain.
    """

    kind: Kind
    name: str
    result: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """When a trouble was told of first, and whether it was told of again after a week."""

    since: datetime.date
    still: bool = False


@dataclass(frozen=True, slots=True)
class Failures:
    """What a source reported of a result type at a domain, within LOOK_BACK days."""

    sender: str
    domain: str
    result: str  # As it was reported; empty if it was not said.
    sessions: int
    since: datetime.date
    last: datetime.date
    host: str = ""  # One of the MX hosts, or empty if none is named.
    hosts: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """What the store knows. `sessions` are those of a source at a domain by day, `reported` the days of a source."""

    failures: Sequence[Failures]
    sessions: Mapping[tuple[str, str], Mapping[datetime.date, int]]
    reported: Mapping[str, Collection[datetime.date]]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell. Without `since` and `last`, nothing was reported of the subject within LOOK_BACK days."""

    news: News
    subject: Subject
    severity: Severity
    since: datetime.date | None = None  # The first and the last day of failures; or `last` alone, of reports.
    last: datetime.date | None = None
    sessions: int = 0
    of: int = 0  # All sessions from `since` to `last` of the sources that reported the failures.
    sources: tuple[str, ...] = ()
    host: str = ""
    hosts: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be told, the worst first, and what has been told when that is done."""

    notices: tuple[Notice, ...]
    told: Mapping[Subject, Told]


def decide(facts: Facts, told: Mapping[Subject, Told], today: datetime.date) -> Decision:
    """What is to be told today, after what has been told."""
    after = dict(told)
    notices = [*_failures(facts, told, after, today), *_silence(facts, told, after, today)]
    order = list(News)
    notices.sort(
        key=lambda notice: (
            order.index(notice.news),
            -notice.severity,
            -len(notice.sources),
            -notice.sessions,
            notice.subject.result,
            notice.subject.name,
        )
    )
    return Decision(tuple(notices), after)


def _failures(
    facts: Facts, told: Mapping[Subject, Told], after: dict[Subject, Told], today: datetime.date
) -> Iterable[Notice]:
    grouped: defaultdict[Subject, list[Failures]] = defaultdict(list)
    for one in facts.failures:
        result = one.result if one.result in RESULTS else OTHER if one.result else ""
        if meaning(result or None).severity is not Severity.NOTE:
            grouped[Subject(Kind.FAILURES, one.domain, result)].append(one)
    for subject, of_it in grouped.items():
        last = max(one.last for one in of_it)
        if (today - last).days <= _RECENT:
            news = _repeat(subject, after, today)
        else:
            news = News.OVER if subject in told and _is_seen_without(of_it, last, facts) else None
        if news:
            yield _notice(news, subject, of_it, facts)
        if news is News.OVER:
            del after[subject]
    for subject in told:
        if subject.kind is Kind.FAILURES and subject not in grouped:
            del after[subject]
            yield Notice(News.OVER, subject, Severity.NOTE)


def _is_seen_without(failures: Iterable[Failures], last: datetime.date, facts: Facts) -> bool:
    """Whether a source that reported failures has reported sessions on a later day: silence proves nothing."""
    return any(
        sessions and day > last
        for one in failures
        for day, sessions in facts.sessions.get((one.sender, one.domain), {}).items()
    )


def _silence(
    facts: Facts, told: Mapping[Subject, Told], after: dict[Subject, Told], today: datetime.date
) -> Iterable[Notice]:
    for source, days in facts.reported.items():
        subject, last = Subject(Kind.SILENCE, source), max(days)
        silent = (today - last).days - _DUE
        if silent < _SILENT:
            if after.pop(subject, None):
                yield Notice(News.OVER, subject, Severity.NOTE, last=last)
            continue
        is_daily = sum((last - day).days < _FORTNIGHT for day in days) >= REGULAR
        # What has been silent for longer, when nobody was told, is the past.
        is_news = subject in told or (is_daily and silent <= _FORTNIGHT)
        news = _repeat(subject, after, today) if is_news else None
        if news:
            yield Notice(news, subject, Severity.WARNING, last=last)
    for subject in told:
        if subject.kind is Kind.SILENCE and subject.name not in facts.reported:
            del after[subject]  # It is forgotten: whether it ever reports again says nothing about us.


def _repeat(subject: Subject, after: dict[Subject, Told], today: datetime.date) -> News | None:
    """What is told of a trouble that is there, and note it."""
    before = after.get(subject)
    if not before:
        if len(after) >= MAX_TOLD:
            return None
        after[subject] = Told(today)
        return News.NEW
    if before.still or (today - before.since).days < _STILL:
        return None
    after[subject] = Told(before.since, still=True)
    return News.STILL


def _notice(news: News, subject: Subject, failures: Sequence[Failures], facts: Facts) -> Notice:
    since, last = min(one.since for one in failures), max(one.last for one in failures)
    sources = sorted(failures, key=lambda one: (-one.sessions, one.sender))
    senders = tuple(dict.fromkeys(one.sender for one in sources))
    sessions = sum(one.sessions for one in failures)
    of = sum(
        sessions
        for sender in senders
        for day, sessions in facts.sessions.get((sender, subject.name), {}).items()
        if since <= day <= last
    )
    named = [one for one in sources if one.host]
    return Notice(
        news=news,
        subject=subject,
        severity=Severity.NOTE if news is News.OVER else _severity(subject.result, sessions, of),
        since=since,
        last=last,
        sessions=sessions,
        of=of,
        sources=senders,
        host=named[0].host if named else "",
        hosts=max((one.hosts for one in named), default=0),
    )


def _severity(result: str, sessions: int, of: int) -> Severity:
    """By the share of sessions, but not more than the result type means."""
    share = sessions / of if of else 1.0
    by_share = Severity.NOTE if share < _FEW else Severity.WARNING if share < _MANY else Severity.ERROR
    return min(by_share, meaning(result or None).severity)
