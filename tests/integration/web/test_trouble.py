"""The dashboard beside others that do not answer, or not as they should."""

import socket
import threading
from contextlib import suppress
from pathlib import Path

import httpx

from tests.integration.web.conftest import tables
from tests.unit.reports.html import parse
from tests.world.dashboard import Dashboard, token_of
from tests.world.systemd import accepting

DOMAIN = "example.com"


def answer(connection: socket.socket) -> None:
    """As a daemon of another version."""
    with suppress(OSError):
        connection.recv(4096)
        connection.sendall(b'{"another": "document"}\n{"done": true}\n')


def test_a_daemon_of_another_version_breaks_one_page(tmp_path: Path) -> None:
    with (
        accepting(tmp_path / "control", answer),
        Dashboard(tmp_path, tables(tmp_path)) as dashboard,
        dashboard.client() as client,
    ):
        shown = client.get("/sending")
        page = parse(shown.text)
        assert (shown.status_code, [one.text for one in page.all("h1")]) == (500, ["This page cannot be made"])
        assert "Internal error, KeyError. The log has more" in page.text
        assert shown.headers["x-frame-options"] == "DENY"
        with dashboard.client() as another:
            assert another.get("/domains").status_code == 200
    assert "KeyError: 'modes'" in dashboard.log()


def test_it_ends_though_a_helper_does_not(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as helper:
        helper.bind(str(tmp_path / "postfix-mtasts-publish"))
        helper.listen()
        # It is told to end when the block is left, which fails if it has not ended after a while.
        with Dashboard(tmp_path, tables(tmp_path), helpers=tmp_path) as dashboard, dashboard.client() as client:
            token = token_of(client.get(f"/do/check/{DOMAIN}").text)

            def press() -> None:
                with suppress(httpx.TransportError):
                    client.post(f"/do/check/{DOMAIN}", data={"token": token}, headers={"origin": dashboard.url})

            pressing = threading.Thread(target=press)
            pressing.start()
            connection, _ = helper.accept()
        pressing.join()
        connection.close()
