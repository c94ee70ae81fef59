"""The two views of what was reported, by the source that reported it and by its result, as values.

A report counts for one day in UTC. Sessions are summed from `summary`, except those of a result type, which only the
details of a report have: details may overlap, so no total is made of them (RFC 8460, 4.4).
"""

import datetime
from dataclasses import dataclass

from postfix_mtasts.reports.meaning import Meaning, Severity

DAYS = 14  # Of a window, unless another number is asked for.
MAX_DAYS = 400  # Of the longest window that may be asked for.
WINDOWS = (2, DAYS, 90)  # Days, of pages. The pages of reports go back as far as the longest.
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
    hidden: tuple[str, ...] = ()  # Sources that reported too, and are hidden until they change.


@dataclass(frozen=True, slots=True)
class ResultsView:
    """The view by result. `failed` is the number of sessions that failed, of which `results` are the kinds."""

    window: Window
    domain: str | None
    days: tuple[Day, ...]  # All days of the window, of all sources together.
    successes: Successes
    failed: int
    results: tuple[Result, ...]  # The severest first, then those with most sessions.
    more: int  # Result types that are not listed: senders may make up any number.
    left_out: LeftOut
