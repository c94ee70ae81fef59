"""What becomes of a report."""

import datetime

import pytest

from postfix_mtasts.reports.report import Dkim, DkimState, Policy, Report
from postfix_mtasts.reports.verdict import WAIT, State, verdict

VERIFIED, LOST = Dkim(DkimState.VERIFIED, "example.org"), Dkim(DkimState.UNKNOWN, "example.org", "no answer")
FORGED = Dkim(DkimState.INVALID, "example.org", "the signature is not valid")
SOON = datetime.timedelta(seconds=1)
OURS = ("example.com", "example.net")


def report(*domains: str | None) -> Report:
    time = datetime.datetime(2026, 3, 9, tzinfo=datetime.UTC)
    return Report("Org", "id", time, time, tuple(Policy(domain, "sts", None, 1, 0, ()) for domain in domains))


def quarantined(domains: str) -> tuple[State, str]:
    return State.QUARANTINED, f"about {domains}: not in reports.domains"


@pytest.mark.parametrize(
    ("domains", "dkim", "age", "ours", "expected"),
    [
        (("example.com",), VERIFIED, SOON, OURS, (State.STORED, "")),
        (("mx1.example.com",), VERIFIED, SOON, OURS, (State.STORED, "")),
        ((None,), VERIFIED, SOON, OURS, (State.STORED, "")),
        ((), VERIFIED, SOON, OURS, (State.STORED, "")),
        (("other.example",), VERIFIED, SOON, (), (State.STORED, "")),
        (("example.com",), FORGED, SOON, OURS, (State.STORED, "")),
        (("other.example",), VERIFIED, SOON, OURS, quarantined("other.example")),
        (("notexample.com",), VERIFIED, SOON, OURS, quarantined("notexample.com")),
        (("com",), VERIFIED, SOON, OURS, quarantined("com")),
        (("example.com", "b", "a"), LOST, SOON, OURS, quarantined("a, b")),
        (("e", "d", "c", "b", "a"), LOST, SOON, OURS, quarantined("a, b, c and 2 more")),
        (("example.com",), LOST, SOON, OURS, (State.WAITING, "no answer")),
        (("example.com",), LOST, WAIT - SOON, (), (State.WAITING, "no answer")),
        (("example.com",), LOST, WAIT, OURS, (State.STORED, "")),
    ],
)  # fmt: skip
def test_what_becomes_of_a_report(
    domains: tuple[str | None, ...],
    dkim: Dkim,
    age: datetime.timedelta,
    ours: tuple[str, ...],
    expected: tuple[State, str],
) -> None:
    assert verdict(report(*domains), dkim, age, ours, accepted=False) == expected


def test_what_is_accepted_may_be_about_any_domain() -> None:
    assert verdict(report("other.example"), VERIFIED, SOON, OURS, accepted=True) == (State.STORED, "")
    assert verdict(report("other.example"), LOST, SOON, OURS, accepted=True) == (State.WAITING, "no answer")
