"""What `doctor` says of a Postfix and a daemon that are wrong on purpose, and that it is silent on right ones.

Postfix's configuration is real, and read by the postconf of each installation; DNS and the daemon run.
"""

import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from postfix_mtasts.query.doctor import examine, show
from postfix_mtasts.query.output import Output
from tests.integration.conftest import mounted
from tests.world.ca import Ca
from tests.world.daemon import Config, Daemon, toml
from tests.world.dns import DnsServer
from tests.world.postfix import HERE, TMP, Installation

COMMAND = Path(sys.executable).with_name("postfix-mtasts-query")
RESOLV_CONF = Path("/etc/resolv.conf")
MAP = "socketmap:inet:127.0.0.1:8461:postfix"
CHROOT = "smtp/unix, relay/unix"
DANE = {"smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec"}
ALL_WAITS = "Postfix gets no answer, and all mail stays in the queue"
HELD_BACK = "mail to every domain that enforces MTA-STS stays in the queue"
UNPROTECTED = "Postfix does not ask for policies, and sends as if there were none"


class Machine:
    """A Postfix that is not started, the daemon's configuration, and the daemon; F stands for the folder of all."""

    def __init__(self, installation: Installation, folder: Path, ca: Ca, dns: DnsServer) -> None:
        self.installation = installation
        self.version = installation.version
        self.folder = folder
        self.dns = dns
        self.right = {
            "compatibility_level": "3.6",
            "queue_directory": "F/queue",
            "smtp_tls_CAfile": str(ca.file),
            "smtp_tls_policy_maps": MAP,
            "smtp_tls_security_level": "may",
        }
        self.config: dict[str, dict[str, object]] = {
            "server": {"listen": ["inet:127.0.0.1:8461", "unix:F/queue/sts/socket", "unix:F/run/socket"]},
            "cache": {"path": "F/policies.sqlite"},
            "fetch": {"ca_file": str(ca.file)},
        }
        for place in ("queue/sts", "run", "bin", "cas", "daemon"):
            (folder / place).mkdir(parents=True)
        for command in ("postconf", "postmap"):
            script = folder / "bin" / command
            script.write_text(f'#!/bin/sh\nexec {shlex.join(installation.command(f"/usr/sbin/{command}"))} "$@"\n')
            script.chmod(0o755)

    def text(self, text: str) -> str:
        return text.replace("F/", f"{self.folder}/")

    def configure(self, settings: Mapping[str, str], config: Config, services: Sequence[str], chroot: str) -> Path:
        """Write main.cf, master.cf with its column chroot, and the daemon's configuration."""
        main = "".join(f"{name} = {value}\n" for name, value in {**self.right, **settings}.items())
        (self.folder / "etc/main.cf").write_text(self.text(main))
        lines = []
        for line in self.installation.master_cf.read_text().splitlines():
            fields = line.split()
            begins_service = line[:1].strip("# ") and fields[-1] == "smtp"
            lines.append(" ".join([*fields[:4], chroot, *fields[5:]]) if begins_service else line)
        (self.folder / "etc/master.cf").write_text("\n".join([*lines, *services]) + "\n")
        for file in (self.folder / "etc").glob("*.cf"):
            os.utime(file, (0, 0))  # Postfix waits until a file that is new has stayed the same for a second.
        tables = {name: {**self.config.get(name, {}), **config.get(name, {})} for name in {**self.config, **config}}
        file = self.folder / "postfix-mtasts.toml"
        file.write_text(self.text(toml(tables)))
        return file


@pytest.fixture(scope="module")
def machine(installation: Installation) -> Iterator[Machine]:
    if why := HERE.missing():
        pytest.skip(why)  # The mount needs a place.
    with tempfile.TemporaryDirectory(prefix="postfix-mtasts-", dir=TMP) as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        dns = stack.enter_context(DnsServer("127.0.0.1", 53))
        resolv_conf = folder / "resolv.conf"
        resolv_conf.write_text("nameserver 127.0.0.1\n")
        stack.enter_context(mounted("--bind", resolv_conf, RESOLV_CONF.resolve()))
        (folder / "ca").mkdir()
        made = Machine(installation, folder, Ca(folder / "ca"), dns)
        shutil.copytree("/etc/postfix", folder / "etc")
        stack.enter_context(installation.mounted())
        for root in {Path("/"), installation.root}:
            stack.enter_context(mounted("--bind", folder / "etc", root / "etc/postfix"))
        stack.enter_context(Daemon(folder / "daemon", made.text(toml(made.config))))
        yield made


class Doctor:
    """`await doctor(settings, config)`: what is printed; V stands for Postfix's version too."""

    def __init__(self, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
        self.machine = machine
        self.capsys = capsys

    async def __call__(
        self,
        settings: Mapping[str, str] | None = None,
        config: Config | None = None,
        services: Sequence[str] = (),
        chroot: str = "-",
        now: float | None = None,
    ) -> str:
        machine = self.machine
        file = machine.configure(settings or {}, config or {}, services, chroot)
        seen = await examine(str(file), now or time.time(), str(machine.folder / "bin"))
        show(seen, Output())
        out = self.capsys.readouterr().out.replace(f"{machine.folder}/", "F/")
        return out.replace(f"Postfix {'.'.join(map(str, machine.version))}", "Postfix V")


@pytest.fixture
def doctor(machine: Machine, capsys: pytest.CaptureFixture[str]) -> Doctor:
    return Doctor(machine, capsys)


def well(value: str = MAP) -> str:
    return f"all is well: Postfix V asks this daemon\nin main.cf: smtp_tls_policy_maps = {value}\n"


def finding(status: str, what: str, why: str, place: str = "", line: str = "") -> str:
    fix = f"  {place if place == 'run' else f'in {place}'}:\n    {line}\n" if line else ""
    return f"{status}: {what}\n    {why}\n{fix}"


def in_main_cf(status: str, what: str, why: str, parameter: str, value: str) -> str:
    return finding(status, what, why, "/etc/postfix/main.cf", f"{parameter} = {value}")


def line(value: str = MAP) -> str:
    return f"in main.cf: smtp_tls_policy_maps = {value}\n"


@pytest.mark.parametrize(
    ("value", "chroot"),
    [
        pytest.param(MAP, "-", id="inet"),
        pytest.param(MAP, "y", id="inet, chroot"),
        pytest.param("socketmap:inet:localhost:8461:postfix", "-", id="localhost"),
        pytest.param(f"inline:{{ {{ a.test = may }}, b.test=none }}, {MAP}", "-", id="an inline table first"),
        pytest.param(f"inline:{{a.test=may}} {MAP} static:encrypt", "-", id="a static table last, without commas"),
        pytest.param("socketmap:unix:sts/socket:postfix", "y", id="relative, chroot"),
        pytest.param("socketmap:unix:sts/socket:postfix", "n", id="relative, no chroot"),
        pytest.param("socketmap:unix:/sts/socket:postfix", "y", id="absolute inside the chroot"),
        pytest.param("socketmap:unix:F/run/socket:postfix", "n", id="absolute, no chroot"),
        pytest.param("proxy:socketmap:unix:F/run/socket:postfix", "y", id="proxy, chroot"),
        pytest.param("pipemap:{socketmap:inet:127.0.0.1:8461:postfix}", "-", id="pipemap"),
    ],
)
async def test_right_maps(doctor: Doctor, value: str, chroot: str) -> None:
    assert await doctor({"smtp_tls_policy_maps": value}, chroot=chroot) == well(value)


async def test_variables(doctor: Doctor) -> None:
    settings = {"mine": "127.0.0.1:8461", "smtp_tls_policy_maps": "socketmap:inet:$mine:postfix"}
    assert await doctor(settings) == well()
