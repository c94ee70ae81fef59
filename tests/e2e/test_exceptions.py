"""Postfix 3.7 and 3.10 deliver to broken domains under an exception, and defer again the day after its end.

The daemon's own server answers Postfix in this process, where the clock is ours.
"""

import asyncio
import datetime
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from postfix_mtasts.cache.memory import Memory
from postfix_mtasts.cache.store import Store
from postfix_mtasts.config import ExceptionSetting, InetEndpoint, Level
from postfix_mtasts.daemon.dane import Dane
from postfix_mtasts.daemon.exceptions import Exceptions, end_of
from postfix_mtasts.daemon.lookup import Lookup
from postfix_mtasts.daemon.server import Server
from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.postfix.reply import ReplyRules, Style
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.remote.network import tls_context
from tests.e2e.conftest import of_the_parameter
from tests.e2e.vocabulary import CLEAR, MISMATCH, NOT_OFFERED, UNTRUSTED, Outcome, enforce, outcome
from tests.world.mail import NAMESERVER, Certificate, Extras, SmtpClient, World
from tests.world.postfix import INSTALLATIONS, Installation

BELOW = ".exempt.test"
TODAY = datetime.date.today()  # noqa: DTZ011 - the day of this machine
BEFORE, AFTER = end_of(TODAY) - 1, end_of(TODAY) + 3600


class OurDaemon:
    """The daemon's parts, on a Unix socket, in a thread of their own."""

    def __init__(self, path: Path, world: World) -> None:
        self.now = time.time()
        self._path = path
        self._world = world
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> "OurDaemon":
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def except_(self, *settings: ExceptionSetting) -> None:
        """Only these exceptions hold from now on."""
        asyncio.run_coroutine_threadsafe(self._exceptions.load(settings), self._loop).result(20)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()

        def clock() -> float:
            return self.now

        resolver = Resolver([InetEndpoint(NAMESERVER, 53)], timeout=30)
        fetcher = Fetcher(
            resolver,
            tls_context(str(self._world.ca.file)),
            timeout=30,
            allow_addresses=[ipaddress.ip_network("127.0.0.0/8")],
        )
        async with AsyncExitStack() as stack:
            store = Store(f"{self._path}.sqlite", clock)
            await store.open()
            stack.push_async_callback(store.aclose)
            memory = Memory(policies=1000, notes=1000, clock=clock)
            self._exceptions = Exceptions(Path(f"{self._path}.json"), clock)
            lookup = Lookup(
                store,
                memory,
                resolver,
                fetcher,
                Dane(resolver, 1000, clock),
                ReplyRules(Style.PLAIN),
                self._exceptions,
                answer_within=60,
                clock=clock,
            )
            stack.push_async_callback(lookup.aclose)
            server = Server(lookup.at_once, lookup.reply)
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self._path))
            self._path.chmod(0o666)
            listener.listen()
            server.start([listener])
            stack.push_async_callback(server.aclose, 10)
            self._started.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def extras() -> Extras:
    maps = {"smtp_tls_policy_maps": "socketmap:unix:$world/ours.sock:postfix"}
    return Extras(clients=(SmtpClient(BELOW, maps),))


@pytest.fixture(
    scope="module",
    params=[one for one in INSTALLATIONS if one.name in ("bookworm", "trixie")],
    ids=lambda installation: installation.name,
)
def installation(request: pytest.FixtureRequest) -> Installation:
    return of_the_parameter(request)


@pytest.fixture(scope="module")
def daemon(world: World) -> Iterator[OurDaemon]:
    with OurDaemon(world.folder / "ours.sock", world) as running:
        yield running


BROKEN: Sequence[tuple[str, Certificate, Outcome, dict[Level, Outcome]]] = [
    (
        "wrong-name",
        "wrong name",
        MISMATCH,
        dict.fromkeys(Level, UNTRUSTED._replace(tls="Trusted")),
    ),
    (
        "no-starttls",
        None,
        NOT_OFFERED,
        {Level.NONE: CLEAR, Level.MAY: CLEAR, Level.ENCRYPT: NOT_OFFERED},
    ),
]


def test_the_versions(world: World) -> None:
    assert world.postfix.version[:2] in ((3, 7), (3, 10))


@pytest.mark.parametrize(("name", "certificate", "broken", "exempt"), BROKEN, ids=[case[0] for case in BROKEN])
def test_mail_goes_out_until_the_end_and_is_deferred_from_then_on(
    world: World,
    daemon: OurDaemon,
    name: str,
    certificate: Certificate,
    broken: Outcome,
    exempt: dict[Level, Outcome],
) -> None:
    domain = f"{name}{BELOW}"
    server = world.add(domain, certificate, enforce(domain))

    def deliver() -> Outcome:
        return outcome(world.postfix.deliver(f"user@{domain}"))

    daemon.now = time.time()
    assert deliver() == broken
    for level, expected in exempt.items():
        daemon.now = BEFORE
        daemon.except_(ExceptionSetting(domain, TODAY, "ticket 4711", level))
        arrived = len(server.messages)
        assert deliver() == expected
        assert len(server.messages) - arrived == (expected.status == "sent")
    daemon.now = AFTER
    assert deliver() == broken
