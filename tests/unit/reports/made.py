"""Made reports of 90 days, the same each time, and the facts that a store would find in them."""

import datetime
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

from postfix_mtasts.reports import pages
from postfix_mtasts.reports.facts import Stored
from postfix_mtasts.reports.pages import LIMITS, Views, sender_of
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, Report
from postfix_mtasts.reports.viewing import Facts
from postfix_mtasts.reports.views import (
    Day,
    FailureGroup,
    LeftOut,
    PolicyTotal,
    ReportLine,
    Sender,
    Window,
    day_of,
    window,
)

TODAY = datetime.date(2026, 3, 10)
NOW = datetime.datetime(2026, 3, 10, 6, 12, tzinfo=datetime.UTC)
DOMAIN = "example.com"
_ORGANIZATIONS = {
    "google.com": ("Google Inc.", 3100),
    "microsoft.com": ("Microsoft Corporation", 1900),
    "comcast.net": ("Comcast", 240),
    "mail.de": ("mail.de GmbH", 130),
    "posteo.example": ("Posteo", 60),
}


def key(*words: object) -> str:
    """A key as the store makes them."""
    return hashlib.sha256(repr(words).encode()).hexdigest()[:20]


def verified(domain: str) -> Dkim:
    return Dkim(DkimState.VERIFIED, domain)


def stored(name: str, report: Report, dkim: Dkim) -> Stored:
    """A report with this key."""
    return Stored(name, "", report, dkim)


def report(day: datetime.date, organization: str | None, *policies: Policy, problems: tuple[str, ...] = ()) -> Report:
    start = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
    end = start + datetime.timedelta(days=1, seconds=-1)
    return Report(organization, f"{start:%Y-%m-%dT%H:%M:%SZ}_{DOMAIN}", start, end, policies, problems)


def made(days: int = 90) -> Iterator[Stored]:
    """The reports of a mail server that is mostly well, the last ones first."""
    for back in range(1, days + 1):
        day = TODAY - datetime.timedelta(days=back)
        for number, (domain, (organization, usual)) in enumerate(_ORGANIZATIONS.items()):
            if (back * 7 + number * 3) % 11 == 0 and usual < 1000:
                continue  # Small senders have nothing to report on some days.
            failures = tuple(_failures(domain, back))
            failed = sum(failure.sessions for failure in failures)
            weekend = 0.35 if day.weekday() > 4 else 1
            successful = int(usual * weekend * (0.8 + (back * 37 + number * 11) % 40 / 100)) - failed
            policy = Policy(DOMAIN, "sts", "testing" if back > 40 else "enforce", successful, failed, failures)
            problems = ("contact-info is missing",) if domain == "comcast.net" else ()
            yield stored(key(domain, day), report(day, organization, policy, problems=problems), verified(domain))
        if back == 3:
            forged = Policy(DOMAIN, "sts", "enforce", 0, 5000, ())
            nobody = Dkim(DkimState.NONE, None, "no DKIM signature")
            yield stored(key("forged", day), report(day, "Google Inc.", forged), nobody)


def _failures(domain: str, back: int) -> Iterator[Failure]:
    if domain == "google.com" and 3 <= back <= 5:
        yield Failure("certificate-expired", 41 * back, "mx2.example.com", "192.0.2.26", "209.85.222.201", None, None)
        yield Failure(
            "certificate-expired", 7 * back, "mx2.example.com", "2001:db8::26", "2607:f8b0:4864:20::748", None, None
        )
    if domain == "microsoft.com" and back in (2, 3, 9, 31, 32):
        yield Failure("validation-failure", 12, "old.example.com", None, "40.92.0.11", "MX_HOSTS_MISMATCH", None)
    if domain == "mail.de" and back in (12, 13):
        yield Failure("sts-policy-fetch-error", 3, None, None, "62.201.172.24", None, "https://mail.de/tls/policy-host")
    if domain == "comcast.net" and back in (44, 45, 46, 47):
        yield Failure(
            "starttls-not-supported", 9, "mx1.example.com", "192.0.2.25", "96.103.145.163", "NO_STARTTLS", None
        )


def facts(reports: Iterable[Stored], of: Window) -> Facts:
    """The facts of verified reports about these days, summed as the store does."""
    days: defaultdict[Sender, list[Day]] = defaultdict(list)
    policies: defaultdict[Sender, list[PolicyTotal]] = defaultdict(list)
    lines: defaultdict[Sender, list[ReportLine]] = defaultdict(list)
    groups: list[FailureGroup] = []
    unverified = 0
    for one in reports:
        report, sender = one.report, sender_of(one)
        day = day_of(report.start, report.end)
        if not of.first <= day <= of.last:
            continue
        if not sender.verified:
            unverified += 1
            continue
        for policy in report.policies:
            numbers = (policy.successful, policy.failed)
            days[sender].append(Day(day, *numbers))
            policies[sender].append(PolicyTotal(policy.domain, policy.type, policy.mode, *numbers))
            lines[sender].append(
                ReportLine(
                    one.key, sender, report.organization, report.report_id, report.start, report.end,
                    policy.domain, policy.type, policy.mode, *numbers,
                )
            )  # fmt: skip
            groups += [
                FailureGroup(
                    one.result, sender, policy.domain, one.mx, one.receiving_ip, one.code, one.sessions, day, day,
                    one.sending_ip, one.information,
                )
                for one in policy.failures
            ]  # fmt: skip
    return Facts(
        days={sender: _days(of_it) for sender, of_it in days.items()},
        policies={sender: _policies(of_it) for sender, of_it in policies.items()},
        failures=_groups(groups),
        lines={sender: of_it[: LIMITS.reports] for sender, of_it in lines.items()},
        counts={sender: len(of_it) for sender, of_it in lines.items()},
        left_out=LeftOut(unverified, 0),
    )


def views(reports: Iterable[Stored], days: int) -> Views:
    """The views of the last so many days."""
    of = window(TODAY, days)
    return pages.views(of, facts(reports, of))


def _days(days: Iterable[Day]) -> list[Day]:
    sums: defaultdict[datetime.date, list[int]] = defaultdict(lambda: [0, 0])
    for day in days:
        sums[day.date][0] += day.successful
        sums[day.date][1] += day.failed
    return [Day(date, *numbers) for date, numbers in sums.items()]


def _policies(policies: Iterable[PolicyTotal]) -> list[PolicyTotal]:
    sums: defaultdict[tuple[str | None, str | None, str | None], list[int]] = defaultdict(lambda: [0, 0])
    for one in policies:
        total = sums[one.domain, one.type, one.mode]
        total[0] += one.successful
        total[1] += one.failed
    return [PolicyTotal(*kind, successful, failed) for kind, (successful, failed) in sums.items()]


def _groups(groups: Iterable[FailureGroup]) -> list[FailureGroup]:
    found: dict[tuple[object, ...], FailureGroup] = {}
    for one in groups:
        kind = (one.result, one.sender, one.domain, one.mx, one.receiving_ip, one.code)
        known = found.get(kind, one)
        found[kind] = FailureGroup(
            *kind, one.sessions + (known.sessions if known is not one else 0), min(one.since, known.since),
            max(one.last, known.last), known.sending_ip, known.information,
        )  # fmt: skip
    return list(found.values())
