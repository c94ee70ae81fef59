"""A real Redis or Valkey of our own, as contrib/valkey/users.acl has it: with TLS, on a port of this namespace."""

import hashlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from postfix_mtasts.config_fleet import FleetPlace
from tests.world.ca import Ca

PASSWORD = "of the fleet"
ACL = Path(__file__).parents[2] / "contrib" / "valkey" / "users.acl"
# Debian's redis-tools has the server by another name, and starts no service. Called redis-server, it is one.
PROGRAM = shutil.which("valkey-server") or shutil.which("redis-server") or shutil.which("redis-check-rdb") or ""
_ADMIN = "user admin on >admin ~* &* +@all\n"


class Shared:
    """`with Shared(folder, ca) as server: …`: TLS and ACL are on. `prefix` is a command that becomes the server."""

    def __init__(self, folder: Path, ca: Ca, *options: str, program: str = PROGRAM) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.ca = ca
        self._program = program
        self._options = options
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._certificate = ca.issue("localhost", "127.0.0.1").file
        acl = ACL.read_text().replace("0" * 64, hashlib.sha256(PASSWORD.encode()).hexdigest())
        (folder / "users.acl").write_text(acl + _ADMIN)

    @property
    def place(self) -> FleetPlace:
        """Where it is, for a relay."""
        return FleetPlace(
            ("127.0.0.1", self.port), tls=True, ca_file=str(self.ca.file), user="mtasts", password=PASSWORD
        )

    @property
    def config(self) -> dict[str, object]:
        """The table [fleet] of a relay."""
        credentials = self.folder / "credentials"
        credentials.write_text(f"mtasts:{PASSWORD}\n")
        credentials.chmod(0o600)
        url = f"rediss://127.0.0.1:{self.port}/0"
        return {"url": url, "credentials": str(credentials), "ca_file": str(self.ca.file)}

    @property
    def runs(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    def admin(self) -> Any:
        """A client that may do everything."""
        who: Any = {"username": "admin", "password": "admin"}
        return redis.Redis("127.0.0.1", self.port, **who, ssl=True, ssl_ca_certs=str(self.ca.file))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and return when it answers."""
        certificate = str(self._certificate)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("redis-server", "--port", "0", "--tls-port", str(self.port), "--bind", "127.0.0.1"),
                    *("--tls-cert-file", certificate, "--tls-key-file", certificate),
                    *("--tls-ca-cert-file", str(self.ca.file), "--tls-auth-clients", "no"),
                    *("--aclfile", str(self.folder / "users.acl"), "--dir", str(self.folder), "--save", ""),
                    *self._options,
                ],
                executable=self._program,
                stdout=log,
            )
        end = time.monotonic() + 20
        while True:
            try:
                with self.admin() as admin:
                    admin.ping()
                    return
            except redis.RedisError:
                assert self._process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < end, (self.folder / "log").read_text()
                time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP: it does nothing until the end of the block."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
