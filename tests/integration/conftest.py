"""What several integration tests share: a small Internet in a namespace, and file systems of our own."""

import asyncio
import os
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from postfix_mtasts.cache.row import parse_row
from postfix_mtasts.cache.store import Store
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import CachedPolicy, Entry
from postfix_mtasts.sts.policy import parse
from tests.world.ca import Ca
from tests.world.daemon import Config
from tests.world.dns import DnsServer
from tests.world.https import HttpsServer
from tests.world.postfix import NAMESPACE

NAMESERVER = "127.0.0.1"
POLICY_HOST = "127.0.2.1"
NOBODY = "127.0.2.2"  # Nothing listens there.


@pytest.fixture(scope="session")
def namespace() -> None:
    """Ports and mounts of our own."""
    if NAMESPACE not in os.environ:
        pytest.skip("needs a namespace: run through tests/namespace")


@dataclass
class World:
    """DNS and policy hosts, where the daemon expects them. Domains come while it runs: each test has its own."""

    ca: Ca
    dns: DnsServer
    https: HttpsServer

    def announce(self, domain: str, record: bytes = b"v=STSv1; id=1;", host: str = POLICY_HOST) -> None:
        """A domain that has a record, and a policy host with an address."""
        self.dns.add_txt(f"_mta-sts.{domain}", record)
        self.dns.add(f"mta-sts.{domain}", "A", host)

    def publish(self, domain: str, policy: str) -> None:
        """A domain that does everything right."""
        self.announce(domain)
        self.https.policy(f"mta-sts.{domain}", policy, self.ca.issue(f"mta-sts.{domain}").server_context())

    def publish_all(self, domains: Sequence[str], policy: Callable[[str], str]) -> None:
        """Domains that do everything right, each with the policy that `policy` makes."""
        context = self.ca.issue(*(f"mta-sts.{domain}" for domain in domains)).server_context()
        for domain in domains:
            self.announce(domain)
            self.https.policy(f"mta-sts.{domain}", policy(domain), context)

    def asked(self, domain: str) -> tuple[int, int]:
        """How many TXT queries and HTTPS requests there were for a domain."""
        records = [query for query in self.dns.queries if query.name == f"_mta-sts.{domain}"]
        requests = [request for request in self.https.requests if request.host == f"mta-sts.{domain}"]
        return len(records), len(requests)

    def configuration(self, folder: Path, **tables: dict[str, object]) -> Config:
        """The daemon's configuration for this world, with its files in a folder."""
        ours: dict[str, dict[str, object]] = {
            "server": {"listen": [f"unix:{folder / 'socket'}"], "control": str(folder / "control")},
            "cache": {"path": str(folder / "policies.sqlite")},
            "dns": {"nameservers": [NAMESERVER]},
            "fetch": {"ca_file": str(self.ca.file), "allow_addresses": ["127.0.0.0/8"]},
            "reply": {"style": "plain", "dane": "off"},
        }
        return {name: ours.get(name, {}) | tables.get(name, {}) for name in ours | tables}


@pytest.fixture(scope="module")
def world(namespace: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        dns = stack.enter_context(DnsServer(NAMESERVER, 53))
        https = stack.enter_context(HttpsServer(POLICY_HOST, 443))
        yield World(Ca(tmp_path_factory.mktemp("ca")), dns, https)


def fetched(text: str, age: float = 0, record_id: str = "1", checked: float = 0) -> Entry:
    """What is known after a fetch `age` seconds ago, when DNS was asked again `checked` seconds ago."""
    parsed, _ = parse(text.encode())
    now = time.time()
    return Entry(CachedPolicy(parsed, text, record_id, now - age), checked_at=now - checked, last_used=now)


def store_entries(path: Path, entries: Mapping[str, Entry]) -> None:
    """Put into the database what is known of domains."""

    async def put() -> None:
        store = Store(str(path))
        for domain, entry in entries.items():
            store.put(PolicyDomain(domain), entry)
        assert await store.flush()
        await store.aclose()

    asyncio.run(put())


def stored_entries(path: Path) -> dict[str, Entry]:
    """What stands in the database."""
    with closing(sqlite3.connect(path)) as connection:
        return {key: parse_row(row) for key, row in connection.execute("SELECT key, value FROM policies")}


def wait_until_stored(path: Path, *domains: str) -> None:
    """Until the daemon has written their policies; nothing tells of that but the database."""
    deadline = time.monotonic() + 20
    with closing(sqlite3.connect(path)) as connection:
        while missing := set(domains) - {key for (key,) in connection.execute("SELECT key FROM policies")}:
            assert time.monotonic() < deadline, missing
            time.sleep(0.01)


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    """`mount` with these arguments, the last of which is the place; in a namespace only."""
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk of a megabyte; `fill` leaves no room there."""
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=1m", "tmpfs", folder):
        yield folder


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """No room is left on the disk of a folder until the end of the block."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nobody, not even root, can write to a folder until the end of the block."""
    with mounted("--bind", folder, folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
