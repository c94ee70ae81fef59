"""Bars by day."""

import datetime

from postfix_mtasts.reports.chart import Chart, chart
from postfix_mtasts.reports.views import Day

MONDAY = datetime.date(2026, 3, 9)


def test_bars_have_the_heights_of_their_numbers() -> None:
    days = (Day(MONDAY, 400, 0), Day(MONDAY, 0, 0), Day(MONDAY, 100, 3), Day(MONDAY, 0, 1))
    assert chart(days) == Chart(
        days=days,
        successful="M0.1 100v-100h0.8v100zM2.1 100v-25h0.8v25z",
        failed="M2.1 100v-100h0.8v100zM3.1 100v-33h0.8v33z",
        silent="M1.1 100v-2h0.8v2z",
        most_successful=400,
        most_failed=3,
    )


def test_one_of_a_million_is_seen() -> None:
    days = (Day(MONDAY, 1_000_000, 0), Day(MONDAY, 1, 0))
    assert chart(days).successful == "M0.1 100v-100h0.8v100zM1.1 100v-4h0.8v4z"


def test_numbers_may_be_as_large_as_reports_write_them() -> None:
    assert chart((Day(MONDAY, 10**18, 10**18 - 1),)).failed == "M0.1 100v-100h0.8v100z"


def test_no_days() -> None:
    assert chart(()) == Chart((), "", "", "", 0, 0)
