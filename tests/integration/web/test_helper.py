"""The dashboard has changes made, and mails read, by helpers, which systemd starts for each connection."""

import socket
import sqlite3
import subprocess
import threading
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

import pytest

from postfix_mtasts.reports.spool import Spool
from postfix_mtasts.web.helper import MAX_REPLY
from postfix_mtasts.web.run import PUBLISH, REPORTS
from tests.integration.publish.conftest import Place
from tests.integration.publish.conftest import place as place  # A fixture.
from tests.integration.web.conftest import changes, recent, tables
from tests.world.daemon import toml
from tests.world.dashboard import COMMAND, Dashboard, fill, said
from tests.world.systemd import accepting

DOMAIN = "example.test"


class Helpers:
    """Has a command run for each connection to a socket, as a unit with Accept=yes does."""

    def __init__(self, folder: Path, config: Path) -> None:
        self._folder = folder
        self._config = config

    def listen(self, program: str) -> AbstractContextManager[None]:
        command = [str(COMMAND), "--helper", program, "--config", str(self._config)]

        def serve(connection: socket.socket) -> None:
            ends = connection.fileno()
            subprocess.run(command, stdin=ends, stdout=ends, check=True, timeout=60)

        return accepting(self._folder / program, serve)


@pytest.fixture
def helpers(place: Place) -> Helpers:
    config = place.folder / "helper.toml"
    config.write_text(toml(configuration(place)))
    return Helpers(place.folder, config)


def configuration(place: Place) -> dict[str, dict[str, object]]:
    return {**tables(place.folder), "dns": {"nameservers": ["127.0.0.1"], "timeout": 20.0}}


def test_a_helper_changes_what_is_published(place: Place, helpers: Helpers) -> None:
    place.mx(DOMAIN)
    dashboard = Dashboard(place.folder, configuration(place), helpers=place.folder, user_header="X-Remote-User")
    with dashboard, dashboard.client(user="anna") as client:
        nobody = dashboard.press(client, "/do/add/", {"domain": DOMAIN})
        assert (nobody.status_code, said(nobody)) == (
            409, ["error: the helper for postfix-mtasts-publish: no such file or directory"]
        )  # fmt: skip
        assert changes(place.folder) == []
        with helpers.listen(PUBLISH):
            added = dashboard.press(client, "/do/add/", {"domain": DOMAIN})
            refused = dashboard.press(client, f"/do/enforce/{DOMAIN}")
        assert added.status_code == 200, said(added)
        assert "mode: testing" in (place.served(DOMAIN) or "")
        assert [(domain, who) for domain, who, _ in changes(place.folder)] == [(DOMAIN, "anna")]
        assert refused.status_code == 409
        assert said(refused)[0].startswith("error: ")
    assert [line for line in dashboard.log() if "command=" in line] == [
        f"INFO: user=anna, command=postfix-mtasts-publish add {DOMAIN}: unavailable",
        f"INFO: user=anna, command=postfix-mtasts-publish add {DOMAIN}: ok",
        f"INFO: user=anna, command=postfix-mtasts-publish mode {DOMAIN} enforce: error",
    ]


def test_a_helper_reads_mails(place: Place, helpers: Helpers) -> None:
    key = fill(place.folder / "reports.sqlite", list(recent(1))[:1])[0]
    dashboard = Dashboard(place.folder, configuration(place), helpers=place.folder)
    path = f"/reports/{key}.eml"
    with dashboard, dashboard.client() as client:
        # What nobody has looked for is not said to be gone.
        masked = client.get(path)
        assert masked.status_code == 503
        assert "the helper for postfix-mtasts-reports: no such file or directory" in masked.text
    with dashboard, dashboard.client() as client, helpers.listen(REPORTS):
        gone = client.get(path)
        assert (gone.status_code, "The mail is not kept any more" in gone.text) == (404, True)
        (name,) = stored(place.folder)
        spool = Spool(place.folder / "mails")
        spool.open()
        (place.folder / "mails/cur" / name).write_bytes(b"From: a@b\r\n\r\n\xff")
        answer = client.get(path)
        assert (answer.status_code, answer.content) == (200, b"From: a@b\r\n\r\n\xff")


def stored(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "reports.sqlite")) as database:
        return [name for (name,) in database.execute("SELECT name FROM messages")]


REPLIES = (b"", b"[]\n", b'{"status": 7, "lines": []}\n', b"x" * 100 * 2**16)


def test_what_is_no_answer(place: Place) -> None:
    sent: list[int] = []

    def serve() -> None:
        for reply in REPLIES:
            connection, _ = listener.accept()
            with connection:
                connection.recv(2**16)
                sent.append(0)
                with suppress(OSError):  # The dashboard has read enough.
                    while sent[-1] < len(reply):
                        sent[-1] += connection.send(reply[sent[-1] : sent[-1] + 2**16])

    dashboard = Dashboard(place.folder, configuration(place), helpers=place.folder)
    with socket.socket(socket.AF_UNIX) as listener, dashboard, dashboard.client() as client:
        listener.bind(str(place.folder / PUBLISH))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        answers = [dashboard.press(client, f"/do/check/{DOMAIN}") for _ in REPLIES]
        thread.join()
    why = ["error: the helper for postfix-mtasts-publish: it ended without an answer: see its journal"]
    assert [(one.status_code, said(one)) for one in answers] == [(409, why)] * len(REPLIES)
    assert sent[:3] == [len(reply) for reply in REPLIES[:3]]
    assert sent[3] < MAX_REPLY + 2**20  # What the kernel holds comes on top.
