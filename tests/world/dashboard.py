"""The dashboard as its users run it: `postfix-mtasts-web` as a process, made facts for it, and a client."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from postfix_mtasts.reports.facts import Stored
from postfix_mtasts.reports.records import Message, write
from postfix_mtasts.reports.store import Store
from postfix_mtasts.reports.verdict import State
from tests.unit.reports.html import parse
from tests.world.daemon import Config, toml

COMMAND = Path(sys.executable).with_name("postfix-mtasts-web")
TOKEN = "0123456789abcdef0123456789abcdef"
_WAIT = 20  # Seconds.


class Dashboard:
    """`with Dashboard(folder, tables) as dashboard: …`, on a port of this machine, with a token in a file.

    With `socket_path`, it is on a Unix socket instead, without a token.

    `tables` are those of the configuration beside `[web]`; `web` is what else that has.
    """

    def __init__(self, folder: Path, tables: Config, *, socket_path: Path | None = None, **web: object) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        token = folder / "token"
        token.write_text(f"{TOKEN}\n")
        token.chmod(0o600)
        self.url = f"http://127.0.0.1:{self.port}"
        self._config = folder / "dashboard.toml"
        self._socket_path = socket_path
        ours: dict[str, object] = {"listen": f"inet:127.0.0.1:{self.port}", "token_file": str(token)}
        if socket_path:
            ours = {"listen": f"unix:{socket_path}", "group": ""}
        self._config.write_text(toml({**tables, "web": ours | web}))
        self._log = folder / "dashboard.log"

    def __enter__(self) -> Self:
        with self._log.open("wb") as output:
            self._process = subprocess.Popen([COMMAND, "--config", self._config], stderr=output)
        deadline = time.monotonic() + _WAIT
        while True:
            try:
                self._connect()
            except (ConnectionRefusedError, FileNotFoundError):
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.02)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(_WAIT)
        finally:
            self._process.kill()
            self._process.wait()
        assert error or status in (0, -signal.SIGKILL), self.log()

    def kill(self) -> None:
        """End it as the kernel does when memory is short."""
        self._process.kill()
        self._process.wait()

    def _connect(self) -> None:
        if not self._socket_path:
            socket.create_connection(("127.0.0.1", self.port)).close()
            return
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket_path))

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def log(self) -> list[str]:
        """What it has logged."""
        return self._log.read_text().splitlines()

    def client(self, *, token: str = TOKEN, user: str = "") -> httpx.Client:
        """Somebody who has the token, and whose name a proxy gives."""
        headers = {"x-remote-user": user} if user else {}
        return httpx.Client(
            base_url=self.url, auth=("anna", token), headers=headers, timeout=60, trust_env=False
        )  # fmt: skip

    def press(self, client: httpx.Client, path: str, form: Mapping[str, str] | None = None) -> httpx.Response:
        """Open the page before a change, and send its form."""
        page = client.get(path)
        assert page.status_code == 200, page.text
        return client.post(path, data={"token": token_of(page.text), **(form or {})}, headers={"origin": self.url})


def token_of(page: str) -> str:
    """The token of the form on a page."""
    (token,) = re.findall(r'<input type="hidden" name="token" value="([^"]+)">', page)
    return str(token)


def fill(path: Path, reports: Iterable[Stored]) -> list[str]:
    """A database of reports, in which the reports of each organization came in one mail each. Returns their keys."""
    keys: list[str] = []
    with Store(path) as store:
        store.open()
        with store.transaction():
            for number, one in enumerate(reports):
                now = int(one.report.end.timestamp())
                message = Message(f"{now}.{number}", str(number), 0, now, State.STORED, "", one.dkim, False)
                keys += write(store, message, one.report, now)[1]
    return keys


def said(answer: httpx.Response) -> list[str]:
    """What the command of a button printed."""
    (output,) = (one for one in parse(answer.text).all("ul") if one.attributes.get("class") == "output")
    return [one.text for one in output.all("li")]


def used(pid: int) -> float:
    """Seconds of the processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
