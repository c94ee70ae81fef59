"""A real Redis or Valkey of our own, as contrib/valkey/users.acl has it: with TLS, on a port of this namespace."""

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest
import redis

from postfix_mtasts.config_fleet import FleetPlace
from tests.world.ca import Ca
from tests.world.postfix import ROOTS

PASSWORD = "of the fleet"
# On a busy machine, what is late by a quarter of a second does without the fleet. So the server goes first, and relays.
FIRST = -15
FIRST_OF_ALL = ("nice", "-n", str(FIRST))
ACL = Path(__file__).parents[2] / "contrib" / "valkey" / "users.acl"
_ADMIN = "user admin on >admin ~* &* +@all\n"


@dataclass(frozen=True)
class Program:
    """Valkey or Redis. `loader` are the words by which the loader of a root runs it, with the libraries of that root.

    The packages redis-tools and valkey-tools of Debian have the server by another name, and start no service. Called
    redis-server, it is one.
    """

    file: str
    loader: tuple[str, ...] = ()

    @property
    def command(self) -> tuple[str, list[str]]:
        """The file to be executed, and the words before the options."""
        name = "redis-server"
        if not self.loader:
            return self.file, [name]
        return self.loader[0], [name, *self.loader[1:], "--argv0", name, self.file]


HERE = Program(shutil.which("valkey-server") or shutil.which("redis-server") or shutil.which("redis-check-rdb") or "")


def valkey() -> Program:
    """That of Debian 13."""
    root = ROOTS / "trixie"
    file = root / "usr/bin/valkey-check-rdb"
    if not file.exists():
        pytest.skip(f"needs valkey-tools in the root {root}: run `sudo make roots`")
    (loader,) = root.glob("usr/lib/*-linux-gnu*/ld-linux*.so.*")
    return Program(str(file), (str(loader), "--library-path", str(loader.parent)))


class Shared:
    """`with Shared(folder, ca) as server: …`: TLS and ACL are on."""

    def __init__(self, folder: Path, ca: Ca, *options: str, program: Program = HERE, port: int = 0) -> None:
        if not program.file:
            pytest.skip("needs redis-tools: run .ci/need test")
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.ca = ca
        self._program = program
        self._options = options
        self.port = port or _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._certificate = ca.issue("localhost", "127.0.0.1").file
        (folder / "users.acl").write_text(with_password(ACL) + _ADMIN)

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
        program, words = self._program.command
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*words, "--port", "0", "--tls-port", str(self.port), "--bind", "127.0.0.1"),
                    *("--tls-cert-file", certificate, "--tls-key-file", certificate),
                    *("--tls-ca-cert-file", str(self.ca.file), "--tls-auth-clients", "no"),
                    *("--aclfile", str(self.folder / "users.acl"), "--dir", str(self.folder), "--save", ""),
                    *self._options,
                ],
                executable=program,
                stdout=log,
            )
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, self._process.pid, FIRST)
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


def with_password(acl: Path) -> str:
    """A file of users, each with our password."""
    return acl.read_text().replace("0" * 64, hashlib.sha256(PASSWORD.encode()).hexdigest())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
