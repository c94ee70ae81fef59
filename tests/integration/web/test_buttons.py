"""The buttons in a small Internet: what each page before a change says, what is changed, and who did it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.publish.conftest import NAMESERVER, WEB, ZONE, Place
from tests.integration.publish.conftest import place as place  # A fixture.
from tests.integration.web.conftest import changes, tables
from tests.unit.reports.html import parse
from tests.world.dashboard import Dashboard, said

DOMAIN = "example.test"
TESTING = "version: STSv1\r\nmode: testing\r\nmx: mx1.example.test\r\nmax_age: 604800\r\n"


@contextmanager
def opened(place: Place, user_header: str) -> Iterator[Dashboard]:
    """A dashboard with the configuration of the place."""
    ours = tables(place.folder)
    ours["publish"] |= {"addresses": [WEB], "zone": ZONE, "ca": "ca.test"}
    ours["dns"] = {"nameservers": [NAMESERVER], "timeout": 20.0}
    ours["fetch"] = {"ca_file": str(place.ca.file), "allow_addresses": ["127.0.0.0/8"]}
    with Dashboard(place.folder, ours, user_header=user_header) as dashboard:
        yield dashboard


def test_a_domain_from_the_first_button_to_the_last(place: Place) -> None:
    place.mx(DOMAIN)
    with opened(place, user_header="X-Remote-User") as dashboard, dashboard.client(user="anna") as client:
        # The page before says what will happen, and changes nothing.
        before = parse(client.get("/do/add/").text)
        assert "mode testing" in next(before.all("form")).text
        assert changes(place.folder) == []
        assert dashboard.press(client, "/do/add/", {"domain": DOMAIN}).status_code == 200
        assert place.served(DOMAIN) == TESTING
        page = parse(client.get(f"/domains/{DOMAIN}").text)
        records = [one.text for one in page.all("code") if "CNAME" in one.text]
        assert records == [
            f"_mta-sts.{DOMAIN}. 300 IN CNAME {DOMAIN}._mta-sts.{ZONE}.",
            f"mta-sts.{DOMAIN}. 300 IN CNAME policy.{ZONE}.",
            f"_smtp._tls.{DOMAIN}. 300 IN CNAME _smtp._tls.{ZONE}.",
        ]
        place.customer(DOMAIN)
        place.load_zone()
        assert said(dashboard.press(client, f"/do/check/{DOMAIN}"))[0] == f"{DOMAIN}: mode testing"
        place.load_zone()
        dashboard.press(client, f"/do/check/{DOMAIN}")
        answer = client.get("/domains")
        assert answer.status_code == 200, parse(answer.text).text
        listed = parse(answer.text).table("Domains")
        assert listed[1][:4] == [DOMAIN, "testing", "✓ seen", "✓ clean"]
        left = re.fullmatch(rf"mta-sts\.{DOMAIN} ✓ (\d+) days mx1\.{DOMAIN} ✓ (\d+) days", listed[1][4])
        assert left, listed[1][4]
        assert left[1] == left[2]
        # The MX host breaks: a reason is needed.
        place.dns.remove(f"mx1.{DOMAIN}")
        refused = dashboard.press(client, f"/do/enforce/{DOMAIN}")
        assert (refused.status_code, place.served(DOMAIN)) == (409, TESTING)
        assert any("error: " in line for line in said(refused))
        forced = dashboard.press(client, f"/do/enforce/{DOMAIN}", {"reason": "<b>it</b> is known"})
        assert forced.status_code == 200
        assert "mode: enforce" in (place.served(DOMAIN) or "")
        dashboard.press(client, f"/do/check/{DOMAIN}")
        overview = parse(client.get("/").text)
        concern = next(one for one in overview.all("section") if "Domains" in one.text)
        assert f"The last check found problems with {DOMAIN} in mode enforce." in concern.text
        history = parse(client.get(f"/domains/{DOMAIN}").text).table("History")
        assert history[-1][1:] == ["anna", "added: mode testing, mx mx1.example.test"]
        assert any("<b>it</b> is known" in row[2] for row in history)
        dashboard.press(client, f"/do/testing/{DOMAIN}")
        dashboard.press(client, f"/do/remove/{DOMAIN}")
        assert "leaving" in parse(client.get("/domains").text).table("Domains")[1][1]
        assert {who for _, who, _ in changes(place.folder)} == {"anna"}
        log = [line for line in dashboard.log() if "command=" in line]
    assert log == [
        f"INFO: user=anna, command=postfix-mtasts-publish add {DOMAIN}: ok",
        f"INFO: user=anna, command=postfix-mtasts-publish check {DOMAIN}: ok",
        f"INFO: user=anna, command=postfix-mtasts-publish check {DOMAIN}: ok",
        f"INFO: user=anna, command=postfix-mtasts-publish mode {DOMAIN} enforce: error",
        f"INFO: user=anna, command=postfix-mtasts-publish mode {DOMAIN} enforce '--force=<b>it</b> is known': ok",
        f"INFO: user=anna, command=postfix-mtasts-publish check {DOMAIN}: error",
        f"INFO: user=anna, command=postfix-mtasts-publish mode {DOMAIN} testing: ok",
        f"INFO: user=anna, command=postfix-mtasts-publish remove {DOMAIN}: ok",
    ]
