"""The examples in contrib/postfix work as they stand: with the Postfix they are for, in a chroot, and with the daemon
as their comments configure it, and else with its defaults."""

import hashlib
import os
import re
import shlex
import ssl
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.vocabulary import MISMATCH, UNTRUSTED, VERIFIED, enforce, outcome, policy, secure
from tests.integration.conftest import mounted
from tests.world.daemon import Daemon
from tests.world.jail import fill_jail
from tests.world.mail import LISTEN, POLICY_HOST, World, configuration
from tests.world.smtp import SmtpServer

CONTRIB = Path(__file__).parents[2] / "contrib/postfix"
RELAY_HOST = "smtp.example.com"


class Example(NamedTuple):
    """A file, and the map that it names; and what has no meaning in Postfix before 3.10."""

    file: str
    unknown: tuple[str, ...] = ()
    map: str = f"socketmap:{LISTEN}:postfix"


IN_CHROOT = Example("main.cf.socket-in-chroot", map="socketmap:unix:$queue_directory/mtasts/socket:postfix")
IN_RUN = Example("main.cf.socket-in-run", map="socketmap:unix:$run/socket:postfix")
RELAYHOST = Example("main.cf.relayhost")
EXCEPTIONS = Example("main.cf.exceptions")
DANE = Example("main.cf.dane")
EXAMPLES = [
    Example("main.cf.before-3.10"),
    Example("main.cf.3.10", ("smtp_tlsrpt_enable=yes", "smtp_tlsrpt_socket_name=tlsrpt/collector")),
    DANE,
    EXCEPTIONS,
    RELAYHOST,
    IN_CHROOT,
    IN_RUN,
]


def test_all_files_are_tried_and_listed() -> None:
    files = {example.file for example in EXAMPLES} | {"tls_exceptions"}
    files |= {"main.cf.tls-reports", "master.cf.tls-reports"}  # In test_reports.
    assert {path.name for path in CONTRIB.iterdir()} == files | {"README.md"}
    assert set(re.findall(r"`((?:main\.cf\.|master\.cf\.|tls_)[^`]*)`", (CONTRIB / "README.md").read_text())) == files


@pytest.fixture(scope="module")
def base(world: World) -> str:
    """The main.cf of a Postfix that has not heard of TLS yet. Its smtp(8) is in a chroot, and no daemon runs."""
    assert world.daemon.stop() == 0
    world.postfix.run("postconf", "-F", "smtp/unix/chroot=y")
    fill_jail(world.postfix)
    (world.postfix.queue / "mtasts").mkdir()
    lines = (world.postfix.config / "main.cf").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not re.match("world|transport_maps|smtp_tls_(?!loglevel)", line))


def text_of(world: World, file: str) -> str:
    """An example, with the paths of this world for those of a machine."""
    text = (CONTRIB / file).read_text()
    for theirs, ours in {
        "/etc/ssl/certs/ca-certificates.crt": world.ca.file,
        "/etc/postfix/": f"{world.postfix.config}/",
        "/var/spool/postfix": world.postfix.queue,
        "/run/mtasts": world.folder,
    }.items():
        text = text.replace(theirs, str(ours))
    return text


def write(file: Path, text: str) -> None:
    """As if it had been there for long: Postfix waits until a file that is new has stayed the same for a second."""
    file.write_text(text)
    os.utime(file, (0, 0))


def toml_in(text: str) -> str:
    """What the comments of an example say to put into the daemon's configuration."""
    found = re.search(r"postfix-mtasts.toml:\n#\n((?:#   .*\n)+)", text)
    return found[1].replace("#   ", "") if found else ""


@contextmanager
def running(world: World, base: str, example: Example) -> Iterator[Daemon]:
    """Postfix and the daemon, as an example has them."""
    postfix = world.postfix
    text = text_of(world, example.file)
    write(postfix.config / "main.cf", base + text)
    write(postfix.config / "tls_exceptions", text_of(world, "tls_exceptions"))
    fill_jail(postfix)
    config = configuration(world.folder / "daemon", world.ca, "")
    del config["server"], config["reply"], config["dns"]
    postfix.run("postfix", "stop")
    with ExitStack() as stack:
        with beside(world):
            daemon = Daemon(world.folder / "daemon", config | tomllib.loads(toml_in(text)))
            stack.enter_context(daemon)
        postfix.run("postfix", "start")
        yield daemon


@contextmanager
def beside(world: World) -> Iterator[None]:
    """This machine has the Postfix of the world."""
    installation = world.postfix.installation
    with ExitStack() as stack:
        stack.enter_context(mounted("--bind", world.postfix.config, "/etc/postfix"))
        if installation.root != Path("/"):
            stack.enter_context(mounted("--bind", world.postfix.config, installation.root / "etc/postfix"))
            script = world.folder / "postconf"
            script.write_text(f'#!/bin/sh\nexec {shlex.join(installation.command("postconf"))} "$@"\n')
            script.chmod(0o755)
            stack.enter_context(mounted("--bind", script, "/usr/sbin/postconf"))
        yield


def destination(world: World, example: Example) -> tuple[str, SmtpServer]:
    """A domain whose policy Postfix is to keep, and where its mail goes."""
    if example is not RELAYHOST:
        domain = f"{example.file.removeprefix('main.cf.').replace('.', '-')}.test"
        return domain, world.add(domain, "good", enforce(domain))
    world.dns.add(RELAY_HOST, "A", "127.0.5.1")
    world.dns.add_txt(f"_mta-sts.{RELAY_HOST}", b"v=STSv1; id=1;")
    world.dns.add(f"mta-sts.{RELAY_HOST}", "A", POLICY_HOST)
    context = world.ca.issue(f"mta-sts.{RELAY_HOST}").server_context()
    world.https.policy(f"mta-sts.{RELAY_HOST}", policy("enforce", RELAY_HOST), context)
    context = world.ca.issue(RELAY_HOST).server_context()
    return RELAY_HOST, world.servers.enter_context(SmtpServer("127.0.5.1", 587, context))


@pytest.mark.parametrize("example", [pytest.param(example, id=example.file) for example in EXAMPLES])
def test_an_example(world: World, base: str, example: Example) -> None:
    domain, server = destination(world, example)
    with running(world, base, example):
        assert outcome(world.postfix.deliver(f"user@{domain}")) == VERIFIED
        server.context = world.mail_server_context(domain, "wrong name")
        assert outcome(world.postfix.deliver(f"user@{domain}")) == MISMATCH
        assert [message.recipients for message in server.messages] == [(f"user@{domain}",)]
        maps = example.map.replace("$run", str(world.folder)).replace("$queue_directory", str(world.postfix.queue))
        match = RELAY_HOST if example is RELAYHOST else f"mx.{domain}"
        attributes = " policy_type=sts " if world.postfix.version >= (3, 10) else ""
        found = world.postfix.postmap_q(maps, domain)
        assert found is not None
        assert found.startswith(secure(match) + attributes)
        assert bool(attributes) or found == secure(match)


@pytest.mark.parametrize("example", [pytest.param(example, id=example.file) for example in EXAMPLES])
def test_postconf_knows_all_of_it(world: World, base: str, example: Example) -> None:
    folder = world.folder / example.file
    folder.mkdir()
    write(folder / "main.cf", "compatibility_level = 3.6\n" + text_of(world, example.file))
    write(folder / "master.cf", (world.postfix.config / "master.cf").read_text())
    command = world.postfix.installation.command("postconf", "-c", str(folder), "-n")
    complaints = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    unknown = example.unknown if world.postfix.version < (3, 10) else ()
    warnings = [f"postconf: warning: {folder}/main.cf: unused parameter: {setting}" for setting in unknown]
    assert sorted(complaints.splitlines()) == warnings


def test_the_exceptions_are_made(world: World, base: str) -> None:
    server = world.add("broken.example.com", "self-signed", enforce("broken.example.com"))
    with running(world, base, EXCEPTIONS) as daemon:
        assert outcome(world.postfix.deliver("user@broken.example.com")) == UNTRUSTED
        assert len(server.messages) == 1
    assert [line for line in daemon.log if "broken.example.com" in line] == []


def test_dane_goes_first(world: World, base: str) -> None:
    world.dns.authenticated.add("signed.test")
    kept, broken = "kept.signed.test", "broken.signed.test"
    world.add(broken, "good", enforce(broken))
    server = world.add(kept, None, enforce(kept))
    certificate = world.ca.issue(f"mx.{kept}", kind="self-signed")
    server.context = certificate.server_context()
    pem = certificate.file.read_text()
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE") :])).hexdigest()
    for domain in (kept, broken):
        world.dns.add(f"_25._tcp.mx.{domain}", "TLSA", f"3 0 1 {digest}")
    with running(world, base, DANE):
        assert outcome(world.postfix.deliver(f"user@{kept}")) == VERIFIED
        delivery = world.postfix.deliver(f"user@{broken}")
        assert (delivery.status, delivery.dsn) == ("deferred", "4.7.5")
