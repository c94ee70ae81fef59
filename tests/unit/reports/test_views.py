"""The two views, made of facts."""

import dataclasses
import datetime
from datetime import date

import pytest

from postfix_mtasts.reports.meaning import Severity, meaning
from postfix_mtasts.reports.viewing import Facts, Limits, by_result, by_source, ranked
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
    day_of,
    window,
)

UTC = datetime.UTC
TODAY = date(2026, 3, 11)
SPAN = Window(date(2026, 3, 9), date(2026, 3, 10))
A, B, FORGED = Sender("a.example", True), Sender("b.example", True), Sender("a.example", False)
NOTHING = LeftOut(0, 0)
ALL = Limits(rows=9, failures=9, reports=9, policies=9, mx=9)


def line(sender: Sender, organization: str, day: int) -> ReportLine:
    start = datetime.datetime(2026, 3, day, tzinfo=UTC)
    end = start + datetime.timedelta(seconds=86399)
    return ReportLine("00", sender, organization, "id", start, end, "c.example", "sts", "enforce", 1, 1)


def group(
    result: str | None,
    sender: Sender,
    sessions: int,
    *,
    mx: str | None = "mx.c.example",
    domain: str | None = "c.example",
    code: str | None = None,
    since: int = 9,
    last: int = 10,
) -> FailureGroup:
    days = date(2026, 3, since), date(2026, 3, last)
    return FailureGroup(result, sender, domain, mx, None, code, sessions, *days, None, None)


def facts(
    days: dict[Sender, list[Day]],
    failures: tuple[FailureGroup, ...] = (),
    lines: dict[Sender, list[ReportLine]] | None = None,
) -> Facts:
    lines = lines or {sender: [line(sender, "Org", 9)] for sender in days}
    policies = {sender: [PolicyTotal("c.example", "sts", "enforce", 1, 1)] for sender in days}
    return Facts(days, policies, failures, lines, {sender: len(of) + 3 for sender, of in lines.items()}, NOTHING)


def test_a_window_ends_a_day_back() -> None:
    assert window(TODAY, 2) == SPAN
    assert window(TODAY) == Window(date(2026, 2, 25), date(2026, 3, 10))
    assert window(TODAY, 90) == Window(date(2025, 12, 11), date(2026, 3, 10))
    assert SPAN.days() == (date(2026, 3, 9), date(2026, 3, 10))


@pytest.mark.parametrize(
    ("start", "end", "day"),
    [
        ("2026-03-09T00:00:00", "2026-03-09T23:59:59", "2026-03-09"),
        ("2026-03-09T00:00:00", "2026-03-10T00:00:00", "2026-03-09"),
        ("2026-03-08T23:00:00", "2026-03-09T22:59:59", "2026-03-09"),  # A day in Berlin.
        ("2026-03-09T08:00:00", "2026-03-10T07:59:59", "2026-03-09"),  # A day in San Francisco.
        ("2026-03-09T12:00:00", "2026-03-09T12:00:00", "2026-03-09"),
        ("2026-03-09T12:00:00", "1970-01-01T00:00:00", "2026-03-09"),
        ("1970-01-01T00:00:00", "9999-12-31T23:59:59", "5984-12-31"),
    ],
)
def test_the_day_of_a_report(start: str, end: str, day: str) -> None:
    times = [datetime.datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end)]
    assert day_of(*times) == date.fromisoformat(day)


def test_the_view_by_source() -> None:
    expired, mismatch = group("certificate-expired", A, 2), group("sts-policy-fetch-error", A, 7)
    found = facts(
        {A: [Day(SPAN.last, 8, 9)], B: [Day(SPAN.first, 5, 0)]},
        (expired, mismatch),
        {A: [line(A, "Newer", 10), line(A, "Older", 9)], B: [line(B, "B", 9)]},
    )
    policies = (PolicyTotal("c.example", "sts", "enforce", 1, 1),)
    first = Source(
        sender=A,
        organization="Newer",
        successful=8,
        failed=9,
        last_report=datetime.datetime(2026, 3, 10, 23, 59, 59, tzinfo=UTC),
        days=(Day(SPAN.first, 0, 0), Day(SPAN.last, 8, 9)),
        worst="certificate-expired",
        severity=Severity.ERROR,
        policies=policies,
        failures=(mismatch, expired),
        reports=(line(A, "Newer", 10), line(A, "Older", 9)),
        more_failures=0,
        more_reports=3,
    )
    second = Source(
        sender=B,
        organization="B",
        successful=5,
        failed=0,
        last_report=datetime.datetime(2026, 3, 9, 23, 59, 59, tzinfo=UTC),
        days=(Day(SPAN.first, 5, 0), Day(SPAN.last, 0, 0)),
        worst=None,
        severity=Severity.NOTE,
        policies=policies,
        failures=(),
        reports=(line(B, "B", 9),),
        more_failures=0,
        more_reports=3,
    )
    assert by_source(SPAN, None, found, ALL) == SourcesView(SPAN, None, (first, second), 0, NOTHING)
    assert (first.sessions, first.share, second.share) == (17, 9 / 17, 0.0)


def test_a_source_without_sessions_has_no_share() -> None:
    (source,) = by_source(SPAN, None, facts({A: [Day(SPAN.last, 0, 0)]}), ALL).sources
    assert (source.sessions, source.share) == (0, 0.0)


def test_what_is_listed_of_sources_is_bounded() -> None:
    found = facts(
        {A: [Day(SPAN.last, 8, 1)], B: [Day(SPAN.last, 8, 2)]},
        (group("x", B, 1), group("y", B, 2)),
        {B: [line(B, "B", 10), line(B, "B", 9)]},
    )
    view = by_source(SPAN, "c.example", found, Limits(rows=1, failures=1, reports=1, policies=0, mx=0))
    assert (len(view.sources), view.more, view.domain) == (1, 1, "c.example")
    (source,) = view.sources
    assert (source.failures, source.more_failures) == ((group("y", B, 2),), 1)
    assert (source.reports, source.more_reports, source.policies) == ((line(B, "B", 10),), 4, ())


def test_hidden_sources_are_named_and_nothing_else() -> None:
    days = {A: [Day(SPAN.last, 8, 1)], B: [Day(SPAN.last, 8, 2)], FORGED: [Day(SPAN.last, 1, 1)]}
    known = facts(days, lines={A: [line(A, "A", 9)], FORGED: [line(FORGED, "F", 9)]})
    view = by_source(SPAN, None, dataclasses.replace(known, hidden={"b.example", "a.example", "gone.example"}), ALL)
    # Who opens a source that is hidden sees it, and who is not verified hides nobody and is not hidden.
    assert [source.sender for source in view.sources] == [A, FORGED]
    assert (view.hidden, view.more) == (("a.example", "b.example"), 0)


def test_verified_senders_stand_first() -> None:
    days = {
        FORGED: [Day(SPAN.last, 9, 9)],
        A: [Day(SPAN.last, 1, 0)],
        B: [Day(SPAN.last, 2, 0)],
        Sender(None, False): [Day(SPAN.last, 0, 10)],
        Sender("c.example", True): [Day(SPAN.first, 0, 1), Day(SPAN.last, 0, 1)],
        Sender("d.example", True): [Day(SPAN.last, 1, 0)],
    }
    c, d = Sender("c.example", True), Sender("d.example", True)
    assert ranked(days) == [c, B, A, d, Sender(None, False), FORGED]


def test_the_view_by_result() -> None:
    groups = (
        group("no-policy-found", A, 99, mx=None, domain="d.example"),
        group("certificate-expired", A, 2, since=10),
        group("certificate-expired", B, 3, mx="mx2.c.example", last=9),
        group("certificate-expired", B, 1, mx="mx2.c.example", domain="not a domain; rm -rf /", since=10),
        group("validation-failure", B, 1, code="MX_HOSTS_MISMATCH", domain="--help"),
        group(None, B, 4, mx=None, domain=None),
    )
    days = {A: [Day(SPAN.first, 0, 3), Day(SPAN.last, 8, 9)], B: [Day(SPAN.last, 0, 5)]}
    view = by_result(SPAN, None, facts(days, groups), ALL)
    expired = Result(
        result="certificate-expired",
        sessions=6,
        sources=2,
        mx=("mx2.c.example", "mx.c.example"),
        since=SPAN.first,
        last=SPAN.last,
        failures=(groups[2], groups[1], groups[3]),
        more_failures=0,
        meaning=meaning("certificate-expired"),
        command="postfix-mtasts-query --probe c.example",
    )
    mismatch = Result(
        result="validation-failure",
        sessions=1,
        sources=1,
        mx=("mx.c.example",),
        since=SPAN.first,
        last=SPAN.last,
        failures=(groups[4],),
        more_failures=0,
        meaning=meaning("validation-failure", "MX_HOSTS_MISMATCH"),
        command="",
    )
    not_said = Result(None, 4, 1, (), SPAN.first, SPAN.last, (groups[5],), 0, meaning(None), "")
    nothing = Result(
        "no-policy-found",
        99,
        1,
        (),
        SPAN.first,
        SPAN.last,
        (groups[0],),
        0,
        meaning("no-policy-found"),
        "postfix-mtasts-query --probe d.example",
    )
    successes = Successes(sessions=8, sources=1, since=SPAN.last)
    results = (expired, mismatch, not_said, nothing)
    together = (Day(SPAN.first, 0, 3), Day(SPAN.last, 8, 14))
    assert view == ResultsView(SPAN, None, together, successes, 17, results, 0, NOTHING)


def test_what_is_listed_of_results_is_bounded() -> None:
    groups = (group("x", A, 1, mx="a"), group("x", A, 2, mx="b"), group("y", A, 1))
    limits = Limits(rows=1, failures=1, reports=1, policies=1, mx=1)
    view = by_result(SPAN, None, facts({A: [Day(SPAN.last, 0, 4)]}, groups), limits)
    assert (len(view.results), view.more) == (1, 1)
    (result,) = view.results
    assert (result.result, result.sessions, result.failures, result.more_failures) == ("x", 3, (groups[1],), 1)
    assert (result.mx, result.more_mx) == (("b",), 1)


def test_nothing_was_reported() -> None:
    view = by_result(SPAN, None, facts({}), ALL)
    nothing = (Day(SPAN.first, 0, 0), Day(SPAN.last, 0, 0))
    assert view == ResultsView(SPAN, None, nothing, Successes(0, 0, None), 0, (), 0, NOTHING)
    assert by_source(SPAN, None, facts({}), ALL) == SourcesView(SPAN, None, (), 0, NOTHING)
