"""The week in one mail."""

import datetime
import email
import email.policy
from datetime import date

from postfix_mtasts.reports.digest import LIMITS, body, subject
from postfix_mtasts.reports.letter import letter
from postfix_mtasts.reports.viewing import Facts, by_result, by_source
from postfix_mtasts.reports.views import Day, FailureGroup, LeftOut, ReportLine, Sender, Window

WEEK = Window(date(2026, 3, 2), date(2026, 3, 8))
GOOGLE, MICROSOFT = Sender("google.com", True), Sender("microsoft.com", True)
NOTHING = LeftOut(0, 0)
NOW = datetime.datetime(2026, 3, 9, 7, 0, tzinfo=datetime.UTC)


def line(sender: Sender, day: int) -> ReportLine:
    start = datetime.datetime(2026, 3, day, tzinfo=datetime.UTC)
    return ReportLine("00", sender, "Org", "id", start, start, "a.example", "sts", "enforce", 1, 1)


def group(result: str | None, sessions: int, mx: str | None = "mx.a.example", sender: Sender = GOOGLE) -> FailureGroup:
    return FailureGroup(result, sender, "a.example", mx, None, None, sessions, WEEK.first, date(2026, 3, 4), None, None)


def week(
    days: dict[Sender, tuple[int, int]], *groups: FailureGroup, left_out: LeftOut = NOTHING
) -> tuple[str, list[str]]:
    """The subject and the lines for the sessions of sources that succeeded and failed."""
    of_days = {sender: [Day(WEEK.last, *counts)] for sender, counts in days.items()}
    found = Facts(
        of_days,
        dict.fromkeys(days, ()),
        groups,
        {one: [line(one, 8)] for one in days},
        dict.fromkeys(days, 1),
        left_out,
    )
    results = by_result(WEEK, None, found, LIMITS)
    return subject(results), body(by_source(WEEK, None, found, LIMITS), results)


def test_all_is_well() -> None:
    assert week({GOOGLE: (1204, 0), MICROSOFT: (1, 0)}, group("no-policy-found", 3)) == (
        "TLS reports: all is well, 1,205 sessions",
        [
            "All is well, 1,205 sessions.",
            "",
            "Reports about 2026-03-02 to 2026-03-08 (UTC).",
            "1,205 sessions, 0 failed (0 %), told by 2 sources.",
            "",
            "no-policy-found: 3 sessions",
            "  at mx.a.example",
            "  told by 1 source, from 2026-03-02 to 2026-03-04",
            "  The sender knows no policy of the domain. If you publish",
            "  one, the sender does not know it yet, or does not use",
            "  MTA-STS.",
            "  Check it:",
            "  postfix-mtasts-query --probe a.example",
            "",
            "Sources",
            "  google.com",
            "    1,204 sessions, 0 failed, last 2026-03-08",
            "  microsoft.com",
            "    1 session, 0 failed, last 2026-03-08",
        ],
    )


def test_a_week_with_failures() -> None:
    hosts = [group("certificate-expired", 9 - number, f"mx{number}.a.example") for number in range(5)]
    assert week({GOOGLE: (900, 40)}, *hosts, group("sts-policy-invalid", 1, None), left_out=LeftOut(2, 1)) == (
        "TLS reports: failed: 40 of 940 sessions, certificate-expired and 1 more",
        [
            "Failed: 40 of 940 sessions, certificate-expired and 1 more.",
            "",
            "Reports about 2026-03-02 to 2026-03-08 (UTC).",
            "940 sessions, 40 failed (4.26 %), told by 1 source.",
            "",
            "certificate-expired: 35 sessions",
            "  at mx0.a.example, mx1.a.example, mx2.a.example and 2 more",
            "  told by 1 source, from 2026-03-02 to 2026-03-04",
            "  The certificate of the MX host has expired. Renew it, and",
            "  have the mail server load it.",
            "  Check it:",
            "  postfix-mtasts-query --probe a.example",
            "",
            "sts-policy-invalid: 1 session",
            "  told by 1 source, from 2026-03-02 to 2026-03-04",
            "  The policy was fetched, but has an error. Correct the",
            "  policy file, then change the id in the TXT record.",
            "  Check it:",
            "  postfix-mtasts-query --probe a.example",
            "",
            "Sources",
            "  google.com",
            "    940 sessions, 40 failed, last 2026-03-08",
            "",
            "Not counted: 2 reports whose sender is not verified.",
            "In quarantine: 1. To see them:",
            "postfix-mtasts-reports quarantine list",
        ],
    )


def test_no_report_came() -> None:
    assert week({}) == (
        "TLS reports: no reports this week",
        [
            "No reports this week.",
            "",
            "Reports about 2026-03-02 to 2026-03-08 (UTC).",
            "If mail comes in every day, reports should come too. What",
            "may be wrong: postfix-mtasts-reports doctor",
        ],
    )


def test_failures_without_a_word_why() -> None:
    assert week({GOOGLE: (0, 3)}, group(None, 3, None))[0] == (
        "TLS reports: failed: 3 of 3 sessions, failures without a type"
    )
    assert week({GOOGLE: (0, 3)})[0] == "TLS reports: failed: 3 of 3 sessions"


def test_the_mail_is_bounded_and_nothing_gets_out_of_its_place() -> None:
    evil = "\r\nBcc: you@b.example\x1b[31m"
    senders = {Sender(f"{number}.example", True): (1, 9) for number in range(40)}
    made = [group(f"{evil}{number}", 5, f"{evil}{number}" * 50) for number in range(40)]
    title, lines = week(senders, *made)
    mail = letter("u@host.example", ("a@b.example",), title, lines, NOW, "0")
    assert (len(mail) < 20_000, len(lines) < 400) == (True, True)
    parsed = email.message_from_bytes(mail, policy=email.policy.default)
    assert (parsed["Bcc"], parsed.defects) == (None, [])
    assert set(mail) <= {10, *range(32, 127)}
    assert "  and 30 more" in lines
    assert "And 30 more result types." in lines


def test_a_letter() -> None:
    made = letter(
        "_reports@host.example", ("a@b.example", "c@d.example"), "TLS reports: Grüße", ["Hello", "", "bye"], NOW, "ab12"
    )
    assert made.decode() == (
        "From: postfix-mtasts-reports <_reports@host.example>\n"
        "To: a@b.example, c@d.example\n"
        "Subject: TLS reports: Gr\\xfc\\xdfe\n"
        "Date: Mon, 09 Mar 2026 07:00:00 +0000\n"
        "Message-ID: <ab12@host.example>\n"
        "Auto-Submitted: auto-generated\n"
        'Content-Type: text/plain; charset="us-ascii"\n'
        "Content-Transfer-Encoding: 7bit\n"
        "MIME-Version: 1.0\n"
        "\n"
        "Hello\n"
        "\n"
        "bye\n"
    )
