"""The way of a newcomer, by the pages of the dashboard alone, in the world of test_publishing.

A domain is added, its owner copies the three lines into a real name server, it is checked, reports come, and a button
enforces its policy. Then the certificate of its MX host expires: the first page says so first, the sending side gets an
exception, and the real Postfix that sends has all of it in its log.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from tests.e2e.test_publishing import DOMAIN, SENT, Way, publishing, sending
from tests.e2e.test_publishing import way as way  # A fixture.
from tests.integration.reports.test_stored import failure
from tests.unit.reports.html import Element, parse
from tests.world.daemon import ask
from tests.world.dashboard import Dashboard, said
from tests.world.mail import LISTEN
from tests.world.postfix import Delivery

HOST = f"mx1.{DOMAIN}"
EXPIRED = "certificate has expired"

pytestmark = pytest.mark.timeout(400)  # Half a minute on a machine that does nothing else.


@dataclass
class Pages:
    """What somebody sees and presses."""

    dashboard: Dashboard
    client: httpx.Client

    def page(self, path: str) -> Element:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return parse(answer.text)

    def press(self, button: str, target: str = DOMAIN, status: int = 200, **form: str) -> list[str]:
        """The page before a change says what will happen. Then the change: what it printed."""
        before = next(self.page(f"/do/{button}/{target}").all("form"))
        assert len([one for one in before.all("p") if one.text]) > 2
        answer = self.dashboard.press(self.client, f"/do/{button}/{target}", form)
        assert answer.status_code == status, parse(answer.text).text
        return said(answer)

    def concerns(self) -> list[str]:
        """What the first page says, the first sentence first."""
        return [one.text for one in self.page("/").all("section")]

    def domain(self) -> list[str]:
        """The row of the domain in the list."""
        return self.page("/domains").table("Domains")[1]


@contextmanager
def opened(way: Way) -> Iterator[Pages]:
    """The dashboard of a machine that publishes, takes reports in and sends."""
    folder = way.folder / "web"
    folder.mkdir()
    with Dashboard(folder, {**sending(way.folder), **publishing(way.folder, way.dns)}) as web, web.client() as client:
        yield Pages(web, client)


def test_the_way_of_a_newcomer(way: Way) -> None:
    ask(LISTEN, DOMAIN)  # From now on, the sender's daemon knows the domain.
    with opened(way) as pages:
        publishes(way, pages)
        enforces(way, pages)
        waiting = breaks(way, pages)
        sends_all_the_same(way, pages, waiting)
        is_mended(way, pages)


def publishes(way: Way, pages: Pages) -> None:
    pages.press("add", "", domain=DOMAIN)
    records = [one.text for one in pages.page(f"/domains/{DOMAIN}").all("code") if " CNAME " in one.text]
    assert len(records) == 3
    assert pages.domain()[:4] == [DOMAIN, "testing", "! none yet", "! never"]
    for line in records:
        name, _, _, rdtype, data = line.split()
        way.dns.add(name.rstrip("."), rdtype, data)
    for _ in range(2):  # The file is seen, and then the record.
        pages.press("check")
    assert pages.domain()[:4] == [DOMAIN, "testing", "✓ seen", "✓ clean"]
    assert way.deliveries() == SENT


def enforces(way: Way, pages: Pages) -> None:
    """After two weeks without a failure: the list of domains says when it is safe."""
    assert pages.domain()[7] == "not ready"
    for _ in range(8):
        way.days(2)
        pages.press("check")
    for day in range(10):
        way.said(day)
    way.take_in()
    assert pages.page("/sources").table("Sources")[1][1:3] == ["60", "✓ none"]
    assert pages.domain()[5:] == ["120", "✓ none", "✓ ready"]
    pages.press("enforce")
    for _ in range(2):  # The file is seen, and then the record.
        pages.press("check")
    assert pages.domain()[:4] == [DOMAIN, "enforce", "✓ seen", "✓ clean"]
    assert way.deliveries() == SENT
    assert ask(LISTEN, DOMAIN) == f"OK secure match={HOST} servername=hostname"


def breaks(way: Way, pages: Pages) -> list[str]:
    """The certificate of the MX host expires. Returns the mails that wait."""
    way.days(2)
    pages.press("check")
    assert not pages.concerns()[0].startswith("✗ Domains")
    way.certificate(HOST, "expired")
    assert way.deliveries() == {("deferred", EXPIRED)}
    pages.press("check", status=409)
    assert f"{HOST} ✗ expired" in pages.domain()[4]
    first = pages.concerns()[0]
    assert first.startswith("✗ Domains ✗ error")
    assert f"The last check found problems with {DOMAIN} in mode enforce." in first
    waiting = way.sent.pop("deferred")
    way.said(0, failure("certificate-expired", len(waiting), HOST))
    way.take_in()
    assert "✗ error certificate-expired" in [row[0] for row in pages.page("/results").table("Results")]
    assert "2 organizations reported" in pages.page(f"/domains/{DOMAIN}").text
    return waiting


def sends_all_the_same(way: Way, pages: Pages, waiting: list[str]) -> None:
    """An exception: mail does not wait until somebody has mended the certificate."""
    reason = "they renew their certificate"
    assert pages.press("except", until="2999-12-31", reason=reason) == [f"{DOMAIN}: exception until 2999-12-31"]
    assert ask(LISTEN, DOMAIN) == "NOTFOUND "
    row = pages.page("/sending").table("Exceptions")[1]
    assert (row[0], row[1], row[4]) == (DOMAIN, "2999-12-31", reason)
    mistrusted(way.sender.deliver(f"fresh@{DOMAIN}"))
    way.sender.flush()
    # Mail to `fresh` is sent with what the daemon says now; what waits for other recipients has an older policy.
    fresh, *others = waiting
    mistrusted(way.sender.wait_for(fresh, attempt=2))
    assert {way.sender.wait_for(one, attempt=2).status for one in others} == {"deferred"}
    way.sent["deferred"] = others


def mistrusted(end: Delivery) -> None:
    """The mail was sent, over TLS that nobody was asked to verify."""
    assert (end.status, end.tls) == ("sent", "Untrusted"), end.lines


def is_mended(way: Way, pages: Pages) -> None:
    way.certificate(HOST, "good")
    assert pages.press("unexcept") == [f"{DOMAIN}: exception removed"]
    # What others reported in the last seven days still stands beside the check, which is clean.
    summary, alarm = pages.press("check", status=409)
    assert (summary, "2 organizations reported" in alarm) == (f"{DOMAIN}: mode enforce", True)
    assert pages.domain()[1:4] == ["enforce", "✓ seen", "✓ clean"]
    way.sender.flush()
    assert {way.sender.wait_for(one, attempt=3).status for one in way.sent.pop("deferred")} == {"sent"}
    assert way.deliveries() == SENT
    concern = next(one for one in pages.concerns() if "The last checks found no problem." in one)
    assert concern.startswith("✓ Domains ✓ well")
    history = [row[2] for row in pages.page(f"/domains/{DOMAIN}").table("History")]
    assert (history[-1][:5], any("enforce" in one for one in history)) == ("added", True)
