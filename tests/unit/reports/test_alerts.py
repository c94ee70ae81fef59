"""What is told, and when: days are counted, nothing is waited for."""

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import date, timedelta

import pytest

from postfix_mtasts.reports import alerts
from postfix_mtasts.reports.alerts import Decision, Facts, Failures, Kind, News, Notice, Subject, Told, decide
from postfix_mtasts.reports.meaning import Severity

TODAY = date(2026, 3, 20)
EXPIRED = Subject(Kind.FAILURES, "a.example", "certificate-expired")
SILENCE = Subject(Kind.SILENCE, "google.com")
NOTHING = Facts((), {}, {})


def ago(days: int) -> date:
    return TODAY - timedelta(days=days)


def failures(
    since: int, last: int, sender: str = "google.com", domain: str = "a.example", result: str = "certificate-expired"
) -> Failures:
    return Failures(sender, domain, result, 6, ago(since), ago(last), "mx.a.example", 1)


def facts(*found: Failures, days: Iterable[int] = range(1, 15), sessions: int = 10) -> Facts:
    """Failures, and reports of the same sources on these days."""
    counts = {ago(day): sessions for day in days}
    return Facts(found, {(one.sender, one.domain): counts for one in found}, {})


def new(since: int, last: int, **members: object) -> Notice:
    of = 10 * (since - last + 1)
    made = Notice(News.NEW, EXPIRED, Severity.ERROR, ago(since), ago(last), 6, of, ("google.com",), "mx.a.example", 1)
    return dataclasses.replace(made, **members)  # type: ignore[arg-type]


def test_nothing() -> None:
    assert decide(NOTHING, {}, TODAY) == Decision((), {})


@pytest.mark.parametrize("last", [1, 2, 3])
def test_new_failures_are_told_once(last: int) -> None:
    found = facts(failures(last, last))
    first = decide(found, {}, TODAY)
    assert first == Decision((new(last, last),), {EXPIRED: Told(TODAY)})
    assert decide(found, first.told, TODAY) == Decision((), first.told)


def test_what_is_past_is_no_news() -> None:
    assert decide(facts(failures(9, 4)), {}, TODAY) == Decision((), {})


@pytest.mark.parametrize(("told", "news"), [(6, None), (7, News.STILL), (300, News.STILL)])
def test_still_there_after_a_week(told: int, news: News | None) -> None:
    found, before = facts(failures(13, 1)), {EXPIRED: Told(ago(told))}
    decision = decide(found, before, TODAY)
    if news is None:
        assert decision == Decision((), before)
    else:
        notice = new(13, 1, news=News.STILL, severity=Severity.NOTE)
        assert decision == Decision((notice,), {EXPIRED: Told(ago(told), still=True)})
        assert decide(found, decision.told, TODAY + timedelta(days=1)).notices == ()


def test_over_when_a_source_that_told_of_it_reports_without_it() -> None:
    before = {EXPIRED: Told(ago(6), still=True)}
    over = new(7, 4, news=News.OVER, severity=Severity.NOTE)
    assert decide(facts(failures(7, 4)), before, TODAY) == Decision((over,), {})
    assert decide(facts(failures(7, 3)), before, TODAY) == Decision((), before)


def test_silence_is_no_end() -> None:
    """Who told of it has reported nothing since, or only that there were no sessions."""
    before = {EXPIRED: Told(ago(6))}
    assert decide(facts(failures(7, 4), days=range(4, 15)), before, TODAY) == Decision((), before)
    found = facts(failures(7, 4), days=range(4, 15))
    counts = {("google.com", "a.example"): {ago(1): 0}, ("other.example", "a.example"): {ago(1): 9}}
    assert decide(Facts(found.failures, counts, {}), before, TODAY) == Decision((), before)


def test_over_when_nobody_has_told_of_it_for_a_fortnight() -> None:
    assert decide(NOTHING, {EXPIRED: Told(ago(20))}, TODAY) == Decision(
        (Notice(News.OVER, EXPIRED, Severity.NOTE),), {}
    )


def test_a_trouble_that_comes_back_is_new() -> None:
    over = decide(facts(failures(7, 4)), {EXPIRED: Told(ago(6))}, TODAY)
    again = decide(facts(failures(2, 1)), over.told, TODAY)
    assert (again.notices, again.told) == ((new(2, 1, severity=Severity.WARNING),), {EXPIRED: Told(TODAY)})


@pytest.mark.parametrize(
    ("result", "subject", "sessions", "severity"),
    [
        ("certificate-expired", "certificate-expired", 10, Severity.ERROR),
        ("certificate-expired", "certificate-expired", 12, Severity.ERROR),
        ("certificate-expired", "certificate-expired", 13, Severity.WARNING),
        ("certificate-expired", "certificate-expired", 60, Severity.WARNING),
        ("certificate-expired", "certificate-expired", 61, Severity.NOTE),
        ("certificate-expired", "certificate-expired", 0, Severity.ERROR),  # No session is counted at all.
        ("sts-policy-fetch-error", "sts-policy-fetch-error", 10, Severity.WARNING),
        ("made-up", alerts.OTHER, 10, Severity.WARNING),
        ("", "", 10, Severity.WARNING),
        ("no-policy-found", None, 10, None),
    ],
)
def test_how_bad_it_is(result: str, subject: str | None, sessions: int, severity: Severity | None) -> None:
    decision = decide(facts(failures(1, 1, result=result), sessions=sessions), {}, TODAY)
    found = [(notice.subject.result, notice.severity) for notice in decision.notices]
    assert found == ([] if subject is None else [(subject, severity)])


def test_what_several_sources_report_is_one_trouble() -> None:
    found = facts(failures(3, 2), failures(5, 1, "microsoft.com"), failures(1, 1, domain="b.example"))
    one = new(5, 1, sessions=12, of=100, severity=Severity.WARNING, sources=("google.com", "microsoft.com"))
    other = new(1, 1, subject=Subject(Kind.FAILURES, "b.example", "certificate-expired"))
    assert decide(found, {}, TODAY).notices == (other, one)


def test_made_up_result_types_are_one_trouble() -> None:
    found = facts(*(failures(1, 1, result=f"made-up-{number}") for number in range(100)))
    assert [notice.subject.result for notice in decide(found, {}, TODAY).notices] == [alerts.OTHER]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "MAX_TOLD", 2)
    found = facts(*(failures(1, 1, domain=f"{number}.example") for number in range(3)))
    first = decide(found, {}, TODAY)
    assert (len(first.notices), len(first.told)) == (2, 2)
    assert decide(found, first.told, TODAY).notices == ()


def reports(days: Iterable[int]) -> Facts:
    return Facts((), {}, {"google.com": frozenset(map(ago, days))})


DAILY = range(5, 19)


@pytest.mark.parametrize(
    ("days", "is_silent"),
    [
        pytest.param(range(1, 30), False, id="reports"),
        pytest.param(range(4, 30), False, id="two are missing, and one may still come"),
        pytest.param(DAILY, True, id="three are missing"),
        pytest.param([*range(5, 10), *range(12, 19)], True, id="daily, but for two days of a fortnight"),
        pytest.param([*range(5, 10), *range(13, 19)], False, id="not daily"),
        pytest.param([*range(5, 17)], True, id="since twelve days"),
        pytest.param([*range(5, 16)], False, id="since eleven days"),
        pytest.param(range(16, 40), True, id="silent for a fortnight"),
        pytest.param(range(17, 40), False, id="it is past"),
    ],
)
def test_a_source_that_reported_daily_is_silent(days: Iterable[int], is_silent: bool) -> None:
    found = reports(days)
    decision = decide(found, {}, TODAY)
    notice = Notice(News.NEW, SILENCE, Severity.WARNING, last=max(found.reported["google.com"]))
    assert decision == (Decision((notice,), {SILENCE: Told(TODAY)}) if is_silent else Decision((), {}))
    assert decide(found, decision.told, TODAY).notices == ()


@pytest.mark.parametrize(
    ("days", "before", "notices", "after"),
    [
        pytest.param(
            [*DAILY, 1], Told(ago(3)), [Notice(News.OVER, SILENCE, Severity.NOTE, last=ago(1))], {}, id="over"
        ),
        pytest.param(
            range(12, 40),
            Told(ago(7)),
            [Notice(News.STILL, SILENCE, Severity.WARNING, last=ago(12))],
            {SILENCE: Told(ago(7), still=True)},
            id="still",
        ),
        pytest.param(range(12, 40), Told(ago(6)), [], {SILENCE: Told(ago(6))}, id="less than a week"),
        pytest.param(range(30, 44), Told(ago(25), still=True), [], {SILENCE: Told(ago(25), still=True)}, id="long"),
    ],
)
def test_silence_goes_on_or_ends(
    days: Iterable[int], before: Told, notices: list[Notice], after: Mapping[Subject, Told]
) -> None:
    assert decide(reports(days), {SILENCE: before}, TODAY) == Decision(tuple(notices), after)


def test_a_source_that_is_gone_for_good_is_forgotten() -> None:
    assert decide(NOTHING, {SILENCE: Told(ago(60), still=True)}, TODAY) == Decision((), {})


def test_the_worst_is_told_first() -> None:
    found = Facts(
        [failures(1, 1, domain="b.example", result="sts-policy-invalid"), failures(1, 1)],
        {("google.com", "a.example"): {ago(1): 10}, ("google.com", "b.example"): {ago(1): 10}},
        {"microsoft.com": frozenset(map(ago, DAILY))},
    )
    told = {Subject(Kind.FAILURES, "c.example", "tlsa-invalid"): Told(ago(30))}
    assert [(one.news, one.subject.name) for one in decide(found, told, TODAY).notices] == [
        (News.NEW, "a.example"),
        (News.NEW, "b.example"),
        (News.NEW, "microsoft.com"),
        (News.OVER, "c.example"),
    ]


def test_every_day_of_a_trouble_is_told_of_three_times_at_most() -> None:
    """Failures on twenty days, reports of each a day later; then reports without failures."""
    told: Mapping[Subject, Told] = {}
    news = []
    for day in range(40):
        today = TODAY + timedelta(days=day)
        known = [TODAY + timedelta(days=one) for one in range(max(0, day - 14), day)]
        failed = [one for one in known if (one - TODAY).days < 20]
        found = Facts(
            [Failures("google.com", "a.example", "certificate-expired", 6, failed[0], failed[-1])] if failed else [],
            {("google.com", "a.example"): dict.fromkeys(known, 10)},
            {},
        )
        decision = decide(found, told, today)
        told = decision.told
        news += [(day, notice.news) for notice in decision.notices]
    assert news == [(1, News.NEW), (8, News.STILL), (23, News.OVER)]
