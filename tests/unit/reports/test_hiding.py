"""When a source that is hidden has changed."""

import datetime

import pytest

from postfix_mtasts.reports.hiding import Look, has_changed, look_of
from postfix_mtasts.reports.report import Failure, Policy, Report

ENFORCE, TESTING = ("a.example", "sts", "enforce"), ("a.example", "sts", "testing")
EXPIRED, OTHER = ("a.example", "certificate-expired"), ("a.example", "validation-failure")


def look(*policies: tuple[str, str, str], results: set[tuple[str, str]] | None = None, failed: int = 0) -> Look:
    return Look(frozenset(policies), frozenset(results or ()), failed)


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        (look(ENFORCE), look(ENFORCE), False),
        (look(ENFORCE, TESTING), look(ENFORCE), False),
        (look(ENFORCE), look(TESTING), True),
        (look(), look(ENFORCE), True),
        (look(ENFORCE), look(("b.example", "sts", "enforce")), True),
        (look(results={EXPIRED}), look(), False),
        (look(results={EXPIRED}), look(results={EXPIRED}), False),
        (look(results={EXPIRED}), look(results={EXPIRED, OTHER}), True),
        (look(results={EXPIRED}), look(results={("b.example", "certificate-expired")}), True),
        # More than twice as many on a day, and at least ten more.
        (look(failed=0), look(failed=9), False),
        (look(failed=0), look(failed=10), True),
        (look(failed=9), look(failed=18), False),
        (look(failed=9), look(failed=19), True),
        (look(failed=100), look(failed=200), False),
        (look(failed=100), look(failed=201), True),
        (look(failed=100), look(failed=0), False),
    ],
)
def test_what_is_a_change(before: Look, now: Look, changed: bool) -> None:
    assert has_changed(before, now) is changed


def test_what_a_report_says() -> None:
    expired = Failure("certificate-expired", 3, "mx.a.example", None, None, None, None)
    nameless = Failure(None, 1, None, None, None, None, None)
    now = datetime.datetime(2026, 3, 9, tzinfo=datetime.UTC)
    policies = (
        Policy("a.example", "sts", "enforce", 5, 4, (expired, nameless)),
        Policy("a.example", "tlsa", None, 5, 0, ()),
        Policy("b.example", "sts", "testing", 0, 2, ()),
        Policy(None, None, None, 1, 0, ()),
    )
    assert look_of(Report("Org", "1", now, now, policies), 77) == Look(
        frozenset(
            {
                ("a.example", "sts", "enforce"), ("a.example", "tlsa", ""), ("b.example", "sts", "testing"),
                ("", "", ""),
            }
        ),
        frozenset({("a.example", "certificate-expired"), ("a.example", ""), ("b.example", "")}),
        77,
    )  # fmt: skip
