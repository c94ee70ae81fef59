"""A small Internet in which policies are published: our folder behind HTTPS, our zone in DNS, customers, MX hosts."""

import json
import os
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dns.rdatatype
import dns.zone
import pytest

from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.state import Clock
from postfix_mtasts.publish.store import Store
from postfix_mtasts.sts.domain import PolicyDomain
from tests.world.ca import Ca, Kind
from tests.world.daemon import COMMAND, toml
from tests.world.dns import DnsServer
from tests.world.https import HttpsServer, Step, answer
from tests.world.postfix import Installation
from tests.world.servers import PUBLISHERS, ROOT, lacking
from tests.world.smtp import SmtpServer

PUBLISH = COMMAND.with_name("postfix-mtasts-publish")
NAMESERVER = "127.0.0.1"
WEB = "127.0.2.1"
ZONE = "sts.provider.test"
HOST = f"policy.{ZONE}"
DATA = Path(__file__).parents[2] / "data/publish"


class FileServer(HttpsServer):
    """Serves DIR/HOST/.well-known/mta-sts.txt, as Caddy would, with a certificate for each host."""

    def __init__(self, address: str, folder: Path, ca: Ca) -> None:
        super().__init__(address, 443)
        self.folder, self.ca = folder, ca
        self.up = True
        self.kinds: dict[str, Kind] = {}  # Of certificates that are not good.
        self._contexts: dict[tuple[str, Kind], ssl.SSLContext] = {}

    def site_of(self, host: str | None) -> tuple[ssl.SSLContext | None, Sequence[Step]] | None:
        if not host or not self.up:
            return None
        key = host, self.kinds.get(host, "good")
        if key not in self._contexts:
            self._contexts[key] = self.ca.issue(host, kind=key[1]).server_context()
        file = self.folder / host / ".well-known/mta-sts.txt"
        return self._contexts[key], [answer(file.read_bytes()) if file.exists() else answer(status=404)]


@dataclass
class Place:
    """The world of one test."""

    folder: Path
    ca: Ca
    dns: DnsServer
    web: FileServer
    stack: ExitStack
    hosts: dict[str, SmtpServer] = field(default_factory=dict)
    zone: str = ZONE
    addresses: list[str] = field(default_factory=lambda: [WEB])
    command: Path = PUBLISH
    ca_file: Path | None = None  # What is trusted, if not just our CA.

    @property
    def config(self) -> Path:
        return self.folder / "postfix-mtasts.toml"

    def configure(self, **publish: object) -> None:
        ours: dict[str, object] = {
            "path": str(self.folder / "publish.sqlite"),
            "policies": str(self.folder / "policies"),
            "zone": self.zone,
            "addresses": self.addresses,
            "reports": ["mailto:tlsrpt@provider.test"],
            "ca": "ca.test",
        }
        tables: dict[str, dict[str, object]] = {
            "dns": {"nameservers": [NAMESERVER], "timeout": 20.0},
            "fetch": {"ca_file": str(self.ca_file or self.ca.file), "allow_addresses": ["127.0.0.0/8", "::1/128"]},
            "publish": ours | publish,
        }
        self.config.write_text(toml(tables))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """The command."""
        subcommand, *rest = words
        environment = {"SUDO_USER": "anna", "PATH": os.environ["PATH"]}
        return subprocess.run(
            [self.command, subcommand, "--config", self.config, *rest],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )

    def json(self, *words: str) -> Any:
        """The only document that the command prints."""
        done = self.run(words[0], "--json", *words[1:])
        assert done.stderr == ""
        (line,) = done.stdout.splitlines()
        return json.loads(line)

    def mx(self, domain: str, name: str = "mx1", kind: Kind | None = "good") -> str:
        """Add an MX host to DNS."""
        host = f"{name}.{domain}"
        if host not in self.hosts:
            address = f"127.0.3.{len(self.hosts) + 1}"
            context = self.ca.issue(host, kind=kind).server_context() if kind else None
            self.hosts[host] = self.stack.enter_context(SmtpServer(address, context=context))
            self.dns.add(host, "A", address)
        self.dns.add(domain, "MX", f"10 {host}.", ttl=1)
        return host

    def customer(self, domain: str) -> None:
        """The owner of a domain copies the three lines into the zone."""
        done = self.run("records", "--json", domain)
        for line in done.stdout.splitlines():
            record = json.loads(line)
            if record["zone"] == "customer":
                self.dns.add(record["name"], record["type"], record["data"])

    def load_zone(self) -> str:
        """Our name server loads what `zone` prints."""
        text = self.run("zone").stdout
        parsed = dns.zone.from_text(text, self.zone or ".", relativize=False, check_origin=False)
        for name in self.loaded:
            self.dns.remove(name)
        self.loaded = {name.to_text(omit_final_dot=True) for name in parsed}
        for owner, ttl, rdata in parsed.iterate_rdatas():
            kind = dns.rdatatype.to_text(rdata.rdtype)
            self.dns.add(owner.to_text(omit_final_dot=True), kind, rdata.to_text(), ttl=ttl)
        return text

    loaded: set[str] = field(default_factory=set)

    def days_pass(self, domain: str, days: float = 1) -> None:
        """The last event of a domain was so many days earlier."""
        store = Store(str(self.folder / "publish.sqlite"))
        state = store.get(PolicyDomain(domain))
        assert state
        clock = Clock(state.clock.counted, state.clock.at - days * 86_400)
        store.save(follows(replace(state, clock=clock)), "the test", 0.0)
        store.close()

    def served(self, domain: str) -> str | None:
        file = self.folder / f"policies/mta-sts.{domain}/.well-known/mta-sts.txt"
        return file.read_bytes().decode() if file.exists() else None


@pytest.fixture
def servers(namespace: None) -> Iterator[Installation]:
    """The root that has the servers which tests/roots calls so, mounted."""
    if why := lacking(*PUBLISHERS):
        pytest.skip(why)
    with ROOT.mounted():
        yield ROOT


@pytest.fixture
def place(namespace: None, tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        ca = Ca(tmp_path)
        dns = stack.enter_context(DnsServer(NAMESERVER, 53))
        web = stack.enter_context(FileServer(WEB, tmp_path / "policies", ca))
        made = Place(tmp_path, ca, dns, web, stack)
        made.configure()
        yield made


Golden = Callable[[str, str], None]


@pytest.fixture
def golden(place: Place) -> Golden:
    """Compare what is said with a file, in which dates and folders are left out."""

    def compare(name: str, output: str) -> None:
        output = re.sub(r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}(:\d{2}Z| UTC)", "DATE", output)
        output = output.replace(str(place.folder), "FOLDER")
        expected = DATA / name
        if os.environ.get("GOLDEN") == "write":
            expected.write_text(output)
        assert output == expected.read_text()

    return compare
