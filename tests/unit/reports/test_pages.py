"""Pages of HTML: what they say, and that nothing a report says becomes a part of them."""

import base64
import datetime
import hashlib
import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from postfix_mtasts import __version__
from postfix_mtasts.reports.facts import Stored
from postfix_mtasts.reports.meaning import meaning
from postfix_mtasts.reports.pages import MAX_FAILURES, Links, Pages, listed
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, Report
from tests.unit.reports.html import Element, parse
from tests.unit.reports.made import NOW, TODAY, made, report, stored, verified, views

KEY = "0123456789abcdef0123"
YESTERDAY = TODAY - datetime.timedelta(days=1)
LINKS = Links()
REPORTS = list(made())
KEYS = {one.key for one in REPORTS}


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages(NOW, LINKS)


def test_the_view_by_source(pages: Pages) -> None:
    page = parse(pages.sources(views(REPORTS, 14), KEYS))
    assert page.table("Sources") == [
        ["Source", "Sessions", "Failed", "Share", "Last report", "By day", "Worst result"],
        ["google.com Google Inc.", "35,332", "✗ 576 failed", "1.63 %", "2026-03-09", "", "✗ error certificate-expired"],
        ["microsoft.com Microsoft Corporation", "21,985", "✗ 36 failed", "0.16 %", "2026-03-09", "",
         "✗ error validation-failure"],
        ["mail.de mail.de GmbH", "1,350", "✗ 6 failed", "0.44 %", "2026-03-09", "", "! warning sts-policy-fetch-error"],
        ["comcast.net Comcast", "2,495", "✓ none", "0 %", "2026-03-09", "", "✓ no failure"],
        ["posteo.example Posteo", "584", "✓ none", "0 %", "2026-03-09", "", "✓ no failure"],
    ]  # fmt: skip
    assert page.table("Policies") == [
        ["Domain", "Policy", "Succeeded", "Failed"],
        ["example.com", "MTA-STS, mode enforce", "34,756", "✗ 576 failed"],
    ]
    assert page.table("Failures") == [
        ["MX host", "Result", "IP addresses", "Days", "Sessions"],
        ["mx2.example.com example.com", "certificate-expired", "from 209.85.222.201 to 192.0.2.26",
         "2026-03-05 to 2026-03-07", "492"],
        ["mx2.example.com example.com", "certificate-expired", "from 2607:f8b0:4864:20::748 to 2001:db8::26",
         "2026-03-05 to 2026-03-07", "84"],
    ]  # fmt: skip
    assert page.table("Reports")[:2] == [
        ["Time", "Domain", "Policy", "Succeeded", "Failed"],
        ["2026-03-09 00:00 to 2026-03-09 23:59", "example.com", "MTA-STS, mode enforce", "3,627", "✓ none"],
    ]
    assert len(page.table("Reports")) == 15
    assert next(page.all("dl")).text == "Sessions 61,746 Failed 618 1 % Sources 5 Last day reported 2026-03-09"
    assert next(page.all("footer")).text == (
        "Made 2026-03-10 06:12. Reports come up to a day after the day that they are about, so a window ends with"
        " yesterday. ! Reports not counted in this window: 1. No DKIM signature verifies who sent them; they are among"
        f" all reports. postfix-mtasts-reports {__version__}. All times are in UTC."
    )


def test_the_view_by_result(pages: Pages) -> None:
    page = parse(pages.results(views(REPORTS, 14)))
    assert page.table("Results") == [
        ["Result", "Sessions", "Sources", "Since", "Last", "MX hosts"],
        ["✓ succeeded", "61,128", "5", "2026-02-24", "2026-03-09", "not reported"],
        ["✗ error certificate-expired", "576", "1", "2026-03-05", "2026-03-07", "mx2.example.com"],
        ["✗ error validation-failure", "36", "1", "2026-03-01", "2026-03-08", "old.example.com"],
        ["! warning sts-policy-fetch-error", "6", "1", "2026-02-25", "2026-02-26", "not given"],
    ]
    advice = [one for one in page.all("div") if one.attributes.get("class") == "advice"]
    assert [[part.text for part in one.all("p", "code")] for one in advice] == [
        [
            "The certificate of the MX host has expired. Renew it, and have the mail server load it.",
            "postfix-mtasts-query --probe example.com",
        ],
        [
            "The policy does not name an MX host of the domain. Compare the MX records with the policy's mx.",
            "postfix-mtasts-query --probe example.com",
        ],
        [
            meaning("sts-policy-fetch-error").text,
            "postfix-mtasts-query --probe example.com",
        ],
    ]
    assert next(advice[1].all("table")).rows() == [
        ["MX host", "Source", "IP addresses", "Days", "Sessions"],
        ["old.example.com example.com", "microsoft.com code MX_HOSTS_MISMATCH", "from 40.92.0.11",
         "2026-03-01 to 2026-03-08", "36"],
    ]  # fmt: skip


@pytest.mark.parametrize("days", [2, 14, 90])
def test_bars_have_the_same_numbers_as_the_table_below(pages: Pages, days: int) -> None:
    page = parse(pages.results(views(REPORTS, days)))
    titles = ["".join(map(str, title.inside)) for bar in page.all("rect") for title in bar.all("title")]
    assert len(titles) == 2 * days
    table = [
        line
        for day, successful, failed in page.table("Sessions of days with reports")[1:]
        for line in (f"{day}: {successful} succeeded", f"{day}: {failed} failed")
    ]
    assert sorted(titles) == sorted(table)


def test_the_list_of_reports(pages: Pages) -> None:
    lines = [listed(one) for one in REPORTS[10:16]]
    page = parse(pages.reports(2, lines, page_count=3, line_count=700, more=True))
    assert page.table("Reports") == [
        ["Time", "Source", "Domain", "Succeeded", "Failed"],
        ["2026-03-07 00:00 to 2026-03-07 23:59", "google.com Google Inc.", "example.com", "1,060", "✗ 144 failed"],
        ["2026-03-07 00:00 to 2026-03-07 23:59", "microsoft.com Microsoft Corporation", "example.com", "533",
         "✗ 12 failed"],
        ["2026-03-07 00:00 to 2026-03-07 23:59", "comcast.net Comcast", "example.com", "78", "✓ none"],
        ["2026-03-07 00:00 to 2026-03-07 23:59", "mail.de mail.de GmbH", "example.com", "47", "✓ none"],
        ["2026-03-07 00:00 to 2026-03-07 23:59", "unknown sender ! not verified Google Inc.", "example.com", "0",
         "✗ 5,000 failed"],
        ["2026-03-06 00:00 to 2026-03-06 23:59", "google.com Google Inc.", "example.com", "3,156", "✗ 192 failed"],
    ]  # fmt: skip
    turns = [link.attributes["href"] for link in page.all("a") if "rel" in link.attributes]
    assert turns == ["reports-1.html", "reports-3.html"]
    assert "There are more reports in these 90 days than the 700 that have pages." in page.text


def test_a_report(pages: Pages) -> None:
    failures = (
        Failure("validation-failure", 12, "old.example.com", None, "40.92.0.11", "MX_HOSTS_MISMATCH", "see-this"),
        Failure(None, 1, None, "192.0.2.1", None, None, None),
    )
    policies = (
        Policy("example.com", "sts", "enforce", 553, 13, failures),
        Policy("example.com", "no-policy-found", None, 1, 0, ()),
        Policy(None, "tlsa", None, 2, 0, ()),
        Policy(None, None, None, 0, 0, ()),
    )
    one = report(YESTERDAY, None, *policies, problems=("contact-info is missing",))
    page = parse(pages.report(stored(KEY, one, verified("microsoft.com"))))
    assert next(page.all("main")).text == (
        "Report from microsoft.com 2026-03-09 00:00 to 2026-03-09 23:59 Download as JSON"
        " ✗ 13 of 569 sessions failed (2.28 %)."
        " Organization not given DKIM ✓ verified, signed by microsoft.com Report ID 2026-03-09T00:00:00Z_example.com"
        " ! Where the report breaks RFC 8460, and what was assumed contact-info is missing"
        " Policies How sessions under each policy ended Domain Policy Succeeded Failed"
        " example.com MTA-STS, mode enforce 553 ✗ 13 failed example.com no policy found 1 ✓ none"
        " domain not given DANE (TLSA) 2 ✓ none domain not given type not given 0 ✓ none"
        " Failures As the sender describes them Result MX host IP addresses Explanation Sessions"
        " ✗ error validation-failure old.example.com from 40.92.0.11 code MX_HOSTS_MISMATCH see see-this 12"
        " ! warning type not given not given to 192.0.2.1 not given 1"
        " What it means, and what to do validation-failure The policy does not name an MX host of the domain. Compare"
        " the MX records with the policy's mx. type not given The sender counted failures, and did not say of what"
        " kind. Check the domain, or ask the sender."
    )
    assert {link.attributes["href"]: "download" in link.attributes for link in page.all("a")} == {
        "index.html": False, "results-14.html": False, "reports-1.html": False, f"report-{KEY}.json": True,
    }  # fmt: skip


def test_a_report_that_is_not_verified(pages: Pages) -> None:
    dkim = Dkim(DkimState.OTHER_DOMAIN, "list.example", "the signature is not of google.com")
    page = parse(pages.report(stored(KEY, report(YESTERDAY, "Google"), dkim)))
    facts = next(page.all("dl")).text
    assert facts.startswith(
        "Organization Google DKIM ! not verified: the signature is not of google.com, signed by list.example"
    )
    assert "This report counts nowhere: no DKIM signature verifies who sent it." in page.text


def test_a_page_lists_some_failures_of_a_report(pages: Pages) -> None:
    failures = tuple(Failure(f"kind-{number}", 1, None, None, None, None, None) for number in range(10_000))
    one = report(YESTERDAY, "A", Policy("example.com", "sts", None, 0, 1, failures))
    text = pages.report(stored(KEY, one, verified("a.example")))
    assert len(parse(text).table("Failures")) == MAX_FAILURES + 1
    assert "9,900 more failures are in the JSON." in text
    assert len(text) < 250_000


def test_nothing_came_yet(pages: Pages) -> None:
    nothing = views([], 14)
    page = parse(pages.sources(nothing, set()))
    assert page.table("Sources")[1:] == [["No verified report came for these days."]]
    assert page.table("Sessions of days")[1:] == [["all days", "0", "0"]]
    assert parse(pages.results(nothing)).table("Results")[1:] == [
        ["✓ succeeded", "0", "0", "none", "none", "not reported"]
    ]
    empty = parse(pages.reports(1, [], page_count=1, line_count=0, more=False))
    assert empty.table("Reports")[1:] == [["No report came in 90 days."]]


def test_a_source_leads_only_to_pages_that_there_are(pages: Pages) -> None:
    page = parse(pages.sources(views(REPORTS, 2), {REPORTS[0].key}))
    assert [link.attributes["href"] for link in page.all("a") if "report-" in str(link.attributes["href"])] == [
        f"report-{REPORTS[0].key}.html"
    ]


HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)><a href='javascript:alert(1)'>",
    "javascript:alert(document.domain)",
    "https://evil.example/?a=1&b=<b>",
    "'-->]]><!--<style>*{display:none}</style></details></table></main>",
    "{{ 7*7 }}{% raw %}{{ link }}",
    "moc.elgoog\u202e\u2066\u200f",
    "\x00\x1b[31m\r\nDKIM: verified\x7f\x85",
    "\ud800 lone surrogate",
    "שלום עולם ‮",
    "Z" + "\u0301" * 190,
    "w" * 5000,
    "&lt;script&gt;&#0;&nbsp;",
    "../../../etc/passwd",
    "",
)


def everywhere(text: str, name: str = KEY) -> Stored:
    """A report that says the same in each place."""
    failure = Failure(text, 1, text, text, text, text, text)
    policy = Policy(text, text, text, 1, 1, (failure,))
    start = datetime.datetime(2026, 3, 9, tzinfo=datetime.UTC)
    one = Report(text, text, start, start + datetime.timedelta(hours=23), (policy,), (text,))
    return stored(name, one, Dkim(DkimState.VERIFIED, text, text))


def _texts_of_pages(pages: Pages, one: Stored) -> list[str]:
    found = views([one], 14)
    unverified = stored(KEY, one.report, Dkim(DkimState.INVALID, one.dkim.domain, one.dkim.reason))
    return [
        pages.sources(found, {KEY}),
        pages.results(found),
        pages.reports(1, [listed(one), listed(unverified)], page_count=1, line_count=2, more=False),
        pages.report(one),
        pages.report(unverified),
    ]


def _bones(page: Element) -> list[tuple[str, dict[str, str | None]]]:
    """The elements of a page with their attributes."""
    return [(element.name, element.attributes) for element in page.all()]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_a_report_says_is_text_and_nothing_else(pages: Pages, text: str) -> None:
    plain = [parse(page) for page in _texts_of_pages(pages, everywhere("no hostname" if text else ""))]
    for said, page in zip(_texts_of_pages(pages, everywhere(text)), plain, strict=True):
        assert _bones(parse(said)) == _bones(page)
        assert said.isprintable() or set(filter(lambda one: not one.isprintable(), said)) == {"\n"}
        assert len(said) < 60_000
        assert said.encode()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet=st.characters(), max_size=300))
def test_whatever_a_report_says_is_text(pages: Pages, text: str) -> None:
    plain = [parse(page) for page in _texts_of_pages(pages, everywhere("no hostname"))]
    for said, page in zip(_texts_of_pages(pages, everywhere(f"no hostname {text}")), plain, strict=True):
        assert _bones(parse(said)) == _bones(page)


def test_a_policy_forbids_all_but_the_style_of_the_page(pages: Pages) -> None:
    for text in (*_texts_of_pages(pages, REPORTS[0]), pages.sources(views(REPORTS, 90), KEYS)):
        page = parse(text)
        (style,) = page.all("style")
        digest = base64.b64encode(hashlib.sha256("".join(map(str, style.inside)).encode()).digest()).decode()
        policy = next(meta for meta in page.all("meta") if "http-equiv" in meta.attributes)
        assert policy.attributes == {
            "http-equiv": "Content-Security-Policy",
            "content": f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none';"
            " form-action 'none'",
        }
        names = {element.name for element in page.all()}
        assert not names & {"script", "iframe", "object", "embed", "form", "input", "base", "img", "image", "use"}
        attributes = {name for element in page.all() for name in element.attributes}
        assert {name for name in attributes if name.startswith("on") or name in ("style", "src", "action")} == set()
        addresses = [str(element.attributes["href"]) for element in page.all() if "href" in element.attributes]
        assert all(
            re.fullmatch(r"[a-z0-9-]+\.(html|json)|data:image/svg\+xml,[A-Za-z0-9%/_.~-]+", one) for one in addresses
        )


@pytest.mark.parametrize("days", [2, 14, 90])
def test_every_table_has_a_caption_and_every_cell_a_heading(pages: Pages, days: int) -> None:
    found = views(REPORTS, days)
    tables = [
        table for text in (pages.sources(found, KEYS), pages.results(found)) for table in parse(text).all("table")
    ]
    assert len(tables) > 10
    for table in tables:
        caption = next(one for one in table.inside if isinstance(one, Element))
        assert (caption.name, bool(caption.text)) == ("caption", True)
        rows = table.rows()
        assert {len(row) for row in rows} == {len(rows[0])}
        scopes = [cell.attributes.get("scope") for cell in _cells(table) if cell.name == "th"]
        assert scopes == ["col"] * len(rows[0]) + ["row"] * (len(rows) - 1)


def _cells(table: Element) -> Iterator[Element]:
    """The cells of a table, without those of tables in it."""
    for part in table.inside:
        for row in part.inside if isinstance(part, Element) else ():
            yield from (cell for cell in (row.inside if isinstance(row, Element) else ()) if isinstance(cell, Element))


def test_the_longest_view_is_bounded(pages: Pages) -> None:
    def many() -> Iterator[Stored]:
        for day in range(1, 91):
            for source in range(60):
                failures = tuple(
                    Failure("validation-failure", 1, f"mx{number}.{'x' * 180}.example", "2001:db8::1", "2001:db8::2",
                            f"{number}" + "c" * 190, "i" * 200)
                    for number in range(30 if day == 1 else 0)
                )  # fmt: skip
                policy = Policy("d" * 200, "t" * 200, "m" * 200, 10**9, 10**9, failures)
                one = report(TODAY - datetime.timedelta(days=day), "o" * 200, policy)
                yield stored(f"{day:010}{source:010}", one, verified(f"{source}.example"))

    reports = list(many())
    found = views(reports, 90)
    assert found.sources.more == 10
    text = pages.sources(found, {one.key for one in reports})
    assert len(text) < 4_500_000
    assert "10 more sources are not listed here." in text
