"""What `doctor` finds does stop mail, or does weaken it, and the command that it advises does put it right.

Each case breaks a Postfix that works, sees what becomes of a mail, does what `doctor` advises, and sends again. That
takes minutes, so by default it is done with this machine's Postfix only; `make advice` takes each.
"""

import asyncio
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from postfix_mtasts.query.doctor.doctor import Examination, examine
from postfix_mtasts.query.doctor.finding import Finding
from postfix_mtasts.query.output import Status
from tests.e2e.conftest import of_the_parameter
from tests.e2e.vocabulary import CLEAR, NO_ANSWER, NOT_OFFERED, TRUSTED, VERIFIED, Outcome, enforce, outcome
from tests.integration.conftest import mounted
from tests.world.ca import Kind
from tests.world.daemon import Daemon
from tests.world.jail import fill_jail
from tests.world.mail import LISTEN, MAP, World, configuration
from tests.world.postfix import HERE, INSTALLATIONS, Installation

CAS = "/etc/ssl/certs/ca-certificates.crt"
HANDSHAKE = Outcome("deferred", "4.7.5", None, "Cannot start TLS: handshake failure")
NO_HOST = Outcome("bounced", "5.3.0", None, "unable to look up host DOMAIN: No address associated with hostname")
SELF_SIGNED = Outcome("deferred", "4.7.5", "Untrusted", "Server certificate not verified", "self-signed certificate")
NOT_STARTED = "smtp(8) does not start"
NO_TLS = Outcome("deferred", "4.7.5", None, "TLS is required, but our TLS engine is unavailable")
UNSENT = Outcome("deferred", "4.3.0", None, "server unavailable or unable to receive mail")
UNAVAILABLE = Outcome("deferred", "4.3.0", None, "mail transport unavailable")


class Machine:
    """A Postfix with a daemon beside it; `doctor` finds both where an administrator has them."""

    def __init__(self, world: World, commands: Path, daemon: Daemon) -> None:
        self.world = world
        self.postfix = world.postfix
        self.commands = commands
        self.daemon = daemon
        self.config = daemon.config
        self.sound = {name: (self.postfix.config / name).read_text() for name in ("main.cf", "master.cf")}

    def break_it(self, settings: Mapping[str, str], services: tuple[str, ...] = (), *, chroot: bool = False) -> None:
        """Write main.cf and master.cf with what is wrong, and have Postfix read them."""
        kept = [line for line in self.sound["main.cf"].splitlines() if line.partition(" ")[0] not in settings]
        main = [*kept, *(f"{name} = {self.text(value)}" for name, value in settings.items())]
        self.write("main.cf", "\n".join(main) + "\n")
        self.write("master.cf", self.sound["master.cf"] + "".join(f"{self.text(line)}\n" for line in services))
        if chroot:
            self.postfix.run("postconf", "-F", "smtp/unix/chroot=y")
        self.restart()

    def restart(self) -> None:
        """Have Postfix read its configuration, and try again to start what it gave up."""
        for file in self.postfix.config.glob("*"):
            os.utime(file, (0, 0))  # Postfix waits until a file that is new has stayed the same for a second.
        self.postfix.run("postfix", "stop")
        self.postfix.run("postfix", "start")

    def text(self, text: str) -> str:
        return text.replace("ETC/", f"{self.postfix.config}/").replace("WORLD/", f"{self.world.folder}/")

    def write(self, name: str, text: str) -> Path:
        """A file in Postfix's folder, as if it had been there for long."""
        file = self.postfix.config / name
        file.write_text(text)
        os.utime(file, (0, 0))
        return file

    def run(self, command: str) -> None:
        """Do what `doctor` advises, on the machine that has this Postfix."""
        done = subprocess.run(
            self.postfix.installation.command("sh", "-c", command), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (command, done.stderr)
        for file in self.postfix.config.glob("main.cf"):
            os.utime(file, (0, 0))

    def attempt(self, recipient: str) -> Outcome | str:
        """What becomes of a mail; NOT_STARTED if smtp(8) ends before it tries."""
        since = len(self.postfix.log())
        queue_id = self.postfix.send(recipient)
        pattern = re.compile(rf"{queue_id}: to=|postfix/smtp\[\d+\]: fatal: ")
        deadline = time.monotonic() + 30
        while not (found := [line for line in self.postfix.log()[since:] if pattern.search(line)]):
            assert time.monotonic() < deadline, self.postfix.log()[-20:]
            time.sleep(0.02)
        if "fatal: " in found[0]:
            return NOT_STARTED
        seen = outcome(self.postfix.wait_for(queue_id))
        return seen._replace(text=seen.text.replace(recipient.partition("@")[2], "DOMAIN"))

    def examine(self) -> Examination:
        return asyncio.run(examine(str(self.config), time.time(), str(self.commands)))

    def advice(self, check: str) -> Finding:
        """The one finding of this check."""
        findings = self.examine().findings
        (found,) = [finding for finding in findings if finding.check == check]
        return found


@pytest.fixture(
    scope="module",
    params=INSTALLATIONS if os.environ.get("EVERY_POSTFIX") else [HERE],
    ids=lambda installation: installation.name,
)
def installation(request: pytest.FixtureRequest) -> Installation:
    return of_the_parameter(request)


@pytest.fixture(scope="module")
def machine(world: World) -> Iterator[Machine]:
    postfix, installation = world.postfix, world.postfix.installation
    commands = world.folder / "bin"
    commands.mkdir()
    for name in ("postconf", "postmap"):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(installation.command(f"/usr/sbin/{name}"))} "$@"\n')
        script.chmod(0o755)
    folder = world.folder / "advised"
    folder.mkdir()
    assert world.daemon.stop() == 0
    for path in (installation.root / "etc/postfix").iterdir():  # What Postfix's commands need there.
        if path.name not in ("main.cf", "master.cf"):
            (shutil.copytree if path.is_dir() else shutil.copy)(path, postfix.config / path.name)
    with ExitStack() as stack:
        for root in {Path("/"), installation.root}:
            stack.enter_context(mounted("--bind", postfix.config, root / "etc/postfix"))
        stack.enter_context(mounted("--bind", world.ca.file, Path(CAS)))
        if installation.root != Path("/"):
            stack.enter_context(mounted("--bind", world.ca.file, installation.root / CAS.lstrip("/")))
        config = configuration(folder, world.ca, LISTEN)
        config["server"] |= {"control": str(folder / "control"), "listen": [LISTEN, f"unix:{folder / 'socket'}"]}
        config["reply"] = {}
        stack.enter_context(beside(world, commands))
        daemon = stack.enter_context(Daemon(folder, config))
        yield Machine(world, commands, daemon)


@contextmanager
def beside(world: World, commands: Path) -> Iterator[None]:
    """The daemon that is started here finds the Postfix of the world."""
    if world.postfix.installation.root == Path("/"):
        yield
        return
    with mounted("--bind", commands / "postconf", Path("/usr/sbin/postconf")):
        yield


@dataclass(frozen=True)
class Case:
    """What is wrong, what becomes of mail to a domain that enforces its policy and to one without, and the check.

    `then` is what becomes of the latter when the advice is followed.
    """

    check: str
    settings: Mapping[str, str]
    enforced: Outcome | str
    other: Outcome | str
    then: Outcome = TRUSTED
    services: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    status: Status = Status.ERROR
    chroot: bool = False
    kind: Kind = "good"  # Of the certificate of the domain without a policy.
    since_3_11: Outcome | None = None  # What becomes of all mail with later versions, if that is something else.


CASES = {
    "level mistyped": Case("level", {"smtp_tls_security_level": "enrypt"}, NOT_STARTED, NOT_STARTED),
    "level none": Case("level", {"smtp_tls_security_level": "none"}, VERIFIED, CLEAR, status=Status.WARNING),
    "level fingerprint": Case("level", {"smtp_tls_security_level": "fingerprint"}, VERIFIED, NO_ANSWER),
    "level secure": Case(
        "level",
        {"smtp_tls_security_level": "secure"},
        VERIFIED,
        SELF_SIGNED,
        then=TRUSTED._replace(tls="Untrusted"),
        status=Status.WARNING,
        kind="self-signed",
    ),
    "DNS disabled": Case("dns-support-level", {"smtp_dns_support_level": "disabled"}, NO_HOST, NO_HOST),
    "attribute mistyped in a table": Case(
        "entry",
        {"smtp_tls_policy_maps": f"texthash:ETC/attributes, {MAP}"},
        NO_ANSWER,
        TRUSTED,
        files={"attributes": "ENFORCED secure mach=mx.ENFORCED\n"},
    ),
    "another port": Case(
        "map", {"smtp_tls_policy_maps": "socketmap:inet:127.0.0.1:8999:postfix"}, NO_ANSWER, NO_ANSWER
    ),
    "another server first": Case(
        "second-server", {"smtp_tls_policy_maps": f"socketmap:inet:127.0.0.1:8999:postfix, {MAP}"}, NO_ANSWER, NO_ANSWER
    ),
    "proxymap": Case(
        "proxymap",
        {
            "smtp_tls_policy_maps": "proxy:socketmap:unix:WORLD/advised/socket:postfix",
            "proxy_read_maps": "static:elsewhere",
        },
        NOT_STARTED,
        NOT_STARTED,
        since_3_11=NO_ANSWER,
    ),
    "per site": Case("per-site", {"smtp_tls_per_site": "static:NONE"}, VERIFIED, TRUSTED, status=Status.WARNING),
    "wrappermode": Case("wrappermode", {"smtp_tls_wrappermode": "yes"}, HANDSHAKE, UNSENT),
    "no protocol": Case(
        "mandatory-protocols", {"smtp_tls_mandatory_protocols": "!TLSv1.2, !TLSv1.3"}, HANDSHAKE, TRUSTED
    ),
    "old protocols": Case(
        "mandatory-protocols", {"smtp_tls_mandatory_protocols": "TLSv1, TLSv1.1"}, HANDSHAKE, TRUSTED
    ),
    "protocol mistyped": Case("mandatory-protocols", {"smtp_tls_mandatory_protocols": "TLSv12"}, HANDSHAKE, TRUSTED),
    "grade mistyped": Case("mandatory-ciphers", {"smtp_tls_mandatory_ciphers": "hihg"}, HANDSHAKE, TRUSTED),
    "no cipher": Case("exclude-ciphers", {"smtp_tls_exclude_ciphers": "HIGH, MEDIUM"}, HANDSHAKE, HANDSHAKE),
    "no mandatory cipher": Case(
        "mandatory-exclude-ciphers", {"smtp_tls_mandatory_exclude_ciphers": "ALL"}, HANDSHAKE, TRUSTED
    ),
    "EHLO": Case("discard-ehlo-keywords", {"smtp_discard_ehlo_keywords": "chunking, STARTTLS"}, NOT_OFFERED, CLEAR),
    "DNS mistyped": Case("dns-support-level", {"smtp_dns_support_level": "dnsec"}, NOT_STARTED, NOT_STARTED),
    "lookup mistyped": Case("host-lookup", {"smtp_host_lookup": "dsn"}, NOT_STARTED, NOT_STARTED),
    "comment": Case("comment", {"smtp_tls_policy_maps": f"{MAP} # our policies"}, NOT_STARTED, NOT_STARTED),
    "dead table": Case("table", {"smtp_tls_policy_maps": f"texthash:ETC/gone, {MAP}"}, NO_ANSWER, NO_ANSWER),
    "unsupported type": Case("table", {"smtp_tls_policy_maps": f"nonsense:ETC/gone, {MAP}"}, NO_ANSWER, NO_ANSWER),
    "level mistyped in a table": Case(
        "entry",
        {"smtp_tls_policy_maps": f"texthash:ETC/levels, {MAP}"},
        NO_ANSWER,
        TRUSTED,
        files={"levels": "# ours\nENFORCED secrue match=mx.ENFORCED\n"},
    ),
    "level mistyped in main.cf": Case(
        "entry", {"smtp_tls_policy_maps": f"inline:{{ENFORCED=encript}}, {MAP}"}, NO_ANSWER, TRUSTED, then=TRUSTED
    ),
    "no map": Case("map", {"smtp_tls_policy_maps": ""}, TRUSTED, TRUSTED),
    "a regexp": Case(
        "order",
        {"smtp_tls_policy_maps": f"regexp:ETC/patterns, {MAP}"},
        TRUSTED,
        TRUSTED,
        files={"patterns": "/\\.com$/ may\n"},
    ),
    "no CAs": Case(
        "ca",
        {"smtp_tls_CAfile": ""},
        Outcome("deferred", "4.7.5", "Untrusted", "Server certificate not verified", "untrusted issuer /CN=Test CA"),
        TRUSTED._replace(tls="Untrusted"),
    ),
    "bad CAs": Case("ca", {"smtp_tls_CAfile": "/dev/null"}, NO_TLS, CLEAR),
    "no tlsproxy": Case("tlsproxy", {"smtp_tls_connection_reuse": "yes"}, HANDSHAKE, HANDSHAKE),
    "outside the chroot": Case(
        "chroot",
        {"smtp_tls_policy_maps": "socketmap:unix:WORLD/advised/socket:postfix"},
        NO_ANSWER,
        NO_ANSWER,
        chroot=True,
    ),
    "one service": Case(
        "level",
        {"transport_maps": "inline:{ENFORCED=other:}"},
        NOT_STARTED,
        TRUSTED,
        services=("other unix - - n - - smtp -o smtp_tls_security_level=secrue",),
    ),
    "no index": Case(
        "table",
        {"smtp_tls_policy_maps": f"hash:ETC/levels, {MAP}"},
        NO_ANSWER,
        NO_ANSWER,
        files={"levels": "elsewhere.example may\n"},
    ),
    "default_transport": Case("routes", {"default_transport": "stmp"}, UNAVAILABLE, UNAVAILABLE),
}


@pytest.mark.parametrize("name", CASES)
def test_what_it_advises(machine: Machine, name: str) -> None:
    case = CASES[name]
    world = machine.world
    if "hash:" in str(case.settings) and "hash" not in world.postfix.run("postconf", "-m").split():
        pytest.skip("needs a Postfix with tables of type hash")
    label = f"case{list(CASES).index(name)}"
    enforced, other = f"enforced.{label}.com", f"other.{label}.com"
    world.add(enforced, "good", enforce(enforced))
    world.add(other, case.kind, None, record=None)
    for file, text in case.files.items():
        machine.write(file, text.replace("ENFORCED", enforced))
    settings = {name: value.replace("ENFORCED", enforced) for name, value in case.settings.items()}
    fill_jail(machine.postfix)
    machine.break_it(settings, case.services, chroot=case.chroot)
    later = case.since_3_11 if machine.postfix.version >= (3, 11) else None
    assert machine.attempt(f"user@{enforced}") == (later or case.enforced)
    if case.other is not NOT_STARTED:
        assert machine.attempt(f"user@{other}") == case.other
    advice = machine.advice(case.check)
    assert (advice.status, advice.place) == (case.status, "run")
    machine.run(advice.line)
    machine.restart()
    rest = [finding for finding in machine.examine().findings if finding.status is not Status.OK]
    assert rest == []
    expected = VERIFIED if "=encript" not in str(settings) else TRUSTED
    assert [machine.attempt(f"user@{domain}") for domain in (enforced, other)] == [expected, case.then]


def test_an_old_index(machine: Machine) -> None:
    """Postfix does not see what was written since."""
    postfix = machine.postfix
    if "hash" not in postfix.run("postconf", "-m").split():
        pytest.skip("needs a Postfix with tables of type hash")
    table = f"hash:{machine.write('aged', 'exception.aged.com none')}"
    postfix.run("postmap", table)
    machine.write("aged", "exception.aged.com may\n")
    os.utime(postfix.config / "aged")
    os.utime(postfix.config / "aged.db", (1, 1))
    machine.world.add("exception.aged.com", "good", enforce("exception.aged.com"))
    machine.break_it({"smtp_tls_policy_maps": f"{table}, {MAP}"})
    os.utime(postfix.config / "aged")
    os.utime(postfix.config / "aged.db", (1, 1))
    assert machine.attempt("user@exception.aged.com") == CLEAR
    advice = machine.advice("table")
    assert (advice.status, advice.place) == (Status.WARNING, "run")
    machine.run(advice.line)
    machine.restart()
    assert machine.attempt("user@exception.aged.com") == TRUSTED


def test_a_daemon_that_was_started_before_main_cf_changed(machine: Machine) -> None:
    machine.break_it({"smtp_tls_security_level": "dane", "smtp_dns_support_level": "dnssec"})
    advice = machine.advice("reload")
    assert "with style" in advice.what
    assert advice.what.endswith("dane yield if it were reloaded")
    since = len(machine.daemon.log)
    subprocess.run(["sh", "-c", advice.line], check=True)  # The daemon runs beside the Postfix.
    machine.daemon.wait_for("reply.dane is yield", since=since)
    examination = machine.examine()
    assert [finding for finding in examination.findings if finding.check in ("reload", "dane")] == []
    assert examination.daemon
    assert examination.daemon.dane.value == "yield"
    machine.break_it({})
    since = len(machine.daemon.log)
    subprocess.run(["sh", "-c", machine.advice("reload").line], check=True)
    machine.daemon.wait_for("reply.dane is off", since=since)


def test_sockets_that_only_the_socket_units_have(machine: Machine) -> None:
    """Another port, and a socket in the queue directory, as README.Debian has them."""
    folder = machine.world.folder / "passed"
    (machine.postfix.queue / "mtasts").mkdir()
    folder.mkdir()
    config = configuration(folder, machine.world.ca, LISTEN)
    config["server"] = {"control": str(folder / "control")}
    config["reply"] = {}
    path = machine.postfix.queue / "mtasts/socket"
    with socket.create_server(("127.0.0.1", 8462)) as inet, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        path.chmod(0o666)
        with Daemon(folder, config, passed=[(inet, "socketmap"), (unix, "socketmap")]) as daemon:
            for number, value in enumerate(("inet:127.0.0.1:8462", "unix:mtasts/socket")):
                machine.break_it({"smtp_tls_policy_maps": f"socketmap:{value}:postfix"})
                found = asyncio.run(examine(str(daemon.config), time.time(), str(machine.commands)))
                assert [finding for finding in found.findings if finding.status is not Status.OK] == []
                domain = f"passed{number}.com"
                machine.world.add(domain, "good", enforce(domain))
                assert machine.attempt(f"user@{domain}") == VERIFIED


def test_several_instances(machine: Machine) -> None:
    """What is wrong with another than the usual one is found too, and the advice is for that one."""
    other = machine.world.folder / "postfix-out"
    other.mkdir()
    machine.break_it({"multi_instance_directories": str(other)})
    main = machine.sound["main.cf"].replace(str(machine.postfix.queue), str(machine.world.folder / "queue-out"))
    (other / "main.cf").write_text(f"{main}smtp_tls_wrappermode = yes\n")
    (other / "master.cf").write_text(machine.sound["master.cf"])
    advice = machine.advice("wrappermode")
    assert advice.what == f"{other}: smtp_tls_wrappermode is yes"
    assert advice.line == (f"postconf -c {other} -e 'smtp_tls_wrappermode = no' && postfix -c {other} reload")
    machine.break_it({})
