"""All pages in a folder."""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from postfix_mtasts.reports.facts import Stored, stored_of
from postfix_mtasts.reports.folder import LIST
from postfix_mtasts.reports.pages import Links, Pages, Views
from postfix_mtasts.reports.records import Message
from postfix_mtasts.reports.records import write as write_report
from postfix_mtasts.reports.report import Dkim, DkimState, Failure, Policy, ReportError
from postfix_mtasts.reports.site import MAX_OCTETS, MAX_REPORTS, write, write_pages
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.verdict import State
from postfix_mtasts.reports.views import WINDOWS, Window, window
from tests.unit.reports.html import parse
from tests.unit.reports.made import NOW, TODAY, key, made, report, stored, verified, views
from tests.unit.reports.measure import cost

REPORTS = list(made())
YESTERDAY = TODAY.replace(day=9)


def all_views(reports: list[Stored]) -> dict[int, Views]:
    return {days: views(reports, days) for days in WINDOWS}


def test_pages_lead_to_each_other_and_to_nothing_else(tmp_path: Path) -> None:
    assert write_pages(tmp_path / "site", all_views(REPORTS), REPORTS, NOW) == len(REPORTS) == 427
    files = [file for file in (tmp_path / "site").iterdir() if file.name != LIST]
    names = {file.name for file in files}
    assert max(files, key=lambda file: file.stat().st_mtime_ns).name == "index.html"
    views = {"index.html", "sources-2.html", "sources-90.html", "results-2.html", "results-14.html", "results-90.html"}
    reports = {f"report-{one.key}.{kind}" for one in REPORTS for kind in ("html", "json")}
    assert names == views | reports | {"reports-1.html", "reports-2.html"}
    reached, todo = set[str](), ["index.html"]
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached.add(name)
        if name.endswith(".html"):
            page = parse((tmp_path / "site" / name).read_text())
            todo += [str(link.attributes["href"]) for link in page.all("a")]
    assert reached == names


def test_the_json_of_a_report_is_that_of_read(tmp_path: Path) -> None:
    failure = Failure("validation-failure", 3, "mx.example.com", None, "192.0.2.1", "\u202ecode", None)
    one = report(YESTERDAY, "A <b>", Policy("example.com", "sts", "enforce", 5, 3, (failure,)), problems=("a problem",))
    write_pages(tmp_path / "site", all_views([]), [stored(key(1), one, verified("a.example"))], NOW)
    text = (tmp_path / "site" / f"report-{key(1)}.json").read_text()
    assert text.isascii()
    assert json.loads(text) == {
        "file": f"report-{key(1)}.json",
        "organization": "A <b>",
        "report_id": "2026-03-09T00:00:00Z_example.com",
        "start": "2026-03-09T00:00:00Z",
        "end": "2026-03-09T23:59:59Z",
        "dkim": {"state": "verified", "domain": "a.example"},
        "policies": [
            {
                "domain": "example.com",
                "type": "sts",
                "mode": "enforce",
                "successful": 5,
                "failed": 3,
                "failures": [
                    {
                        "result": "validation-failure",
                        "sessions": 3,
                        "mx": "mx.example.com",
                        "receiving_ip": None,
                        "sending_ip": "192.0.2.1",
                        "code": "\u202ecode",
                        "information": None,
                    }
                ],
            }
        ],
        "problems": ["a problem"],
    }


def test_a_store_that_fails_leaves_the_pages_as_they_were(tmp_path: Path) -> None:
    def failing() -> Iterator[Stored]:
        yield from REPORTS[5:7]
        raise ReportError("the disk is broken")

    write_pages(tmp_path / "site", all_views(REPORTS), REPORTS[:5], NOW)
    before = {file.name: file.read_bytes() for file in (tmp_path / "site").iterdir() if file.name != LIST}
    with pytest.raises(ReportError):
        write_pages(tmp_path / "site", all_views([]), failing(), NOW)
    after = {file.name: file.read_bytes() for file in (tmp_path / "site").iterdir()}
    assert before.items() <= after.items()


def test_reports_that_are_too_old_have_no_page_any_more(tmp_path: Path) -> None:
    write_pages(tmp_path / "site", all_views(REPORTS[:5]), REPORTS[:5], NOW)
    write_pages(tmp_path / "site", all_views(REPORTS[:2]), REPORTS[:2], NOW)
    pages = {file.name for file in (tmp_path / "site").glob("report-*.html")}
    assert pages == {f"report-{one.key}.html" for one in REPORTS[:2]}


def test_ten_thousand_reports_have_pages_in_seconds(tmp_path: Path) -> None:
    taken = itertools.count()

    def endless() -> Iterator[Stored]:
        for one in itertools.cycle(REPORTS):
            yield dataclasses.replace(one, key=key(next(taken)))

    def work(_: bytes) -> None:
        assert write_pages(tmp_path / "site", all_views(REPORTS), endless(), NOW) == MAX_REPORTS
        raise ReportError(f"{next(taken)} were read")  # That is how `cost` tells.

    spent = cost(bytes, work)
    assert spent.reason == f"{MAX_REPORTS + 1} were read"
    assert spent.seconds < 60  # 5 on an idle machine.
    assert spent.kilobytes < 60_000
    assert len(list((tmp_path / "site").iterdir())) == 1 + 6 + 2 * MAX_REPORTS + 40
    last = parse((tmp_path / "site/reports-40.html").read_text())
    assert f"than the {MAX_REPORTS:,} that have pages" in last.text


def test_the_largest_reports(tmp_path: Path) -> None:
    failures = tuple(
        Failure("validation-failure", 1, "é" * 900, "2001:db8::1", "2001:db8::2", f"{number}", None)
        for number in range(5_000)
    )
    large = report(YESTERDAY, "A", Policy("example.com", "sts", None, 0, 5000, failures))

    def work(_: bytes) -> None:
        sent = [stored(key(number), large, verified("a.example")) for number in range(50)]
        raise ReportError(f"{write_pages(tmp_path / 'site', all_views([]), [*sent, *REPORTS], NOW)} have pages")

    spent = cost(bytes, work)
    assert spent.reason == f"{3 + len(REPORTS)} have pages"
    assert spent.kilobytes < 130_000
    size = sum(file.stat().st_size for file in (tmp_path / "site").iterdir())
    assert MAX_OCTETS < size < MAX_OCTETS * 1.5
    assert f"than the {3 + len(REPORTS)} that have pages" in (tmp_path / "site/reports-1.html").read_text()


def fill(store: Store, reports: Iterable[Stored]) -> None:
    """As `import` would."""
    with store.transaction():
        for number, one in enumerate(reports):
            message = Message(f"{number}", f"{number}", 1, number, State.STORED, "", one.dkim, accepted=False)
            write_report(store, message, one.report, number)


def test_pages_of_what_is_stored(tmp_path: Path) -> None:
    forged = report(YESTERDAY, "B", Policy("example.com", "sts", None, 0, 9, ()))
    with Store(tmp_path / "reports.sqlite") as store:
        store.open()
        fill(store, [*reversed(REPORTS), stored("", forged, Dkim(DkimState.NONE, None, "no DKIM signature"))])
        assert write(store, tmp_path / "site", NOW) == len(REPORTS) + 1
    page = parse((tmp_path / "site/index.html").read_text())
    expected = parse(Pages(NOW, Links()).sources(views(REPORTS, 14), set()))
    assert page.table("Sources") == expected.table("Sources")
    assert page.table("Failures") == expected.table("Failures")
    reports = parse((tmp_path / "site/reports-1.html").read_text()).table("Reports")
    assert [
        "2026-03-09 00:00 to 2026-03-09 23:59",
        "unknown sender ! not verified B",
        "example.com",
        "0",
        "✗ 9 failed",
    ] in (reports[1:7])
    days = [row[0] for row in reports[1:]]
    assert days == sorted(days, reverse=True)


def test_nobody_takes_the_pages_of_the_others(tmp_path: Path) -> None:
    with Store(tmp_path / "reports.sqlite") as store:
        store.open()
        nobody, flood = Dkim(DkimState.NONE), verified("flood.example")
        few = [stored("", report(YESTERDAY - timedelta(number), "A"), verified("a.example")) for number in range(5)]
        many = [
            stored("", dataclasses.replace(report(YESTERDAY, "B"), report_id=f"{number}"), dkim)
            for number in range(20) for dkim in (nobody, flood)
        ]  # fmt: skip
        fill(store, [*few, *many])
        taken = list(stored_of(store, window(TODAY, 90), 12))
        everything = list(stored_of(store, window(TODAY, 90), 100))
        none = list(stored_of(store, Window(TODAY, TODAY), 100))
    assert Counter(one.dkim.domain for one in taken) == {"a.example": 5, "flood.example": 7}
    assert Counter(one.dkim.domain for one in everything) == {"a.example": 5, "flood.example": 20, None: 20}
    assert none == []
