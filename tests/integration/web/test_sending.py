"""What the running daemon holds: shown, fetched again, and forgotten."""

import socket
from pathlib import Path

from tests.integration.conftest import World
from tests.unit.reports.html import parse
from tests.world.daemon import Daemon, ask
from tests.world.dashboard import Dashboard, said

DOMAIN = "held.test"


def test_what_the_daemon_has_is_shown_fetched_and_forgotten(world: World, tmp_path: Path) -> None:
    world.publish(DOMAIN, f"version: STSv1\nmode: enforce\nmx: mx.{DOMAIN}\nmax_age: 86400\n")
    configured = world.configuration(tmp_path)
    with Daemon(tmp_path, configured), Dashboard(tmp_path, configured) as dashboard, dashboard.client() as client:
        assert ask(f"unix:{tmp_path / 'socket'}", DOMAIN).startswith("OK secure ")
        page = parse(client.get("/sending").text)
        row = page.table("Other policies")[1]
        assert row[0] == f"✓ well {DOMAIN}"
        assert row[1].startswith("mode enforce, expires in ")
        buttons = [one.text for one in page.all("a") if one.attributes.get("class") == "button"]
        assert buttons == ["Add an exception", f"Fetch a policy again: {DOMAIN}", f"Forget a policy: {DOMAIN}"]
        assert said(dashboard.press(client, f"/do/refresh/{DOMAIN}"))[0].startswith(f"{DOMAIN}: fetched: mode enforce")
        world.dns.remove(f"mta-sts.{DOMAIN}")
        failed = said(dashboard.press(client, f"/do/refresh/{DOMAIN}"))
        assert failed[0].startswith(f"{DOMAIN}: not fetched: ")
        troubled = parse(client.get("/sending").text).table("Policies that could not be fetched or renewed")[1]
        assert troubled[0].startswith(f"! warning {DOMAIN} failed ")
        # An exception: Postfix is answered as if there were no policy, and again as before.
        form = {"until": "2999-12-31", "reason": "<i>known</i>"}
        wrong = dashboard.press(client, f"/do/except/{DOMAIN}", form | {"until": "yesterday"})
        assert (wrong.status_code, "must be a date such as 2026-12-31" in wrong.text) == (409, True)
        assert said(dashboard.press(client, f"/do/except/{DOMAIN}", form)) == [f"{DOMAIN}: exception until 2999-12-31"]
        assert ask(f"unix:{tmp_path / 'socket'}", DOMAIN) == "NOTFOUND "
        sending = parse(client.get("/sending").text)
        held = sending.table("Policies that could not be fetched or renewed")[1]
        assert held[0].startswith(f"! warning {DOMAIN} ! an exception holds instead failed ")
        exempt = sending.table("Exceptions")[1]
        assert exempt[:3] == [DOMAIN, "2999-12-31", "no policy"]
        assert (exempt[4], exempt[5]) == ("<i>known</i>", f"End an exception: {DOMAIN}")
        assert said(dashboard.press(client, f"/do/unexcept/{DOMAIN}")) == [f"{DOMAIN}: exception removed"]
        assert ask(f"unix:{tmp_path / 'socket'}", DOMAIN).startswith("OK secure ")
        assert said(dashboard.press(client, f"/do/forget/{DOMAIN}")) == [f"{DOMAIN}: forgotten"]
        assert said(dashboard.press(client, f"/do/forget/{DOMAIN}")) == [f"{DOMAIN}: nothing was cached"]


def test_postfix_is_answered_whatever_becomes_of_the_dashboard(world: World, tmp_path: Path) -> None:
    world.publish("mail.test", "version: STSv1\nmode: enforce\nmx: mx.mail.test\nmax_age: 86400\n")
    configured = world.configuration(tmp_path)
    endpoint = f"unix:{tmp_path / 'socket'}"
    with Daemon(tmp_path, configured), Dashboard(tmp_path, configured) as dashboard:
        reply = ask(endpoint, "mail.test")
        slow = [socket.create_connection(("127.0.0.1", dashboard.port)) for _ in range(300)]
        assert ask(endpoint, "mail.test") == reply == "OK secure match=mx.mail.test servername=hostname"
        dashboard.kill()
        for one in slow:
            one.close()
        assert ask(endpoint, "mail.test") == reply
