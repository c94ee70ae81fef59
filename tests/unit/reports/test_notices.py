"""What an administrator reads of alerts, as mail and in the journal."""

import dataclasses
from datetime import date

from postfix_mtasts.reports.alerts import OTHER, Kind, News, Notice, Subject
from postfix_mtasts.reports.meaning import Severity
from postfix_mtasts.reports.notices import body, groups, line, subject

FIRST = Notice(
    news=News.NEW,
    subject=Subject(Kind.FAILURES, "a.example", "certificate-expired"),
    severity=Severity.ERROR,
    since=date(2026, 3, 8),
    last=date(2026, 3, 9),
    sessions=1200,
    of=2000,
    sources=("google.com",),
    host="mx1.a.example",
    hosts=2,
)
SECOND = dataclasses.replace(
    FIRST,
    subject=Subject(Kind.FAILURES, "b.example", "certificate-expired"),
    severity=Severity.WARNING,
    since=date(2026, 3, 9),
    sessions=1,
    of=9,
    sources=("microsoft.com", "google.com"),
)
SILENT = Notice(News.STILL, Subject(Kind.SILENCE, "microsoft.com"), Severity.WARNING, last=date(2026, 3, 4))
OVER = Notice(
    News.OVER, Subject(Kind.FAILURES, "c.example", "tlsa-invalid"), Severity.NOTE, date(2026, 3, 1), date(2026, 3, 5)
)
HOSTILE = dataclasses.replace(
    FIRST, subject=Subject(Kind.FAILURES, "evil\r\nBcc: you@b.example; rm -rf /", OTHER), host="\x1b[31mмх" * 100
)
TEXT = """\
New: certificate-expired [error]
  a.example, b.example
  at mx1.a.example and 1 more
  1,201 of 2,009 sessions failed (59.78 %)
  told by google.com, microsoft.com
  from 2026-03-08 to 2026-03-09
  The certificate of the MX host has expired. Renew it, and
  have the mail server load it.
  Check it:
  postfix-mtasts-query --probe a.example

Still there after a week: no more reports [warning]
  microsoft.com
  reported daily, last about 2026-03-04
  it has had no mail for you, or its reports do not arrive
  Check it:
  postfix-mtasts-reports doctor

Over: tlsa-invalid
  c.example
  last on 2026-03-05; since then, sources that told of it
  report sessions without it

All results: postfix-mtasts-reports results
"""


def test_a_mail() -> None:
    told = groups((FIRST, SECOND, SILENT, OVER))
    assert subject(told) == "TLS reports: new: certificate-expired (a.example and 1 more), and 2 more"
    assert "\n".join(body(told)) + "\n" == TEXT
    assert max(map(len, body(told))) <= 60


def test_the_journal() -> None:
    said = [line(group) for group in groups((FIRST, SECOND, SILENT, OVER))]
    first, second, third = said
    assert first == (
        "New: certificate-expired [error]: a.example, b.example: at mx1.a.example and 1 more; 1,201 of 2,009 sessions"
        " failed (59.78 %); told by google.com, microsoft.com; from 2026-03-08 to 2026-03-09; check it:"
        " postfix-mtasts-query --probe a.example"
    )
    assert second == (
        "Still there after a week: no more reports [warning]: microsoft.com: reported daily, last about 2026-03-04; it"
        " has had no mail for you, or its reports do not arrive; check it: postfix-mtasts-reports doctor"
    )
    assert third == (
        "Over: tlsa-invalid: c.example: last on 2026-03-05; since then, sources that told of it report sessions"
        " without it"
    )


def test_what_is_over_without_a_word() -> None:
    told = groups(
        (
            Notice(News.OVER, Subject(Kind.FAILURES, "", ""), Severity.NOTE),
            Notice(News.OVER, Subject(Kind.SILENCE, "google.com"), Severity.NOTE, last=date(2026, 3, 9)),
        )
    )
    assert [line(group) for group in told] == [
        "Over: failures without a type: unknown domain: no report has told of it for 14 days",
        "Over: no more reports: google.com: reports again, last about 2026-03-09",
    ]
    assert subject(told) == "TLS reports: over: failures without a type (unknown domain), and 1 more"


def test_nothing_of_a_report_gets_out_of_its_place() -> None:
    told = groups((HOSTILE,))
    for text in (subject(told), line(told[0]), *body(told)):
        assert all(" " <= character <= "~" for character in text)
        assert len(text) < 2000
    assert max(map(len, body(told))) <= 60
    assert "--probe" not in line(told[0])


def test_details_may_have_more_sessions_than_there_were() -> None:
    (group,) = groups((dataclasses.replace(FIRST, of=1000),))
    assert "; 1,200 sessions failed; told by" in line(group)


def test_a_mail_is_bounded() -> None:
    results = [f"result-{number}" for number in range(30)]
    many = [dataclasses.replace(FIRST, subject=Subject(Kind.FAILURES, "a.example", result)) for result in results]
    told = groups(many)
    lines = body(told)
    assert len([text for text in lines if text.startswith("New: ")]) == 20
    assert "And 10 more. All that is reported:" in lines
    domains = [dataclasses.replace(FIRST, subject=Subject(Kind.FAILURES, f"{n}.example", "x")) for n in range(9000)]
    assert "  8,990 more" in body(groups(domains))
    assert len(body(groups(domains))) < 20
