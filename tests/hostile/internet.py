"""The Internet of the hostile cases: their nameserver and policy hosts, and what the daemon has cost them."""

import os
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.hostile.case import DNS_TIMEOUT, POLICY, Case, Site, Zone
from tests.hostile.hosts import SILENT
from tests.hostile.sites import SERVER, https
from tests.world.ca import Ca
from tests.world.daemon import Config
from tests.world.dns import DnsServer
from tests.world.https import HttpsServer, answer

NAMESERVER = "127.0.0.1"
_INSIDE = ("127.0.0.1", "::1")  # What no name may make the daemon connect to.
_RECORD = b"v=STSv1; id=1;"
_RECEIVE_BUFFER = Path("/proc/sys/net/ipv4/tcp_rmem")
_TICK = 1 / os.sysconf("SC_CLK_TCK")  # Seconds.


@dataclass(frozen=True)
class Cost:
    """What one domain has cost."""

    connections: int
    requests: int
    octets: int
    queries: int


@dataclass
class Internet:
    """Everything around the daemon. Domains come while it runs."""

    ca: Ca
    dns: DnsServer
    https: HttpsServer
    inside: Sequence[HttpsServer]
    _stack: ExitStack
    _at_once: dict[str, HttpsServer] = field(default_factory=dict)  # By their domains.

    def add(self, domain: str, case: Case) -> None:
        """A domain that behaves so."""
        host = f"mta-sts.{domain}"
        self.dns.add_txt(f"_mta-sts.{domain}", _RECORD)
        match case.does:
            case Site(steps, at_once=True):
                address = f"127.0.3.{len(self._at_once) + 1}"
                self._at_once[domain] = self._stack.enter_context(HttpsServer(address, 443, at_once=steps))
                self.dns.add(host, "A", address)
            case Site(steps, tls, addresses=addresses):
                self.dns.add(host, "A", *(addresses or [SERVER]))
                self.https.site(host, tls(self.ca, host) if tls else None, *steps)
            case Zone(txt, a, aaaa):
                self.dns.add(host, "A", SERVER)
                site = https(answer(POLICY))
                assert site.tls
                self.https.site(host, site.tls(self.ca, host), *site.steps)
                if txt:
                    self.dns.set_behaviour(f"_mta-sts.{domain}", txt, "TXT")
                for rdtype, behaviour in (("A", a), ("AAAA", aaaa)):
                    if behaviour:
                        self.dns.set_behaviour(host, behaviour, rdtype)

    def add_sound(self, domains: Sequence[str]) -> None:
        """Domains that do everything right."""
        context = self.ca.issue(*(f"mta-sts.{domain}" for domain in domains)).server_context()
        for domain in domains:
            self.dns.add_txt(f"_mta-sts.{domain}", _RECORD)
            self.dns.add(f"mta-sts.{domain}", "A", SERVER)
            self.https.policy(f"mta-sts.{domain}", POLICY, context)

    def costs(self) -> dict[str, Cost]:
        """What the domains have cost until now."""
        connections = Counter(host.removeprefix("mta-sts.") for host in self.https.sni if host)
        requests = Counter(request.host.removeprefix("mta-sts.") for request in self.https.requests if request.host)
        queries = Counter(query.name.lower().partition(".")[2] for query in self.dns.queries)
        octets = {host.removeprefix("mta-sts."): count for host, count in self.https.sent.items() if host}
        for domain, server in self._at_once.items():
            connections[domain], octets[domain] = server.connections, server.sent.total()
        return {
            domain: Cost(connections[domain], requests[domain], octets.get(domain, 0), queries[domain])
            for domain in queries
        }

    def configuration(self, folder: Path, fetch_timeout: float) -> Config:
        """The daemon's; its files are in the folder."""
        return {
            "server": {"listen": [endpoint(folder)], "control": str(folder / "control"), "answer_within": 90},
            "cache": {"path": str(folder / "policies.sqlite")},
            "dns": {"nameservers": [NAMESERVER], "timeout": DNS_TIMEOUT},
            "fetch": {
                "ca_file": str(self.ca.file),
                "allow_addresses": ["127.0.2.0/24", "127.0.3.0/24"],
                "timeout": fetch_timeout,
            },
            "reply": {"style": "plain", "dane": "off"},
            "discovery": {"on_failure": "temp"},
        }


def endpoint(folder: Path) -> str:
    """Where the daemon listens whose files are there."""
    return f"unix:{folder / 'socket'}"


@contextmanager
def internet(folder: Path) -> Iterator[Internet]:
    """Run it in the namespace of tests/namespace."""
    with ExitStack() as stack:
        stack.enter_context(_small_buffers())
        dns = stack.enter_context(DnsServer(NAMESERVER, 53))
        server = stack.enter_context(HttpsServer(SERVER, 443))
        inside = [stack.enter_context(HttpsServer(address, 443, at_once=())) for address in _INSIDE]
        stack.enter_context(_full(SILENT))
        yield Internet(Ca(folder), dns, server, inside, stack)


@contextmanager
def _small_buffers() -> Iterator[None]:
    """The kernel receives little that the daemon does not read, so that what a host can send is what is read."""
    before = _RECEIVE_BUFFER.read_text()
    _RECEIVE_BUFFER.write_text("4096 65536 65536")
    try:
        yield
    finally:
        _RECEIVE_BUFFER.write_text(before)


@contextmanager
def _full(address: str) -> Iterator[None]:
    """At the address nobody answers: the queue of those who wait to be accepted is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(closing(socket.create_server((address, 443), backlog=0)))
        for _ in range(4):
            waiting = stack.enter_context(closing(socket.socket()))
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK
