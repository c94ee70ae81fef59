"""One sentence that says how things are."""

import pytest

from postfix_mtasts.reports.headline import Headline, of_report, of_view
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy
from postfix_mtasts.reports.views import Sender
from tests.unit.reports.made import DOMAIN, TODAY, key, report, stored, verified, views

SENDER = Sender("a.example", verified=True)


def told(*policies: Policy, verified_sender: bool = True) -> Headline:
    """What a view says of one report of yesterday."""
    dkim = verified("a.example") if verified_sender else Dkim(DkimState.NONE)
    return of_view(views([stored(key(1), report(YESTERDAY, "A", *policies), dkim)], 2).results)


YESTERDAY = TODAY.replace(day=9)


def sts(successful: int, failed: int, *failures: Failure) -> Policy:
    return Policy(DOMAIN, "sts", "enforce", successful, failed, failures)


def failure(result: str | None, mx: str | None) -> Failure:
    return Failure(result, 1, mx, None, None, None, None)


@pytest.mark.parametrize(
    ("policy", "headline"),
    [
        (sts(1, 0), Headline("good", "✓", "All is well: 1 session succeeded.")),
        (sts(1234, 0), Headline("good", "✓", "All is well: 1,234 sessions succeeded.")),
        (
            sts(9, 1),
            Headline("warn", "!", "1 of 10 sessions failed (10 %).", "The sources did not say why."),
        ),
        (
            sts(98, 2, failure("tlsa-invalid", "mx1.example.com"), failure("tlsa-invalid", "mx2.example.com")),
            Headline(
                "bad", "✗", "2 of 100 sessions failed (2 %).",
                "The most serious: tlsa-invalid at mx1.example.com and 1 more, last on 2026-03-09.",
            ),
        ),
        (
            sts(98, 2, failure("sts-policy-invalid", None), failure("no-policy-found", "mx1.example.com")),
            Headline(
                "warn", "!", "2 of 100 sessions failed (2 %).",
                "The most serious: sts-policy-invalid, last on 2026-03-09.",
            ),
        ),
        (
            sts(0, 1, failure(None, None)),
            Headline(
                "warn", "!", "1 of 1 session failed (100 %).",
                "The most serious: failures without a type, last on 2026-03-09.",
            ),
        ),
    ],
)  # fmt: skip
def test_of_a_view(policy: Policy, headline: Headline) -> None:
    assert told(policy) == headline


def test_what_is_not_verified_does_not_count() -> None:
    assert told(sts(1, 1), verified_sender=False) == Headline(
        "warn",
        "!",
        "No report counts in this window.",
        "If mail comes in every day, check that the TXT record at _smtp._tls names an address that arrives here.",
    )


@pytest.mark.parametrize(
    ("policies", "headline"),
    [
        ((sts(3, 0), sts(2, 0)), Headline("good", "✓", "All is well: 5 sessions succeeded.")),
        ((sts(3, 0), sts(0, 1)), Headline("bad", "✗", "1 of 4 sessions failed (25 %).")),
        ((), Headline("soft", "i", "The report counts no session.")),
    ],
)
def test_of_a_report(policies: tuple[Policy, ...], headline: Headline) -> None:
    one = report(YESTERDAY, None, *policies)
    assert of_report(one, SENDER) == headline


def test_of_a_report_that_is_not_verified() -> None:
    assert of_report(report(YESTERDAY, None, sts(3, 1)), Sender("a.example", verified=False)) == Headline(
        "warn",
        "!",
        "This report counts nowhere: no DKIM signature verifies who sent it.",
        "It says that 1 of 4 sessions failed.",
    )
