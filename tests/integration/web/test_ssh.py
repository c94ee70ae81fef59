"""What docs/web.md has for ssh leads to the dashboard, under the name of who has the connection, and nobody else in."""

import re
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.integration.conftest import mounted
from tests.integration.conftest import namespace as namespace  # A fixture.
from tests.integration.web.conftest import tables
from tests.integration.web.test_proxies import DOCUMENT, SOCKET, changed
from tests.world.dashboard import Dashboard, token_of
from tests.world.postfix import TMP, Installation
from tests.world.servers import ROOT, eventually, lacking, running

MEMBER, OTHER = "nobody", "daemon"
GROUP = "nogroup"
PORT = 8463
URL = f"http://localhost:{PORT}"
SSHD = """
ListenAddress 127.0.0.1:2222
HostKey FOLDER/host
AuthorizedKeysFile FOLDER/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""
# The documented command opens a shell, too, which these users do not have.
SSH = """
HostName 127.0.0.1
Port 2222
User USER
IdentityFile FOLDER/key
BatchMode yes
StrictHostKeyChecking no
UserKnownHostsFile FOLDER/hosts
SessionType none
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user reaches."""
    with tempfile.TemporaryDirectory(dir=TMP) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def sshd(namespace: None, folder: Path) -> Iterator[Installation]:
    """An sshd that lets everybody in who has the key."""
    if why := lacking("sshd", "ssh", "ssh-keygen"):
        pytest.skip(why)
    with ROOT.mounted(), mounted("-t", "tmpfs", "-o", "mode=755", "tmpfs", ROOT.root / "run"):
        (ROOT.root / "run/sshd").mkdir()
        for name in ("host", "key"):
            keygen = ROOT.command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/{name}")
            subprocess.run(keygen, check=True)
        (folder / "sshd_config").write_text(SSHD.replace("FOLDER", str(folder)))
        with running(folder / "sshd.log", *ROOT.command("/usr/sbin/sshd", "-D", "-e", "-f", f"{folder}/sshd_config")):
            eventually(listens, folder / "sshd.log")
            yield ROOT


def listens() -> bytes:
    socket.create_connection(("127.0.0.1", 2222)).close()
    return b""


@contextmanager
def connected(sshd: Installation, folder: Path, user: str, path: Path) -> Iterator[None]:
    """The documented command, as this user."""
    (command,) = re.findall(r"^    (ssh -L .*)$", DOCUMENT.read_text(), re.MULTILINE)
    (folder / "config").write_text(SSH.replace("FOLDER", str(folder)).replace("USER", user))
    program, *words = command.replace(SOCKET, str(path)).split()
    with running(folder / "ssh.log", *sshd.command(program, "-F", f"{folder}/config", *words)):
        yield


def reached(log: Path) -> bool:
    """Whether the port leads to the dashboard. Waits until something listens there."""

    def attempt() -> bytes:
        try:
            return httpx.get(URL, trust_env=False).content
        except httpx.ConnectError as error:
            raise OSError from error
        except httpx.TransportError:  # The connection was taken, and ended.
            return b""

    return b"Overview" in eventually(attempt, log)


def test_ssh(sshd: Installation, folder: Path, tmp_path: Path) -> None:
    path = folder / "socket"
    with Dashboard(tmp_path, tables(tmp_path), socket_path=path, group=GROUP) as dashboard:
        with connected(sshd, folder, OTHER, path):
            assert not reached(folder / "ssh.log")
        with connected(sshd, folder, MEMBER, path):
            assert reached(folder / "ssh.log")
            with httpx.Client(base_url=URL, headers={"origin": URL}, trust_env=False, timeout=60) as client:
                token = token_of(client.get("/do/check/example.com").text)
                assert client.post("/do/check/example.com", data={"token": token}).status_code == 409
    assert changed(dashboard) == [f"INFO: user=web, {MEMBER}, command=postfix-mtasts-publish check example.com: error"]
