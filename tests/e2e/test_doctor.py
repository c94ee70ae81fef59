"""What `doctor` says of a Postfix and a daemon that are wrong on purpose, and that it is silent on right ones.

Postfix's configuration is real, and read by the postconf of each installation; DNS and the daemon run.
"""

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

import postfix_mtasts
from postfix_mtasts.query.doctor.doctor import examine, show
from postfix_mtasts.query.output import Output
from postfix_mtasts.remote.proxy import GUARD
from tests.integration.conftest import mounted
from tests.world.ca import Ca
from tests.world.daemon import Config, Daemon, toml
from tests.world.dns import Behaviour, DnsServer
from tests.world.https import HANG, HttpsServer
from tests.world.postfix import HERE, TMP, Installation

COMMAND = Path(sys.executable).with_name("postfix-mtasts-query")
SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt"
RESOLV_CONF = Path("/etc/resolv.conf")
MAP = "socketmap:inet:127.0.0.1:8461:postfix"
CHROOT = "smtp/unix, relay/unix"
DANE = {"smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec"}
ALL_WAITS = "Postfix gets no answer and defers all mail"
HELD_BACK = "mail to every domain that enforces MTA-STS is deferred"
LISTENING = "this daemon, which listens on inet:127.0.0.1:8461, unix:F/queue/sts/socket, unix:F/run/socket"
REFUSED = "connection refused"
PROXIED = (
    'postconf -e "proxy_read_maps = $(postconf -h proxy_read_maps) proxy:socketmap:unix:F/run/socket:postfix"'
    " && postfix reload"
)
UNPROTECTED = "Postfix looks up no MTA-STS policies and delivers as if there were none"


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
            "server": {
                "listen": ["inet:127.0.0.1:8461", "unix:F/queue/sts/socket", "unix:F/run/socket"],
                "control": "",
            },
            "cache": {"path": "F/policies.sqlite"},
            "fetch": {"ca_file": str(ca.file)},
        }
        for place in ("queue/sts", "run", "bin", "cas", "daemon"):
            (folder / place).mkdir(parents=True)
        for command in ("postconf", "postmap"):
            script = folder / "bin" / command
            script.write_text(f'#!/bin/sh\nexec {shlex.join(installation.command(f"/usr/sbin/{command}"))} "$@"\n')
            script.chmod(0o755)

    def put_right(self) -> None:
        """All is as the daemon made it."""
        self.dns.authenticated = set()
        self.dns.set_behaviour(".", Behaviour())
        self.folder.chmod(0o755)
        for place in ("queue/sts", "run"):
            (self.folder / place).chmod(0o755)
            (self.folder / place / "socket").chmod(0o666)
            shutil.chown(self.folder / place / "socket", "root", "root")

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
    machine.put_right()
    return Doctor(machine, capsys)


def well(value: str = MAP) -> str:
    return f"all is well: Postfix V asks this daemon\nfor main.cf: smtp_tls_policy_maps = {value}\n"


def finding(status: str, what: str, why: str, place: str = "", line: str = "") -> str:
    fix = f"  {place if place == 'run' else f'in {place}'}:\n    {line.rstrip()}\n" if line else ""
    return f"{status}: {what}\n    {why}\n{fix}"


def in_main_cf(status: str, what: str, why: str, parameter: str, value: str) -> str:
    return finding(status, what, why, "run", f"postconf -e '{parameter} = {value}' && postfix reload")


def line(value: str = MAP) -> str:
    return f"for main.cf: smtp_tls_policy_maps = {value}\n"


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


@pytest.mark.parametrize(
    ("settings", "chroot", "expected"),
    [
        pytest.param(
            {"smtp_tls_policy_maps": ""},
            "-",
            in_main_cf("error", "smtp_tls_policy_maps is empty", UNPROTECTED, "smtp_tls_policy_maps", MAP) + line(),
            id="none",
        ),
        pytest.param(
            {"smtp_tls_policy_maps": "inline:{a.test=may}"},
            "-",
            in_main_cf(
                "error",
                f"smtp_tls_policy_maps has no table for {LISTENING}",
                UNPROTECTED,
                "smtp_tls_policy_maps",
                f"inline:{{a.test=may}}, {MAP}",
            )
            + line(f"inline:{{a.test=may}}, {MAP}"),
            id="only exceptions",
        ),
        pytest.param(
            {"smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8642:QUERYwithTLSRPT"},
            "-",
            in_main_cf(
                "error",
                "smtp_tls_policy_maps: socketmap:inet:127.0.0.1:8642:QUERYwithTLSRPT does not lead to this daemon, "
                "perhaps to postfix-tlspol",
                f"Postfix does not ask {LISTENING}",
                "smtp_tls_policy_maps",
                MAP,
            )
            + finding("error", f"inet:127.0.0.1:8642 does not answer: {REFUSED}", ALL_WAITS)
            + line(),
            id="another",
        ),
        pytest.param(
            {"smtp_tls_policy_maps": f"socketmap:unix:F/run/other:QUERY, {MAP}"},
            "n",
            in_main_cf(
                "error",
                "smtp_tls_policy_maps: socketmap:unix:F/run/other:QUERY does not lead to this daemon",
                "it comes first, so Postfix asks this daemon only for domains without a policy there",
                "smtp_tls_policy_maps",
                MAP,
            )
            + finding("error", "unix:F/run/other does not answer: no such file or directory", ALL_WAITS)
            + line(),
            id="another before",
        ),
        pytest.param(
            {"smtp_tls_policy_maps": f"{MAP}, socketmap:inet:127.0.0.1:8642:QUERY"},
            "-",
            finding("error", f"inet:127.0.0.1:8642 does not answer: {REFUSED}", ALL_WAITS)
            + in_main_cf(
                "warning",
                "smtp_tls_policy_maps: socketmap:inet:127.0.0.1:8642:QUERY does not lead to this daemon,"
                " perhaps to postfix-tlspol",
                "Postfix asks it for domains where this daemon has no policy or yields to DANE",
                "smtp_tls_policy_maps",
                MAP,
            )
            + line(),
            id="another behind",
        ),
        pytest.param(
            {"smtp_tls_policy_maps": f"static:encrypt {MAP}"},
            "-",
            in_main_cf(
                "error",
                "smtp_tls_policy_maps: static:encrypt comes first and has 'encrypt' for every domain",
                "Postfix never asks this daemon",
                "smtp_tls_policy_maps",
                f"{MAP}, static:encrypt",
            )
            + line(f"{MAP}, static:encrypt"),
            id="static first",
        ),
        pytest.param(
            {"smtp_tls_policy_maps": f"proxy:regexp:F/all {MAP}"},
            "-",
            in_main_cf(
                "error",
                "smtp_tls_policy_maps: proxy:regexp:F/all comes first and has 'may' for every domain",
                "Postfix never asks this daemon",
                "smtp_tls_policy_maps",
                f"{MAP}, proxy:regexp:F/all",
            )
            + line(f"{MAP}, proxy:regexp:F/all"),
            id="a regexp for everything first",
        ),
        pytest.param(
            {"smtp_tls_policy_maps": f"{MAP} texthash:F/nowhere"},
            "-",
            finding(
                "error",
                "smtp_tls_policy_maps: texthash:F/nowhere: cannot be used:"
                " open database F/nowhere: No such file or directory",
                ALL_WAITS,
                "run",
                f"postconf -e 'smtp_tls_policy_maps = {MAP}' && postfix reload",
            )
            + line(),
            id="a table that is not there",
        ),
        pytest.param(
            {"smtp_tls_policy_maps": "socketmap:unix:F/run/socket:postfix"},
            "y",
            in_main_cf(
                "error",
                "smtp_tls_policy_maps: socketmap:unix:F/run/socket:postfix is outside the chroot",
                f"{CHROOT} cannot reach the socket from the chroot: {ALL_WAITS}",
                "smtp_tls_policy_maps",
                MAP,
            )
            + line(),
            id="a socket outside of the chroot",
        ),
        pytest.param(
            {"smtp_tls_policy_maps": "socketmap:unix:/sts/socket:postfix"},
            "n",
            in_main_cf(
                "error",
                "smtp_tls_policy_maps: socketmap:unix:/sts/socket:postfix is a path inside a chroot",
                f"outside a chroot, {CHROOT} cannot reach the socket by that path: {ALL_WAITS}",
                "smtp_tls_policy_maps",
                MAP,
            )
            + line(),
            id="a socket as if in a chroot",
        ),
        pytest.param(
            {
                "smtp_tls_policy_maps": "proxy:socketmap:unix:F/run/socket:postfix",
                "proxy_read_maps": "proxy:unix:passwd",
            },
            "y",
            finding(
                "error",
                "smtp_tls_policy_maps: proxymap refuses proxy:socketmap:unix:F/run/socket:postfix, because it is not "
                "in proxy_read_maps",
                ALL_WAITS,
                "run",
                PROXIED,
            )
            + line("proxy:socketmap:unix:F/run/socket:postfix"),
            id="proxymap",
        ),
    ],
)
async def test_wrong_maps(doctor: Doctor, settings: Mapping[str, str], chroot: str, expected: str) -> None:
    (doctor.machine.folder / "all").write_text("/./ may\n")
    assert await doctor(settings, chroot=chroot) == expected


async def test_a_daemon_on_another_machine(doctor: Doctor) -> None:
    value = "socketmap:inet:192.0.2.1:8461:plain"
    silent = finding("error", "inet:192.0.2.1:8461 does not answer: network is unreachable", ALL_WAITS)
    plain = in_main_cf(
        "warning",
        f"smtp_tls_policy_maps: {value} gets replies in style plain, though Postfix V supports tlsrpt",
        "Postfix neither checks MX names against the policy nor reports on it (TLSRPT)",
        "smtp_tls_policy_maps",
        "socketmap:inet:192.0.2.1:8461:tlsrpt",
    )
    if doctor.machine.version < (3, 10):
        assert await doctor({"smtp_tls_policy_maps": value}) == silent + line(value)
    else:
        expected = silent + plain + line("socketmap:inet:192.0.2.1:8461:tlsrpt")
        assert await doctor({"smtp_tls_policy_maps": value}) == expected


@pytest.mark.parametrize(
    ("value", "reply", "wrong"),
    [
        pytest.param("socketmap:inet:127.0.0.1:8461:tlsrpt", {}, "tlsrpt", id="map tlsrpt"),
        pytest.param("socketmap:inet:127.0.0.1:8461:QUERYwithTLSRPT", {}, "tlsrpt", id="map of tlspol"),
        pytest.param(MAP, {"style": "tlsrpt"}, "tlsrpt", id="style tlsrpt"),
        pytest.param("socketmap:inet:127.0.0.1:8461:plain", {}, "plain", id="map plain"),
        pytest.param(MAP, {"style": "plain"}, "plain", id="style plain"),
    ],
)
async def test_style(doctor: Doctor, value: str, reply: dict[str, object], wrong: str) -> None:
    right = "tlsrpt" if doctor.machine.version >= (3, 10) else "plain"
    fixed = f"socketmap:inet:127.0.0.1:8461:{right if reply else 'postfix'}"
    said = await doctor({"smtp_tls_policy_maps": value}, {"reply": reply})
    if wrong == right:
        assert said == well(value)
        return
    if wrong == "tlsrpt":
        what, why = "tlsrpt, which Postfix V does not support", HELD_BACK
    else:
        what, why = (
            "plain, though Postfix V supports tlsrpt",
            "Postfix neither checks MX names against the policy nor reports on it (TLSRPT)",
        )
    where = f"smtp_tls_policy_maps: {value} gets replies in style"
    status = "error" if wrong == "tlsrpt" else "warning"
    assert said == in_main_cf(status, f"{where} {what}", why, "smtp_tls_policy_maps", fixed) + line(fixed)


@pytest.mark.parametrize(
    ("service", "chroot", "expected"),
    [
        pytest.param(
            "-o smtp_tls_policy_maps=",
            "n",
            finding(
                "warning",
                "smtp_tls_policy_maps of other/unix is empty",
                UNPROTECTED,
                "run",
                f"postconf -P 'other/unix/smtp_tls_policy_maps = {MAP}' && postfix reload",
            )
            + line(),
            id="no map",
        ),
        pytest.param(
            "-o { smtp_tls_policy_maps = socketmap:unix:${world}/run/socket:postfix }",
            "y",
            finding(
                "error",
                "smtp_tls_policy_maps of other/unix: socketmap:unix:F/run/socket:postfix is outside the chroot",
                f"other/unix cannot reach the socket from the chroot: {ALL_WAITS}",
                "run",
                f"postconf -P 'other/unix/smtp_tls_policy_maps = {MAP}' && postfix reload",
            )
            + line(),
            id="a chroot",
        ),
        pytest.param("-o smtp_tls_policy_maps=socketmap:unix:${world}/run/socket:postfix", "n", well(), id="no chroot"),
        pytest.param(
            "-o smtp_tls_security_level=none",
            "n",
            finding(
                "warning",
                "smtp_tls_security_level of other/unix is none",
                "policies still apply, but all other mail is sent in the clear, and Postfix makes no TLS reports",
                "run",
                "postconf -P 'other/unix/smtp_tls_security_level = may' && postfix reload",
            )
            + line(),
            id="level",
        ),
        pytest.param(
            "-o smtp_tls_policy_maps=proxy:socketmap:unix:${world}/run/socket:postfix",
            "y",
            finding(
                "error",
                "smtp_tls_policy_maps of other/unix: proxymap refuses proxy:socketmap:unix:F/run/socket:postfix, "
                "because it is not in proxy_read_maps",
                ALL_WAITS,
                "run",
                PROXIED,
            )
            + line(),
            id="a proxy that knows main.cf only",
        ),
    ],
)
async def test_services_of_master_cf(doctor: Doctor, service: str, chroot: str, expected: str) -> None:
    services = [f"other unix - - {chroot} - - smtp {service}"]
    settings = {"world": str(doctor.machine.folder), "transport_maps": "inline:{example.com=other:}"}
    assert await doctor(settings, services=services) == expected


@pytest.mark.parametrize("way", ["", "inline:{example.com=other:[10.0.0.1]:10025}", "inline:{example.com=smtp:}"])
@pytest.mark.parametrize("option", ["-o smtp_tls_policy_maps=", "-o smtp_tls_security_level=none"])
async def test_a_service_that_sends_to_no_mx_hosts_needs_no_policies(doctor: Doctor, way: str, option: str) -> None:
    services = [f"other unix - - n - - smtp {option}"]
    assert await doctor({"transport_maps": way}, services=services) == well()


async def test_without_a_word_a_service_runs_in_a_chroot_as_compatibility_level_says(doctor: Doctor) -> None:
    value = "socketmap:unix:/sts/socket:postfix"
    assert await doctor({"smtp_tls_policy_maps": value, "compatibility_level": "0"}) == well(value)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param(
            {"smtp_tls_CAfile": ""},
            in_main_cf(
                "error",
                "smtp_tls_CAfile and smtp_tls_CApath are empty",
                f"Postfix trusts no CA, and {HELD_BACK}",
                "smtp_tls_CAfile",
                SYSTEM_CAS,
            ),
            id="no CAs",
        ),
        pytest.param(
            {"smtp_tls_CAfile": "F/nowhere.pem"},
            in_main_cf(
                "error",
                "smtp_tls_CAfile = F/nowhere.pem: no such file or directory",
                f"Postfix cannot use TLS at all, and {HELD_BACK}",
                "smtp_tls_CAfile",
                SYSTEM_CAS,
            ),
            id="no CAfile",
        ),
        pytest.param(
            {"smtp_tls_CAfile": "/dev/null"},
            in_main_cf(
                "error",
                "smtp_tls_CAfile = /dev/null: the file has no certificate in PEM format",
                f"Postfix cannot use TLS at all, and {HELD_BACK}",
                "smtp_tls_CAfile",
                SYSTEM_CAS,
            ),
            id="an empty CAfile",
        ),
        pytest.param(
            {"smtp_tls_CAfile": "", "smtp_tls_CApath": "F/run"},
            in_main_cf(
                "error",
                "smtp_tls_CApath = F/run: no hash links (openssl rehash) in F/run",
                f"Postfix trusts no CA, and {HELD_BACK}",
                "smtp_tls_CAfile",
                SYSTEM_CAS,
            ),
            id="an empty CApath",
        ),
        pytest.param({"smtp_tls_CAfile": "", "smtp_tls_CApath": "F/cas"}, "", id="a CApath"),
        pytest.param({"smtp_tls_CAfile": "", "tls_append_default_CA": "yes"}, "", id="the CAs of the system"),
        pytest.param(
            {"smtp_tls_security_level": ""},
            in_main_cf(
                "warning",
                "smtp_tls_security_level is empty",
                "policies still apply, but all other mail is sent in the clear, and Postfix makes no TLS reports",
                "smtp_tls_security_level",
                "may",
            ),
            id="no level",
        ),
        pytest.param({"smtp_tls_security_level": "", "smtp_use_tls": "yes"}, "", id="the old way"),
        pytest.param(
            {"smtp_tls_security_level": "", "smtp_enforce_tls": "yes"},
            finding(
                "note",
                "smtp_tls_security_level is empty",
                "smtp_enforce_tls is yes, so mail to hosts that do not offer TLS is deferred, with a policy or without",
            ),
            id="the old way to encrypt",
        ),
        pytest.param({"smtp_use_tls": "no"}, "", id="the old way that does not matter"),
        pytest.param(
            {"smtp_fallback_relay": "[relay.example.com]"},
            in_main_cf(
                "warning",
                "smtp_fallback_relay is [relay.example.com]",
                "mail that a policy would defer goes to that relay instead, under the relay's policy or none",
                "smtp_fallback_relay",
                "",
            ),
            id="fallback relay",
        ),
        pytest.param(
            {"smtp_tls_connection_reuse": "yes"},
            finding(
                "error",
                "smtp_tls_connection_reuse is yes, but master.cf has no service tlsproxy",
                "Postfix cannot use TLS at all, and mail that requires TLS is deferred",
                "run",
                "postconf -M 'tlsproxy/unix = tlsproxy unix - - - - 0 tlsproxy' && postfix reload",
            ),
            id="no tlsproxy",
        ),
        pytest.param(
            {"smtp_tls_per_site": "texthash:F/sites"},
            in_main_cf(
                "warning",
                "smtp_tls_per_site is texthash:F/sites",
                "Postfix ignores it because smtp_tls_policy_maps is set: move its entries to a table there",
                "smtp_tls_per_site",
                "",
            ),
            id="per site",
        ),
        pytest.param(
            {"relayhost": "[relay.example.com]:587"},
            finding(
                "note",
                "relayhost is [relay.example.com]:587: Postfix applies the policy of that host only",
                "the policies of the recipients' domains are that relay's job",
            ),
            id="relayhost",
        ),
    ],
)
async def test_settings_of_postfix(doctor: Doctor, settings: Mapping[str, str], expected: str) -> None:
    (doctor.machine.folder / "cas/0a1b2c3d.0").touch()
    rest = well() if not expected or expected.startswith("note") else line()
    assert await doctor(settings) == expected + rest


async def test_a_ca_path_must_be_in_the_chroot(doctor: Doctor) -> None:
    (doctor.machine.folder / "cas/0a1b2c3d.0").touch()
    what = f"F/queue{doctor.machine.folder}/cas, which is in the chroot of {CHROOT}"
    expected = in_main_cf(
        "error",
        f"smtp_tls_CApath = F/cas: no hash links (openssl rehash) in {what}".replace(f"{doctor.machine.folder}/", "F/"),
        f"Postfix trusts no CA, and {HELD_BACK}",
        "smtp_tls_CAfile",
        SYSTEM_CAS,
    )
    assert await doctor({"smtp_tls_CAfile": "", "smtp_tls_CApath": "F/cas"}, chroot="y") == expected + line()


async def test_with_tlsproxy_connections_can_be_used_again(doctor: Doctor) -> None:
    services = ["tlsproxy unix - - y - 0 tlsproxy"]
    assert await doctor({"smtp_tls_connection_reuse": "yes"}, services=services) == well()


async def test_mx_patterns(doctor: Doctor) -> None:
    expected = in_main_cf(
        "warning",
        "smtp_tls_enforce_sts_mx_patterns is no",
        "Postfix delivers to MX hosts that the policy does not allow, if their certificate has an allowed name",
        "smtp_tls_enforce_sts_mx_patterns",
        "yes",
    )
    said = await doctor({"smtp_tls_enforce_sts_mx_patterns": "no"})
    assert said == (expected + line() if doctor.machine.version >= (3, 10, 5) else well())


@pytest.fixture
def signed(machine: Machine) -> Iterator[DnsServer]:
    """A nameserver that validates."""
    machine.dns.authenticated = {"."}
    yield machine.dns
    machine.dns.authenticated = set()


@pytest.mark.parametrize(
    ("settings", "reply", "expected"),
    [
        pytest.param(DANE, {}, "", id="auto"),
        pytest.param(DANE, {"dane": "yield"}, "", id="yield"),
        pytest.param({"smtp_dns_support_level": "dnssec"}, {"dane": "dane-only"}, "", id="dane-only"),
        pytest.param(
            DANE,
            {"dane": "off"},
            finding(
                "error",
                "smtp_tls_security_level is dane, but the daemon has reply.dane off",
                "MTA-STS policies override DANE, which RFC 8461 forbids",
                "F/postfix-mtasts.toml, [reply]",
                'dane = "yield"',
            ),
            id="off",
        ),
        pytest.param(
            {},
            {"dane": "yield"},
            finding(
                "error",
                "reply.dane is yield, but smtp_tls_security_level is may",
                "for domains with TLSA records, Postfix checks neither these records nor the policy",
                "F/postfix-mtasts.toml, [reply]",
                'dane = "auto"',
            ),
            id="nothing to yield to",
        ),
        pytest.param(
            {},
            {"dane": "dane-only"},
            in_main_cf(
                "error",
                "reply.dane is dane-only, but smtp_dns_support_level is not dnssec",
                "mail to domains with TLSA records is deferred",
                "smtp_dns_support_level",
                "dnssec",
            ),
            id="dane-only without DNSSEC",
        ),
        pytest.param(
            {"smtp_tls_security_level": "dane"},
            {},
            in_main_cf(
                "error",
                "smtp_tls_security_level is dane, but smtp_dns_support_level is not dnssec",
                "Postfix does not use DANE: it delivers as at level may",
                "smtp_dns_support_level",
                "dnssec",
            ),
            id="dane without DNSSEC",
        ),
        pytest.param(
            {"smtp_tls_security_level": "dane-only"},
            {},
            in_main_cf(
                "error",
                "smtp_tls_security_level is dane-only, but smtp_dns_support_level is not dnssec",
                "Postfix does not use DANE: it defers all mail",
                "smtp_dns_support_level",
                "dnssec",
            ),
            id="level dane-only without DNSSEC",
        ),
        pytest.param(
            {**DANE, "smtp_tls_dane_insecure_mx_policy": "may"},
            {},
            in_main_cf(
                "warning",
                "smtp_tls_dane_insecure_mx_policy is may",
                "Postfix does not check TLSA records of MX hosts if the MX records are not signed with DNSSEC",
                "smtp_tls_dane_insecure_mx_policy",
                "dane",
            ),
            id="insecure MX",
        ),
        pytest.param(
            {"smtp_tls_security_level": "dane-only", "smtp_dns_support_level": "dnssec"},
            {"testing": "report"},
            finding(
                "warning",
                "reply.testing is report, and smtp_tls_security_level is dane-only",
                "mail to domains in mode testing is sent at level may, so that Postfix can report on it",
                "F/postfix-mtasts.toml, [reply]",
                'testing = "ignore"',
            ),
            id="reports on mode testing",
        ),
    ],
)
async def test_dane(
    doctor: Doctor, signed: DnsServer, settings: Mapping[str, str], reply: dict[str, object], expected: str
) -> None:
    assert await doctor(settings, {"reply": reply}) == expected + (line() if expected else well())


async def test_a_service_with_dane_of_its_own(doctor: Doctor, signed: DnsServer) -> None:
    services = ["other unix - - n - - smtp -o smtp_tls_security_level=dane"]
    expected = finding(
        "error",
        "smtp_tls_security_level of other/unix is dane, but the daemon has reply.dane off",
        "MTA-STS policies override DANE, which RFC 8461 forbids",
        "F/postfix-mtasts.toml, [reply]",
        'dane = "yield"',
    )
    assert await doctor({"smtp_dns_support_level": "dnssec"}, services=services) == expected + line()


@pytest.mark.parametrize("dns", [{}, {"nameservers": ["127.0.0.1"]}])
async def test_a_nameserver_that_does_not_validate(doctor: Doctor, dns: dict[str, object]) -> None:
    expected = finding(
        "error",
        "the nameserver does not validate DNSSEC",
        "DANE needs DNSSEC validation: use a resolver that validates, such as unbound on this machine",
    )
    assert await doctor(DANE, {"dns": dns}) == expected + line()


async def test_a_nameserver_that_fails(doctor: Doctor) -> None:
    expected = finding(
        "error",
        "the DNS lookup failed: 127.0.0.1: SERVFAIL",
        "no policy can be looked up, and whether the nameserver validates DNSSEC is unknown",
    )
    doctor.machine.dns.set_behaviour(".", Behaviour(rcode="SERVFAIL"))
    assert await doctor() == expected + line()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("socketmap:unix:sts/socket:postfix", "F/queue/sts/socket", id="in the queue"),
        pytest.param("proxy:socketmap:unix:F/run/socket:postfix", "F/run/socket", id="elsewhere"),
    ],
)
async def test_permissions(doctor: Doctor, value: str, expected: str) -> None:
    socket = Path(doctor.machine.text(expected))
    socket.chmod(0o660)
    said = finding(
        "error",
        f"unix:{expected}: the user postfix cannot write to the socket {expected} (srw-rw----, root:root)",
        ALL_WAITS,
        "F/postfix-mtasts.toml, [server]",
        "socket_mode = 0o666",
    )
    assert await doctor({"smtp_tls_policy_maps": value}) == said + line(value)
    shutil.chown(socket, group="postfix")
    assert await doctor({"smtp_tls_policy_maps": value}) == well(value)
    shutil.chown(socket, group="root")
    socket.chmod(0o666)
    socket.parent.chmod(0o700)
    folder = expected.removesuffix("/socket")
    said = finding(
        "error",
        f"unix:{expected}: the user postfix cannot enter the directory {folder} (drwx------, root:root)",
        ALL_WAITS,
        "run",
        f"chmod o+x {folder}",
    )
    assert await doctor({"smtp_tls_policy_maps": value}) == said + line(value)


async def test_a_socket_can_be_mounted_into_the_chroot(doctor: Doctor) -> None:
    folder = doctor.machine.folder / "run"
    place = Path(f"{doctor.machine.folder}/queue{folder}")
    place.mkdir(parents=True, exist_ok=True)
    value = "socketmap:unix:F/run/socket:postfix"
    with mounted("--bind", folder, place):
        assert await doctor({"smtp_tls_policy_maps": value}, chroot="y") == well(value)


async def test_what_lies_above_the_chroot_does_not_matter(doctor: Doctor) -> None:
    value = "socketmap:unix:sts/socket:postfix"
    doctor.machine.folder.chmod(0o700)
    assert await doctor({"smtp_tls_policy_maps": value}, chroot="y") == well(value)
    said = finding(
        "error",
        "unix:F/queue/sts/socket: the user postfix cannot enter the directory F (drwx------, root:root)",
        ALL_WAITS,
        "run",
        "chmod o+x F",
    )
    whole = await doctor({"smtp_tls_policy_maps": value}, chroot="n")
    assert whole.replace(str(doctor.machine.folder), "F") == said + line(value)


@pytest.mark.parametrize(
    ("listen", "value"),
    [
        pytest.param("inet:127.0.0.1:8462", "socketmap:inet:127.0.0.1:8462:postfix", id="inet"),
        pytest.param("inet:0.0.0.0:8462", "socketmap:inet:127.0.0.1:8462:STYLE", id="any address"),
        pytest.param("unix:F/queue/x/socket", "socketmap:unix:x/socket:postfix", id="a socket in the queue"),
        pytest.param("unix:F/socket", "proxy:socketmap:unix:F/socket:postfix", id="a socket elsewhere"),
    ],
)
async def test_a_daemon_that_does_not_run(doctor: Doctor, listen: str, value: str) -> None:
    style = "tlsrpt" if doctor.machine.version >= (3, 10) else "postfix"
    value = value.replace("STYLE", style)
    reason = REFUSED if listen.startswith("inet") else "no such file or directory"
    config = {"server": {"listen": [listen]}}

    def silent(then: str) -> str:
        start = "postfix-mtasts-daemon --config F/postfix-mtasts.toml"
        return finding("error", f"{listen} does not answer: {reason}", then, "run", start)

    unasked = await doctor({"smtp_tls_policy_maps": ""}, config)
    assert unasked.startswith(silent("Postfix does not ask there yet; if it did, it would defer all mail"))
    assert unasked.endswith(line(value))
    assert unasked.count("error: ") == 2
    if "0.0.0.0" not in listen:
        assert await doctor({"smtp_tls_policy_maps": value}, config) == silent(ALL_WAITS) + line(value)


async def test_what_answers_is_not_the_daemon(doctor: Doctor) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b",")
        writer.write(b"6:OK may,")
        await writer.drain()
        writer.close()

    value = "socketmap:inet:127.0.0.1:8463:postfix"
    expected = finding(
        "error",
        "inet:127.0.0.1:8463 answers 'OK may': another program listens there",
        "Postfix does what that program says",
        "run",
        "postfix-mtasts-daemon --config F/postfix-mtasts.toml",
    )
    async with await asyncio.start_server(answer, "127.0.0.1", 8463):
        said = await doctor({"smtp_tls_policy_maps": value}, {"server": {"listen": ["inet:127.0.0.1:8463"]}})
    assert said == expected + line(value)


async def test_a_proxy(doctor: Doctor) -> None:
    ca = doctor.machine.config["fetch"]["ca_file"]
    unsent = "policies cannot be fetched, and mail to domains without a cached policy is sent unprotected"

    async def said(url: str) -> str:
        return await doctor(config={"fetch": {"ca_file": ca, "proxy": url}})

    dead = "proxy http://127.0.0.7:3128 cannot be reached: 127.0.0.7: connection refused"
    assert await said("http://127.0.0.7:3128") == finding("error", dead, unsent) + line()
    with HttpsServer(at_once=[b"HTTP/1.1 200 OK\r\n\r\n", HANG]) as server:
        url = f"http://127.0.0.1:{server.port}"
        what = f"policies are fetched through the proxy {url}"
        assert await said(url) == finding("note", what, GUARD) + well()
    with HttpsServer(at_once=[b"HTTP/1.1 403 Forbidden\r\n\r\n", HANG]) as server:
        url = f"http://127.0.0.1:{server.port}"
        what = f"proxy {url} did not connect to example.com:443: status 403 Forbidden"
        assert await said(url) == finding("warning", what, "it may refuse policy hosts too: see its log") + line()
    with HttpsServer(at_once=[b"\x05\xff", HANG]) as server:
        url = f"socks5://127.0.0.1:{server.port}"
        what = f"proxy {url} asks for a user and a password: set fetch.proxy_credentials"
        assert await said(url) == finding("error", what, unsent) + line()


async def test_a_clock_that_is_wrong(doctor: Doctor) -> None:
    installed = datetime.fromtimestamp(Path(postfix_mtasts.__file__).stat().st_mtime, UTC)
    expected = finding(
        "error",
        f"the clock says 2001-09-09 01:46 UTC, before this program was built ({installed:%Y-%m-%d %H:%M} UTC)",
        "certificates look as if they were not valid yet, and policies expire at the wrong time",
        "run",
        "timedatectl set-ntp true",
    )
    assert await doctor(now=1_000_000_000) == expected + line()


async def test_a_wrong_configuration_of_the_daemon(doctor: Doctor) -> None:
    expected = finding(
        "error",
        "F/postfix-mtasts.toml: unknown key reply.styl: did you mean reply.style?",
        "the daemon does not start",
    )
    mx = in_main_cf(
        "warning",
        "smtp_fallback_relay is [relay.example.com]",
        "mail that a policy would defer goes to that relay instead, under the relay's policy or none",
        "smtp_fallback_relay",
        "",
    )
    assert await doctor({"smtp_fallback_relay": "[relay.example.com]"}, {"reply": {"styl": "plain"}}) == expected + mx


async def test_cas_of_the_daemon(doctor: Doctor) -> None:
    expected = finding(
        "error", 'fetch.ca_file = "/dev/null": the file has no certificate in PEM format', "the daemon does not start"
    )
    assert await doctor(config={"fetch": {"ca_file": "/dev/null"}}) == expected + line()


@pytest.mark.parametrize("installation", [HERE], ids=["here"], indirect=True)
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        pytest.param(
            None,
            finding(
                "warning",
                "there is no postconf command on this machine",
                "the configuration of the Postfix that asks this daemon cannot be checked from here",
            ),
            id="no Postfix",
        ),
        pytest.param(
            'case "$*" in -d*) echo mail_version = 3.3.22;; *) exec F/bin/postconf "$@";; esac',
            finding(
                "error",
                "Postfix 3.3.22 is too old: it does not support servername=, which needs 3.4 or later",
                HELD_BACK,
            ),
            id="an old one",
        ),
        pytest.param(
            "echo mail_version = 3.7.0; echo config_directory = /nowhere",
            finding("error", "/nowhere/main.cf: no such file", "Postfix's configuration cannot be checked"),
            id="no main.cf",
        ),
        pytest.param(
            "echo nothing",
            finding(
                "warning",
                "postconf prints no version",
                "the configuration of the Postfix that asks this daemon cannot be checked from here",
            ),
            id="something else",
        ),
        pytest.param(
            'case "$*" in -d*) echo mail_version = 3.7.11;; esac',
            finding("error", "P prints no settings", "Postfix's configuration cannot be checked"),
            id="half of it",
        ),
        pytest.param(
            'case "$*" in -d*) echo mail_version = 3.7.11;; *) kill -STOP $$;; esac',
            finding(
                "error",
                "P: no answer within 5 s",
                "Postfix's configuration cannot be checked",
            ),
            id="none in time",
        ),
    ],
)
async def test_no_postfix_and_old_ones(doctor: Doctor, script: str | None, expected: str, tmp_path: Path) -> None:
    config = doctor.machine.configure({}, {}, (), "-")
    if script:
        (tmp_path / "postconf").write_text(doctor.machine.text(f"#!/bin/sh\n{script}\n"))
        (tmp_path / "postconf").chmod(0o755)
    show(await examine(str(config), time.time(), str(tmp_path)), Output())
    out = doctor.capsys.readouterr().out.replace(str(tmp_path / "postconf"), "P")
    assert out.startswith(expected)
    assert out.endswith(line())


async def test_a_main_cf_that_postfix_cannot_read(doctor: Doctor) -> None:
    expected = finding(
        "error",
        "/etc/postfix/main.cf, line 6: missing '=' after attribute name: \"nonsense\"",
        "Postfix's configuration cannot be checked",
    )
    assert await doctor({"smtp_tls_security_level": "may\nnonsense"}) == expected + line()


@pytest.mark.parametrize("installation", [HERE], ids=["here"], indirect=True)
class TestCommand:
    """As it is run: with the Postfix of this machine."""

    def run(self, *words: str | Path, through: Sequence[str] = ()) -> tuple[int, str, str]:
        line = [*through, COMMAND, "doctor", *words]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def test_all_is_well(self, machine: Machine) -> None:
        machine.put_right()
        config = machine.configure({}, {}, (), "-")
        version = ".".join(map(str, machine.version))
        assert self.run("--config", config) == (0, well().replace("Postfix V", f"Postfix {version}"), "")

    @pytest.mark.parametrize(
        ("settings", "status", "word"),
        [({"smtp_tls_security_level": "none"}, 1, "warning"), ({"smtp_tls_CAfile": ""}, 2, "error")],
    )
    def test_exit_status(self, machine: Machine, settings: Mapping[str, str], status: int, word: str) -> None:
        machine.put_right()
        config = machine.configure(settings, {}, (), "-")
        seen, out, err = self.run("--config", config)
        assert (seen, out.partition(":")[0], err) == (status, word, "")

    def test_json(self, machine: Machine) -> None:
        machine.put_right()
        config = machine.configure({"smtp_tls_policy_maps": ""}, {}, (), "-")
        status, out, err = self.run("--config", config, "--json")
        assert (status, err) == (2, "")
        assert json.loads(out) == {
            "postfix": f"Postfix {'.'.join(map(str, machine.version))}",
            "daemon": None,
            "status": "error",
            "findings": [
                {
                    "check": "map",
                    "status": "error",
                    "what": "smtp_tls_policy_maps is empty",
                    "why": UNPROTECTED,
                    "place": "run",
                    "line": f"postconf -e 'smtp_tls_policy_maps = {MAP}' && postfix reload",
                }
            ],
            "main_cf": f"smtp_tls_policy_maps = {MAP}",
        }

    def test_without_being_root(self, machine: Machine) -> None:
        machine.put_right()
        config = machine.configure({}, {}, (), "-")
        (machine.folder / "etc/main.cf").chmod(0)
        like_nobody = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
        expected = finding(
            "error",
            "/etc/postfix/main.cf cannot be read",
            "Postfix's configuration cannot be checked",
            "run",
            "sudo postfix-mtasts-query doctor",
        )
        try:
            assert self.run("--config", config, through=like_nobody) == (2, expected + line(), "")
        finally:
            (machine.folder / "etc/main.cf").chmod(0o644)
