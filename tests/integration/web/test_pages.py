"""What the pages show: the same as the commands, whatever reports and policies hold, within bounds."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.state import DAY, Clock, State, record_id
from postfix_mtasts.publish.store import Store
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode, MxPattern, Policy
from tests.integration.web.conftest import NOW, recent, tables
from tests.unit.reports.html import parse
from tests.unit.reports.made import TODAY
from tests.unit.reports.test_pages import HOSTILE, everywhere
from tests.world.dashboard import Dashboard, fill, said, used
from tests.world.reports import fill as fill_many

SAID = [words for words in HOSTILE if "\ud800" not in words]  # A report with it is never stored.
MAX_PAGE = 200_000  # Octets.
MAX_SECONDS = 0.5  # Of the processor, which another load of the machine hardly changes.


def text(client: httpx.Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8"), answer.text
    return answer.text


def test_the_views_are_those_of_reports(client: httpx.Client) -> None:
    sources = parse(text(client, "/sources?days=14"))
    assert [row[0] for row in sources.table("Sources")] == [
        "Source", "google.com Google Inc.", "microsoft.com Microsoft Corporation", "mail.de mail.de GmbH",
        "comcast.net Comcast", "posteo.example Posteo",
    ]  # fmt: skip
    results = parse(text(client, "/results"))
    assert [row[0] for row in results.table("Results")] == [
        "Result", "✓ succeeded", "✗ error certificate-expired", "✗ error validation-failure",
        "! warning sts-policy-fetch-error",
    ]  # fmt: skip
    links = [one.attributes["href"] for one in results.all("a") if "/do/" in (one.attributes["href"] or "")]
    assert links == ["/do/probe/example.com", "/do/compare/example.com"] * 3


def test_a_report_and_its_files(client: httpx.Client) -> None:
    listed = parse(text(client, "/reports"))
    assert len(listed.table("Reports")) == 101
    second = parse(text(client, "/reports?page=2"))
    links = [
        one.attributes["href"] for one in second.all("a") if (one.attributes["href"] or "").startswith("/reports/")
    ]
    assert len(links) == 100
    page = parse(text(client, links[0] or ""))
    assert page.table("Policies")[0] == ["Domain", "Policy", "Succeeded", "Failed"]
    found = client.get(f"{links[0]}.json")
    assert found.headers["content-disposition"] == f'attachment; filename="{(links[0] or "").split("/")[-1]}.json"'
    assert found.json()["organization"]
    assert client.get(f"{links[0]}.eml").status_code == 404  # It is made, and there was no mail.


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """Each report has one hostile text in every field."""
    folder = tmp_path_factory.mktemp("hostile")
    shift = NOW.date() - TODAY
    made = [everywhere(words, f"{number:020}") for number, words in enumerate(SAID)]
    reports = [replace(one.report, start=one.report.start + shift, end=one.report.end + shift) for one in made]
    fill(folder / "reports.sqlite", [replace(one, report=report) for one, report in zip(made, reports, strict=True)])
    with Dashboard(folder, tables(folder)) as started:
        yield started


def test_what_a_report_says_is_text(hostile: Dashboard) -> None:
    with hostile.client() as client:
        pages = ["/", "/sources", "/results", "/reports", "/sources?days=90"]
        listed = parse(text(client, "/reports"))
        pages += [
            one.attributes["href"] or "" for one in listed.all("a") if "/reports/" in (one.attributes["href"] or "")
        ]
        assert len(pages) == 5 + len(SAID)
        for path in pages:
            answer = client.get(path)
            page = parse(answer.text)
            scripts = [one.attributes for one in page.all("script")]
            assert (path, scripts) == (path, [{"src": "/script.js", "defer": None}])
            assert list(page.all("img", "iframe", "object", "embed", "base")) == []
            for element in page.all("a"):
                assert (element.attributes["href"] or "").startswith("/")
            assert all(character.isprintable() or character == "\n" for character in answer.text)


@pytest.mark.parametrize(
    "words", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\x1b[31mred", "‮evil"]
)
def test_what_a_form_says_is_text(dashboard: Dashboard, client: httpx.Client, words: str) -> None:
    answer = dashboard.press(client, "/do/enforce/example.com", {"reason": words})
    page = parse(answer.text)
    assert [one.attributes for one in page.all("script")] == [{"src": "/script.js", "defer": None}]
    assert list(page.all("img")) == []
    assert all(character.isprintable() or character == "\n" for character in answer.text)


def test_what_is_to_be_copied_or_sent_again_is_whole(dashboard: Dashboard, client: httpx.Client) -> None:
    reason = "Ünaufschiebbar " * 30
    answer = dashboard.press(client, "/do/enforce/example.com", {"reason": reason})
    (command,) = (one.text for one in parse(answer.text).all("code"))
    assert command == f"postfix-mtasts-publish mode example.com enforce '--force={reason.strip()}'"
    assert said(answer) == ["error: example.com: is not published here", "hint: postfix-mtasts-publish list"]
    wrong = dashboard.press(client, "/do/add/", {"domain": "x" * 300, "mx": reason})
    assert wrong.status_code == 400
    fields = {one.attributes["name"]: one.attributes["value"] for one in parse(wrong.text).all("input")}
    assert (fields["domain"], fields["mx"]) == ("x" * 300, reason)


def test_one_database_in_trouble_leaves_the_rest_to_be_seen(tmp_path: Path) -> None:
    fill(tmp_path / "reports.sqlite", list(recent(14)))
    publish(tmp_path, ["example.com", f"{'long.' * 20}example.com"])
    with Dashboard(tmp_path, tables(tmp_path)) as dashboard, dashboard.client() as client:
        before = parse(text(client, "/domains"))
        records = [one.text for one in parse(text(client, f"/domains/{'long.' * 20}example.com")).all("code")]
        assert all(one.endswith((".provider.test.", '"')) for one in records), records
        damage(tmp_path / "reports.sqlite")
        after = parse(text(client, "/domains"))
        assert [row[:5] for row in after.table("Domains")] == [row[:5] for row in before.table("Domains")]
        assert [row[5:] for row in after.table("Domains")[1:]] == [["unknown", "–", "–"]] * 2
        page = parse(text(client, "/domains/example.com"))
        for one in (after, page):
            assert f"TLS reports: {tmp_path}/reports.sqlite: file is not a database (move it away" in one.text
        assert "Policy now" in page.text
        damage(tmp_path / "publish.sqlite")
        overview = parse(text(client, "/"))
        assert f"{tmp_path}/publish.sqlite: file is not a database." in overview.text
        assert [one.text for one in overview.all("h2")] == ["Sending ✗ error", "Domains ✗ error", "Reports ✗ error"]


def damage(path: Path) -> None:
    for log in path.parent.glob(f"{path.name}-*"):
        log.unlink()
    path.write_bytes(b"no database" * 1000)


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    with Dashboard(tmp_path, tables(tmp_path)) as empty, empty.client() as client:
        overview = parse(text(client, "/"))
        assert [one.text for one in overview.all("h2")] == ["Sending ✗ error", "Domains i note", "Reports i note"]
        assert "no report has been taken in yet" in text(client, "/sources", 503)
        assert "No domain is published here." in text(client, "/domains")
        assert "the daemon cannot be reached" in text(client, "/sending", 503)
    assert not (tmp_path / "publish.sqlite").exists()  # To look makes nothing.
    assert not (tmp_path / "reports.sqlite").exists()


def test_pages_of_a_million_failures_in_400_days_have_bounds(tmp_path: Path) -> None:
    fill_many(tmp_path / "reports.sqlite", 400, 1_000_000)
    names = [f"domain{number}.example" for number in range(4)]
    publish(tmp_path, names)
    with Dashboard(tmp_path, tables(tmp_path)) as large, large.client() as client:
        first = [one for one in text(client, "/reports").split('"') if one.startswith("/reports/")]
        found = {}
        for path in (
            "/", "/sources?days=90", "/sources?days=90&source=sender1.example", "/results?days=90", "/reports?page=50",
            first[0], "/domains", f"/domains/{names[0]}",
        ):  # fmt: skip
            client.get(path)  # The second time, the file is in memory.
            begun, wall = used(large.pid), time.monotonic()
            octets = len(text(client, path).encode())
            found[path] = (octets, round(used(large.pid) - begun, 2), round(time.monotonic() - wall, 2))
        assert max(octets for octets, *_ in found.values()) <= MAX_PAGE, found
        assert max(seconds for _, seconds, _ in found.values()) <= MAX_SECONDS, found


def publish(folder: Path, names: Sequence[str]) -> None:
    """Domains that have been published for 400 days."""
    policy = Policy(Mode.TESTING, 604_800, (MxPattern("mx1.example.com"),))
    store, clock = Store(str(folder / "publish.sqlite")), Clock(500 * DAY, time.time())
    for name in names:
        state = State(PolicyDomain(name), policy, clock, record=record_id(policy), announced_at=100 * DAY, known=True)
        store.save(follows(state), "the test", time.time())
    store.close()
