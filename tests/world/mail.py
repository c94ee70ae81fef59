"""A small Internet with mail: DNS, policy hosts, mail servers, the daemon and a real Postfix, all in a namespace."""

import itertools
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.world import postfix
from tests.world.ca import Ca, Kind
from tests.world.daemon import Config, Daemon
from tests.world.dns import DnsServer
from tests.world.https import HttpsServer
from tests.world.postfix import HERE, TMP, Installation, Postfix
from tests.world.smtp import SmtpServer

NAMESERVER = "127.0.0.1"
POLICY_HOST = "127.0.2.1"
NOBODY = "127.0.2.2"  # Nothing listens there.
LISTEN = "inet:127.0.0.1:8461"
MAP = f"socketmap:{LISTEN}:postfix"
RECORD = b"v=STSv1; id=1;"

# What a mail server has to show; None: it does not offer STARTTLS.
Certificate = Kind | Literal["wrong name"] | None


@dataclass
class World:
    """Everything that takes part. Domains come while it runs: each test has its own."""

    folder: Path
    ca: Ca
    dns: DnsServer
    https: HttpsServer
    servers: ExitStack
    daemon: Daemon
    postfix: Postfix
    _hosts: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def add(
        self,
        domain: str,
        certificate: Certificate,
        policy: str | None,
        record: bytes | None = RECORD,
        policy_host: Kind = "good",
    ) -> SmtpServer:
        """A domain with one MX host, `mx.` + domain."""
        host = f"mx.{domain}"
        self.dns.add(domain, "MX", f"10 {host}.")
        self.publish(domain, policy, record, policy_host)
        return self.mail_server(host, self.mail_server_context(domain, certificate))

    def publish(
        self, domain: str, policy: str | None, record: bytes | None = RECORD, policy_host: Kind = "good"
    ) -> None:
        """What a domain says of MTA-STS. Without a policy, nothing listens on its policy host."""
        if record is not None:
            self.dns.add_txt(f"_mta-sts.{domain}", record)
        self.dns.add(f"mta-sts.{domain}", "A", NOBODY if policy is None else POLICY_HOST)
        if policy is not None:
            context = self.ca.issue(f"mta-sts.{domain}", kind=policy_host).server_context()
            self.https.policy(f"mta-sts.{domain}", policy, context)

    def mail_server(self, host: str, context: ssl.SSLContext | None) -> SmtpServer:
        """A mail server with an address of its own; without a context, it does not offer STARTTLS."""
        address = f"127.0.1.{next(self._hosts)}"
        self.dns.add(host, "A", address)
        return self.servers.enter_context(SmtpServer(address, context=context))

    def mail_server_context(self, domain: str, certificate: Certificate) -> ssl.SSLContext | None:
        """What the domain's MX host needs to show this certificate."""
        match certificate:
            case None:
                return None
            case "wrong name":
                return self.ca.issue("mx.elsewhere.test").server_context()
            case _:
                return self.ca.issue(f"mx.{domain}", kind=certificate).server_context()

    def withdraw_policy_host(self, domain: str) -> None:
        """From now on nothing listens on the domain's policy host."""
        self.dns.remove(f"mta-sts.{domain}")
        self.dns.add(f"mta-sts.{domain}", "A", NOBODY)


def configuration(
    folder: Path, ca: Ca, listen: str, socket_mode: int = 0o666, answer_within: float = 60
) -> dict[str, dict[str, object]]:
    """The daemon's configuration for this world."""
    return {
        "server": {"listen": [listen], "control": "", "socket_mode": socket_mode, "answer_within": answer_within},
        "cache": {"path": str(folder / "policies.sqlite")},
        "dns": {"nameservers": [NAMESERVER]},
        "fetch": {"ca_file": str(ca.file), "allow_addresses": ["127.0.0.0/8"]},
        "reply": {"style": "plain", "dane": "off"},
    }


@dataclass(frozen=True)
class SmtpClient:
    """A service of its own, with these settings, for mail to `domain`, or to all domains below `.domain`."""

    domain: str
    settings: Mapping[str, str]
    chroot: bool = False

    @property
    def name(self) -> str:
        """Of the service in master.cf."""
        return self.domain.lstrip(".")

    @property
    def service(self) -> str:
        """The line for master.cf."""
        options = "".join(f" -o {{ {name} = {value} }}" for name, value in self.settings.items())
        return f"{self.name} unix - - {'y' if self.chroot else 'n'} - - smtp{options}"


@dataclass(frozen=True)
class Extras:
    """What tests need in their world beyond the usual. In settings, `$world` is the folder of the world.

    `daemon` are tables for the daemon's configuration, `settings` are for main.cf, `services` more lines for master.cf,
    `transports` is what transport_maps finds for a domain or `.domain`. With another `dns_address`, tests start a
    resolver of their own at `NAMESERVER`, whom all ask.
    """

    daemon: Config = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    clients: tuple[SmtpClient, ...] = ()
    services: tuple[str, ...] = ()
    transports: Mapping[str, str] = field(default_factory=dict)
    dns_address: str = NAMESERVER


@contextmanager
def mail_world(installation: Installation = HERE, extras: Extras = Extras()) -> Iterator[World]:
    """Everything, running; `Installation.missing` says what it needs and this machine lacks."""
    # Postfix's own user must reach this folder; pytest's are for one user only.
    with tempfile.TemporaryDirectory(prefix="postfix-mtasts-", dir=TMP) as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("ca", "daemon", "postfix"):
            (folder / part).mkdir()
        ca = Ca(folder / "ca")
        stack.enter_context(postfix.nameserver(NAMESERVER, folder))
        dns = stack.enter_context(DnsServer(extras.dns_address, 53))
        https = stack.enter_context(HttpsServer(POLICY_HOST, 443))
        servers = stack.enter_context(ExitStack())
        config = _with(configuration(folder / "daemon", ca, LISTEN), extras.daemon)
        daemon = stack.enter_context(Daemon(folder / "daemon", config))
        stack.enter_context(installation.mounted())
        client = stack.enter_context(_postfix(installation, folder, ca, extras))
        yield World(folder, ca, dns, https, servers, daemon, client)


def _with(config: Config, more: Config) -> Config:
    return {table: {**config.get(table, {}), **more.get(table, {})} for table in {**config, **more}}


def _postfix(installation: Installation, folder: Path, ca: Ca, extras: Extras) -> Postfix:
    transports = {client.domain: f"{client.name}:" for client in extras.clients} | dict(extras.transports)
    table = " ".join(f"{{{key} = {to}}}" for key, to in transports.items())
    settings = {
        "world": str(folder),
        "smtp_tls_security_level": "may",
        "smtp_tls_CAfile": str(ca.file),
        "smtp_tls_policy_maps": MAP,
        "transport_maps": f"inline:{{{table}}}" if table else "",
    }
    services = [*(client.service for client in extras.clients), *extras.services]
    return Postfix(installation, folder / "postfix", settings | dict(extras.settings), services)
