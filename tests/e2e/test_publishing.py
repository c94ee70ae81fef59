"""A published policy from the first day to the last, with real parts, and never a good mail refused.

BIND, Caddy and pebble come from the root of Debian 12. A Postfix with our daemon sends; another one receives, and its
domain is published. After each step the sender delivers or defers as it should. So do senders that have nothing newer
than a policy that was served before: each is a service of the sending Postfix that is told what our daemon told it
while that policy was in force, until the policy's max_age has passed.

Days do not pass: what has happened is put so many days back.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.state import Clock
from postfix_mtasts.publish.store import Store
from postfix_mtasts.query.output import Status
from postfix_mtasts.sts.domain import PolicyDomain
from tests.integration.reports.conftest import Signer
from tests.integration.reports.mails import REPORTS, signed
from tests.integration.reports.test_stored import about, failure, policy
from tests.world.bind import Bind
from tests.world.ca import Ca, Kind
from tests.world.daemon import COMMAND, Daemon, ask, query, toml
from tests.world.mail import LISTEN, MAP, NAMESERVER
from tests.world.postfix import HERE, TMP, Postfix, nameserver
from tests.world.servers import ACME, PUBLISHERS, ROOT, lacking, pebble, running

CADDYFILE = Path(__file__).parents[2] / "contrib/caddy/Caddyfile"
PUBLISH = COMMAND.with_name("postfix-mtasts-publish")
DOMAIN = "example.test"
ZONE = "sts.provider.test"
WEB = "127.0.2.1"
MX = {f"mx1.{DOMAIN}": "127.0.3.1", f"mx2.{DOMAIN}": "127.0.3.2"}
ONE, TWO = "one.example", "two.example"  # Senders that report.
ADMIN = "postmaster@admin.test"
WEEK = 7.0  # Days: the max_age of the policy.
MONTH = 30 * 86_400  # Seconds that a certificate of the policy host lives.
MAX_CACHES = 8
DAY = 86_400

pytestmark = pytest.mark.timeout(400)  # About a minute on a machine that does nothing else.


@dataclass
class Cache:
    """A sender with a policy that was served once: what its daemon says, and when it has expired."""

    recipient: str
    answer: str
    until: float


@dataclass
class Way:
    """The world, and how far it has come. `now` is in days since the beginning."""

    folder: Path
    ca: Ca
    dns: Bind
    daemon: Daemon
    sender: Postfix
    receiver: Postfix
    signer: Signer
    now: float = 0.0
    reports: int = 0
    caches: list[Cache] = field(default_factory=list)
    sent: dict[str, list[str]] = field(default_factory=dict)  # Queue ids by how the last delivery ended.

    def run(self, *words: str | Path, command: Path = PUBLISH) -> subprocess.CompletedProcess[str]:
        subcommand, *rest = words
        environment = {**os.environ, "SUDO_USER": "anna", "MAIL_CONFIG": str(self.receiver.config)}
        line = [command, subcommand, "--config", self.folder / "publish.toml", *rest]
        return subprocess.run(line, capture_output=True, text=True, check=False, env=environment)

    def json(self, *words: str) -> Any:
        done = self.run(words[0], "--json", *words[1:])
        assert done.returncode in (0, 1, 2), done.stderr
        (line,) = done.stdout.splitlines()
        return json.loads(line)

    def clean(self) -> Any:
        """What a check finds that finds nothing wrong."""
        found = self.json("check", DOMAIN)
        assert (found["remarks"], found["warnings"]) == ([], []), found
        return found

    def days(self, days: int) -> None:
        """So many days pass, three at most; the web server goes on serving what it serves."""
        store = Store(str(self.folder / "publish/publish.sqlite"))
        state = store.get(PolicyDomain(DOMAIN))
        assert state
        clock = Clock(state.clock.counted, state.clock.at - days * DAY)
        store.save(follows(replace(state, clock=clock)), "the test", 0.0)
        store.close()
        if (database := self.folder / "reports/reports.sqlite").exists():
            with contextlib.closing(sqlite3.connect(database)) as reports, reports:
                for table in ("reports", "groups"):
                    reports.execute(f"UPDATE {table} SET day = date(day, '-{days} days')")
        self.now += days
        self._remember()

    def _remember(self) -> None:
        """A sender may have fetched this moment what is served."""
        answer = ask(LISTEN, DOMAIN)
        if not answer.startswith("OK secure "):
            return
        known = [cache for cache in self.caches if cache.answer == answer]
        if not known:
            name = f"cached{len(self.caches)}"
            (self.folder / name).write_text(f"{DOMAIN} {answer.removeprefix('OK ')}\n")
            known = [Cache(f"{name}@{DOMAIN}", answer, 0.0)]
            self.caches += known
            assert len(self.caches) <= MAX_CACHES
        known[0].until = self.now + WEEK

    def deliveries(self) -> set[tuple[str, str | None]]:
        """How mail to the domain ends, with what the daemon knows now, and with each policy that is still cached."""
        status, _, errors = query("cache", "refresh", DOMAIN, "--config", self.daemon.config)
        if status == Status.NOTHING:  # It has no policy, and is looked up like any domain.
            query("cache", "forget", DOMAIN, "--config", self.daemon.config)
        assert status in (Status.OK, Status.NOTHING), errors
        self._remember()
        recipients = [f"fresh@{DOMAIN}", *(cache.recipient for cache in self.caches if self.now <= cache.until)]
        ids = [self.sender.send(recipient) for recipient in recipients]
        ends = [self.sender.wait_for(one) for one in ids]
        for one, end in zip(ids, ends, strict=True):
            self.sent.setdefault(end.status, []).append(one)
        # With a policy in mode enforce, an older one or the present one, the certificate is verified.
        for recipient, end in zip(recipients, ends, strict=True):
            knows = recipient != recipients[0] or ask(LISTEN, DOMAIN).startswith("OK secure ")
            assert end.status != "sent" or (end.tls == "Verified") == knows, end.lines
        return {(end.status, end.mistrust) for end in ends}

    def certificate(self, host: str, kind: Kind) -> None:
        """An MX host shows another certificate."""
        shutil.copy(self.ca.issue(host, kind=kind).file, self.folder / f"{host}.pem")
        self.receiver.reload()

    def said(self, day: int, *failures: dict[str, Any], sessions: int = 6) -> None:
        """Two senders report on so many days before yesterday, and their mails are imported."""
        folder = self.folder / "inbox"
        folder.mkdir(exist_ok=True)
        failed = sum(one["failed-session-count"] for one in failures)
        for sender in (ONE, TWO):
            self.reports += 1
            report = about(day, self.reports, policy(sessions - failed, failed, *failures, domain=DOMAIN))
            (folder / f"{self.reports}.eml").write_bytes(signed(self.signer, report, sender))

    def take_in(self) -> None:
        done = self.run("import", *sorted((self.folder / "inbox").iterdir()), command=REPORTS)
        assert done.returncode == 0, done.stdout + done.stderr
        shutil.rmtree(self.folder / "inbox")

    def served(self) -> str | None:
        file = self.folder / f"policies/mta-sts.{DOMAIN}/.well-known/mta-sts.txt"
        return file.read_text() if file.exists() else None


@pytest.fixture
def way() -> Iterator[Way]:
    for why in (HERE.missing(), lacking(*PUBLISHERS)):
        if why:
            pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="postfix-mtasts-", dir=TMP) as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("ca", "bind", "daemon", "sender", "receiver", "publish", "policies"):
            (folder / part).mkdir()
        ca = Ca(folder / "ca")
        stack.enter_context(nameserver(NAMESERVER, folder))
        stack.enter_context(ROOT.mounted())
        dns = stack.enter_context(Bind(folder / "bind", NAMESERVER, ZONE))
        for host, address in MX.items():
            dns.add(host, "A", address)
            shutil.copy(ca.issue(host).file, folder / f"{host}.pem")
        dns.add(DOMAIN, "MX", f"10 mx1.{DOMAIN}.")
        trusted = ca.file.read_bytes() + stack.enter_context(pebble(folder, ca, NAMESERVER, MONTH))
        (folder / "both.pem").write_bytes(trusted)
        text = CADDYFILE.read_text().replace("/var/lib/postfix-mtasts-publish/policies", str(folder / "policies"))
        ours = f"{{\n\tacme_ca {ACME}\n\tacme_ca_root {ca.file}\n"
        (folder / "Caddyfile").write_text(text.replace("{\n", ours, 1))
        command = ROOT.command("caddy", "run", "--adapter", "caddyfile", "--config", f"{folder}/Caddyfile")
        stack.enter_context(running(folder / "caddy.log", *command))
        (folder / "publish.toml").write_text(toml(publishing(folder, dns)))
        stack.enter_context(running(folder / "serve.log", PUBLISH, "serve", "--config", folder / "publish.toml"))
        daemon = stack.enter_context(Daemon(folder / "daemon", sending(folder)))
        receiver, sender = _receiver(folder), _sender(folder)
        stack.enter_context(receiver)
        stack.enter_context(sender)
        yield Way(folder, ca, dns, daemon, sender, receiver, Signer(dns))


def publishing(folder: Path, dns: Bind) -> dict[str, dict[str, object]]:
    """The configuration of publish and of reports."""
    return {
        "dns": {"nameservers": [NAMESERVER], "timeout": 20.0},
        "fetch": {"ca_file": str(folder / "both.pem"), "allow_addresses": ["127.0.0.0/8"]},
        "reports": {"path": str(folder / "reports/reports.sqlite"), "domains": [DOMAIN], "alert_to": [ADMIN]},
        "publish": {
            "path": str(folder / "publish/publish.sqlite"),
            "policies": str(folder / "policies"),
            "zone": ZONE,
            "addresses": [WEB],
            "reports": ["mailto:tlsrpt@provider.test"],
            "ca": "ca.test",
        },
        "publish.dns": {"server": NAMESERVER, "key": str(dns.key_file)},
    }


def sending(folder: Path) -> dict[str, dict[str, object]]:
    """The configuration of the sender's daemon."""
    return {
        "server": {"listen": [LISTEN], "control": str(folder / "daemon/control"), "answer_within": 60},
        "cache": {"path": str(folder / "daemon/policies.sqlite")},
        "dns": {"nameservers": [NAMESERVER]},
        "fetch": {"ca_file": str(folder / "both.pem"), "allow_addresses": ["127.0.0.0/8"]},
        "reply": {"style": "plain", "dane": "off"},
    }


def _sender(folder: Path) -> Postfix:
    names = [f"cached{number}" for number in range(MAX_CACHES)]
    services = [f"{one} unix - - n - - smtp -o smtp_tls_policy_maps=texthash:{folder}/{one}" for one in names]
    settings = {
        "smtp_tls_security_level": "may",
        "smtp_tls_CAfile": str(folder / "both.pem"),
        "smtp_tls_policy_maps": MAP,
        "transport_maps": f"inline:{{{' '.join(f'{{{one}@{DOMAIN} = {one}:}}' for one in names)}}}",
    }
    return Postfix(HERE, folder / "sender", settings, services)


def _receiver(folder: Path) -> Postfix:
    services = [
        f"{address}:25 inet n - n - - smtpd -o smtpd_tls_chain_files={folder}/{host}.pem"
        for host, address in MX.items()
    ]
    (folder / "mailbox").touch()
    shutil.chown(folder / "mailbox", "nobody")
    keep = f"keep unix - n n - 1 pipe user=nobody argv=/usr/bin/tee -a {folder}/mailbox"
    settings = {
        "myhostname": f"mx.{DOMAIN}",
        "mydestination": DOMAIN,
        "local_recipient_maps": "",
        "local_transport": "discard:",
        "transport_maps": f"inline:{{{{{ADMIN} = keep:}}}}",
        "smtpd_tls_security_level": "may",
    }
    return Postfix(HERE, folder / "receiver", settings, [*services, keep])


SENT = {("sent", None)}


def test_the_whole_way(way: Way) -> None:
    ask(LISTEN, DOMAIN)  # From now on, the sender's daemon knows the domain.
    assert way.deliveries() == SENT

    # It is added, and its owner copies three lines into his zone.
    assert way.run("add", DOMAIN).returncode == 0
    assert way.deliveries() == SENT
    for line in way.run("records", "--json", DOMAIN).stdout.splitlines():
        record = json.loads(line)
        if record["zone"] == "customer":
            way.dns.add(record["name"], record["type"], record["data"])
    way.json("check", DOMAIN)
    found = way.clean()
    assert (found["mode"], found["id_in_dns"], found["certificate"], found["waits"]) == ("testing", True, True, [])
    assert way.deliveries() == SENT

    # In mode testing, mail arrives whatever is wrong. Then mode enforce is refused.
    way.certificate(f"mx1.{DOMAIN}", "expired")
    assert way.deliveries() == SENT
    refused = way.run("mode", DOMAIN, "enforce")
    assert (refused.returncode, "cannot enforce yet: " in refused.stderr) == (2, True), refused
    way.certificate(f"mx1.{DOMAIN}", "good")
    way.clean()
    assert way.run("ready", DOMAIN).returncode == 1

    enforces(way)
    fails_and_is_mended(way)
    changes_its_mx_host(way)
    leaves(way)


def enforces(way: Way) -> None:
    """After two weeks without a failure."""
    for _ in range(8):
        way.days(2)
        way.clean()
    for day in range(10):
        way.said(day)
    way.take_in()
    done = way.run("ready", DOMAIN)
    assert done.returncode == 0, done.stdout
    assert way.run("mode", DOMAIN, "enforce").returncode == 0
    assert way.deliveries() == SENT
    way.json("check", DOMAIN)
    assert way.clean()["waits"] == []
    assert way.deliveries() == SENT
    assert ask(LISTEN, DOMAIN) == f"OK secure match=mx1.{DOMAIN} servername=hostname"


def fails_and_is_mended(way: Way) -> None:
    """The certificate of the MX host expires: mail waits, and the administrator is told."""
    way.days(2)
    way.clean()
    before = way.served()
    way.certificate(f"mx1.{DOMAIN}", "expired")
    assert way.deliveries() == {("deferred", "certificate has expired")}
    waiting = way.sent.pop("deferred")
    assert way.run("check", DOMAIN).returncode == 2
    way.said(0, failure("certificate-expired", len(waiting), f"mx1.{DOMAIN}"))
    way.take_in()
    done = way.run("check", DOMAIN)
    alarm = f"postfix-mtasts-publish: error: {DOMAIN}: 2 organizations reported in the last 7 days that they could not"
    assert (done.returncode, done.stderr[: len(alarm)]) == (2, alarm)
    assert (way.json("show", DOMAIN)["mode"], way.served()) == ("enforce", before)
    assert way.run("alert", command=REPORTS).returncode == 0
    way.receiver.wait_for_line(rf"to=<{ADMIN}>, .*status=sent")
    assert f"Subject: TLS reports: new: certificate-expired ({DOMAIN})\n" in (way.folder / "mailbox").read_text()

    way.certificate(f"mx1.{DOMAIN}", "good")
    way.sender.flush()
    assert {way.sender.wait_for(one, attempt=2).status for one in waiting} == {"sent"}
    assert way.deliveries() == SENT


def changes_its_mx_host(way: Way) -> None:
    """From mx1 to mx2: first in the policy, then in DNS."""
    assert way.run("mx", DOMAIN, "--set", f"mx2.{DOMAIN}").returncode == 0
    assert way.deliveries() == SENT
    days = 0
    while any(wait["kind"] == "add-mx" for wait in way.json("check", DOMAIN)["waits"]):
        way.days(2)
        days += 2
        assert way.deliveries() == SENT
    assert days > WEEK
    way.dns.add(DOMAIN, "MX", f"10 mx2.{DOMAIN}.")
    assert way.deliveries() == SENT
    way.dns.remove(DOMAIN, "MX")
    way.dns.add(DOMAIN, "MX", f"10 mx2.{DOMAIN}.")
    assert way.deliveries() == SENT
    while [wait["kind"] for wait in way.clean()["waits"]] == ["drop-mx"]:
        assert f"mx: mx1.{DOMAIN}\n" in (way.served() or "")
        way.days(1)
        assert way.deliveries() == SENT
    assert f"mx: mx1.{DOMAIN}\n" not in (way.served() or "")
    way.json("check", DOMAIN)
    assert way.clean()["waits"] == []
    assert way.deliveries() == SENT
    assert ask(LISTEN, DOMAIN) == f"OK secure match=mx2.{DOMAIN} servername=hostname"


def leaves(way: Way) -> None:
    """Until nothing is left, and mail arrives as before."""
    assert way.run("remove", DOMAIN).returncode == 0
    assert way.deliveries() == SENT
    stages = []
    while (found := way.json("check", DOMAIN))["stage"] != "removed":
        stages.append(found["stage"])
        assert way.deliveries() == SENT
        if any(way.now <= cache.until for cache in way.caches):
            # Senders with an older policy find the new one.
            assert way.dns.texts(f"_mta-sts.{DOMAIN}") != []
            assert way.served() == "version: STSv1\nmode: none\nmax_age: 86400\n"
        way.days(2)
    assert list(dict.fromkeys(stages)) == ["leaving", "withdrawn", "cleared"]
    assert (way.dns.texts(f"_mta-sts.{DOMAIN}"), way.served()) == ([], None)
    for name in (f"_mta-sts.{DOMAIN}", f"mta-sts.{DOMAIN}", f"_smtp._tls.{DOMAIN}"):
        way.dns.remove(name)
    assert way.deliveries() == SENT
    # There were enough senders to be wrong about.
    assert len(way.caches) == 3
