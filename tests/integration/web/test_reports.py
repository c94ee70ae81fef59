"""The buttons on reports: sources that are hidden, the view as JSON, and mails in quarantine."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from postfix_mtasts.web.reported import MAX_KEPT, MAX_READ
from tests.integration.reports.conftest import Signer
from tests.integration.reports.conftest import dns as dns  # Fixtures.
from tests.integration.reports.conftest import signer as signer
from tests.integration.reports.mails import ORG, Desk, mail, report, signed
from tests.integration.reports.test_stored import DOMAIN, about, failure, policy
from tests.integration.web.conftest import tables
from tests.unit.reports.html import Element, parse
from tests.unit.reports.test_pages import HOSTILE
from tests.world.dashboard import Dashboard, said
from tests.world.dns import DnsServer

FOREIGN = "example.net"
SAID = [words for words in HOSTILE if words.isprintable() and "\ud800" not in words and words]


@pytest.fixture
def desk(tmp_path: Path, dns: DnsServer, signer: Signer) -> Desk:
    """Two sources, and mails in quarantine: of others' domains, without a report, too large, and hostile."""
    desk = Desk(tmp_path, dns, domains=[DOMAIN])
    expired = failure("certificate-expired", 30)
    take_in(
        desk,
        signed(signer, about(0, 1, policy(900, 30, expired))),
        signed(signer, about(0, 1, policy(10, 0)), "other.example"),
        signed(signer, report(7, FOREIGN, **{"contact-info": None})),
        b"From: a@b.example\r\n\r\n<script>no report</script>",
        mail(report(8, FOREIGN)) + b"x" * MAX_READ,
    )
    return desk


def take_in(desk: Desk, *mails: bytes) -> None:
    folder = desk.config.parent / "inbox"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{number}.eml" for number in range(len(mails))]
    for file, content in zip(files, mails, strict=True):
        file.write_bytes(content)
    assert desk.run("import", *files).returncode == 2  # Some are quarantined.


@pytest.fixture
def dashboard(desk: Desk, tmp_path: Path) -> Iterator[Dashboard]:
    ours = tables(tmp_path)
    ours["reports"] = {"path": str(desk.database), "domains": [DOMAIN]}
    with Dashboard(tmp_path, ours, user_header="X-Remote-User") as started:
        yield started


@pytest.fixture
def client(dashboard: Dashboard) -> Iterator[httpx.Client]:
    with dashboard.client(user="anna") as opened:
        yield opened


def buttons(page: Element) -> list[str | None]:
    return [one.attributes["href"] for one in page.all("a") if (one.attributes["href"] or "").startswith("/do/")]


def page(client: httpx.Client, path: str, status: int = 200) -> Element:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return parse(answer.text)


def test_a_source_is_hidden_and_shown_again(dashboard: Dashboard, client: httpx.Client) -> None:
    before = page(client, "/sources")
    assert buttons(before) == [f"/do/hide/{ORG}", "/do/hide/other.example"]
    totals = [one.text for one in before.all("dd")]
    assert said(dashboard.press(client, f"/do/hide/{ORG}")) == [f"{ORG}: hidden until it changes"]
    after = page(client, "/sources")
    assert [row[0].split()[0] for row in after.table("Sources")[1:]] == ["other.example"]
    assert [one.text for one in after.all("dd")] == totals
    named = next(one for one in after.all("section") if one.text.startswith("Hidden until they change"))
    assert [(one.text, one.attributes["href"]) for one in named.all("a")] == [(ORG, f"/sources?days=14&source={ORG}")]
    # Its page is there, with the button that ends it.
    one = page(client, f"/sources?days=14&source={ORG}")
    assert [row[0].split()[0] for row in one.table("Sources")[1:]] == [ORG]
    assert buttons(one) == [f"/do/unhide/{ORG}"]
    assert said(dashboard.press(client, f"/do/unhide/{ORG}")) == [f"{ORG}: shown again"]
    assert buttons(page(client, "/sources")) == [f"/do/hide/{ORG}", "/do/hide/other.example"]
    assert "No such source reported" in page(client, "/sources?source=nobody.example", 404).text
    refused = dashboard.press(client, "/do/hide/nobody.example")
    assert (refused.status_code, said(refused)) == (409, ["error: no verified report of nobody.example is stored"])
    log = [line for line in dashboard.log() if "command=" in line]
    assert log == [
        f"INFO: user=anna, command=postfix-mtasts-reports hide {ORG}: ok",
        f"INFO: user=anna, command=postfix-mtasts-reports unhide {ORG}: ok",
        "INFO: user=anna, command=postfix-mtasts-reports hide nobody.example: error",
    ]


def test_the_view_as_json_is_what_the_command_prints(desk: Desk, client: httpx.Client) -> None:
    desk.run("hide", "other.example")
    link = next(one.attributes["href"] for one in page(client, "/sources?days=2").all("a") if "JSON" in one.text)
    answer = client.get(link or "")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == 'attachment; filename="sources-2.json"'
    assert answer.json() == desk.json("sources", "--days", "2")
    assert (answer.json()["hidden"], len(answer.json()["sources"])) == (["other.example"], 1)
    assert client.get("/sources.json?days=3").status_code == 404


def test_a_mail_in_quarantine(desk: Desk, dashboard: Dashboard, client: httpx.Client) -> None:
    foreign, no_report, large = (number for number, _ in desk.quarantine())
    listed = page(client, "/reports")
    links = [one.attributes["href"] for one in listed.all("a") if "/quarantine/" in (one.attributes["href"] or "")]
    assert links == [f"/quarantine/{number}" for number in (foreign, no_report, large)]
    one = page(client, f"/quarantine/{foreign}")
    assert f"about {FOREIGN}: not in reports.domains" in one.text
    assert f"✓ verified, signed by {ORG}" in one.text
    assert "contact-info is missing" in one.text
    assert one.table("Policies")[1][0] == FOREIGN
    assert buttons(one) == [f"/do/accept/{foreign}", f"/do/drop/{foreign}"]
    raw = client.get(f"/quarantine/{foreign}.eml")
    assert raw.content == next(desk.spool.glob(f"cur/{name_of(desk, foreign)}")).read_bytes()
    assert raw.headers["content-disposition"] == f'attachment; filename="quarantine-{foreign}.eml"'
    other = page(client, f"/quarantine/{no_report}")
    assert "no report in this mail" in other.text
    assert not list(other.all("table"))
    unread = page(client, f"/quarantine/{large}")
    assert "It is larger than 256 KiB." in unread.text
    assert not list(unread.all("table"))
    # The page before says what will happen; then the report counts, and the other mail is gone.
    assert "whatever domain it is about" in page(client, f"/do/accept/{foreign}").text
    assert dashboard.press(client, f"/do/accept/{foreign}").status_code == 200
    assert desk.sessions()[ORG, True] == (900 + 5326, 30 + 303)
    assert dashboard.press(client, f"/do/drop/{no_report}").status_code == 200
    assert [number for number, _ in desk.quarantine()] == [large]
    for gone in (foreign, no_report):
        assert "It is not in quarantine any more" in page(client, f"/quarantine/{gone}", 404).text
        assert client.get(f"/quarantine/{gone}.eml").status_code == 404
    refused = dashboard.press(client, f"/do/drop/{no_report}")
    assert said(refused) == [f"error: there is no message {no_report} in quarantine"]


def name_of(desk: Desk, number: int) -> str:
    with closing(sqlite3.connect(desk.database)) as database:
        (name,) = database.execute("SELECT name FROM messages WHERE id = ?", (number,)).fetchone()
    return str(name)


def test_what_is_no_number_is_no_page(client: httpx.Client) -> None:
    for number in ("0", "-1", "x", "1" * 16, "1" * 15, "%2e%2e%2fetc%2fpasswd", "1.eml.eml"):
        statuses = [client.get(f"/quarantine/{number}{end}").status_code for end in ("", ".eml")]
        assert (number, statuses) == (number, [404, 404])


def test_what_a_mail_in_quarantine_says_is_text(desk: Desk, client: httpx.Client) -> None:
    mails = []
    for number, words in enumerate(SAID):
        made = report(number, words, **{"organization-name": words, "report-id": words, "contact-info": words})
        made["policies"][0]["failure-details"][0] |= {
            "result-type": words, "receiving-mx-hostname": words, "additional-information": words,
        }  # fmt: skip
        mails.append(mail(made))
    mails += [b"From: a@b.example\r\n\r\n%d" % number for number in range(MAX_KEPT)]
    take_in(desk, *mails)
    kept = desk.quarantine()
    assert len(kept) == 3 + len(SAID) + MAX_KEPT
    # Whoever sends many does not bury the reports.
    listed = page(client, "/reports")
    assert len(listed.table("Quarantine")) == 1 + MAX_KEPT
    assert f"{len(kept) - MAX_KEPT} more are in quarantine" in listed.text
    second = page(client, "/reports?page=2")
    assert ("Quarantine" in second.text, "There are no earlier reports." in second.text) == (False, True)
    for number, _ in kept[: 3 + len(SAID)]:
        answer = client.get(f"/quarantine/{number}")
        found = parse(answer.text)
        assert [one.attributes for one in found.all("script")] == [{"src": "/script.js", "defer": None}]
        assert list(found.all("img", "iframe", "object", "embed", "base")) == []
        assert all((one.attributes["href"] or "").startswith("/") for one in found.all("a"))
        assert all(character.isprintable() or character == "\n" for character in answer.text)
