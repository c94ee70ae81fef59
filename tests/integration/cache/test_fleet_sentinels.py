"""What becomes of relays when the server of their fleet is replaced by another one, as sentinels have it."""

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postfix_mtasts.cache import fleet_server
from postfix_mtasts.cache.fleet import Fleet
from postfix_mtasts.cache.fleet_jobs import FleetError
from postfix_mtasts.config_fleet import FleetPlace
from postfix_mtasts.sts.domain import PolicyDomain
from tests.integration.cache.test_fleet import DOMAIN, OTHER, known, looked, relay, seen
from tests.world.ca import Ca
from tests.world.fleet import HERE, PASSWORD, Program, Shared, valkey
from tests.world.sentinels import FIRST, Sentinels

PLAIN = 6399  # A port without TLS.

pytestmark = pytest.mark.usefixtures("namespace")


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    folder = tmp_path_factory.mktemp("sentinels")
    with ExitStack() as stack:
        yield stack.enter_context(Sentinels(folder, Ca(folder)))


@contextmanager
def answering(reply: bytes) -> Iterator[tuple[tuple[str, int], list[bytes]]]:
    """A sentinel that always gives this reply: its host and port, and what it was asked."""
    asked = list[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(65536))
                    if asked[-1] == b"end":
                        return
                    with suppress(OSError):
                        connection.sendall(reply)
                        connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = listener.getsockname()
        try:
            yield (host, port), asked
        finally:
            with socket.create_connection((host, port)) as ours:
                ours.sendall(b"end")
            thread.join()


async def has_trouble(fleet: Fleet, trouble: str) -> None:
    """Until a beat finds this trouble; on a busy machine, one may find that it was too late."""
    while not re.fullmatch(trouble, fleet.status()["trouble"] or ""):
        assert not fleet.status()["works"]
        assert re.search("(?i)time", fleet.status()["trouble"]), fleet.status()
        await fleet.beat()


@pytest.mark.parametrize("program", [lambda: HERE, valkey], ids=["of this machine", "Valkey of Debian 13"])
def test_what_was_shared_outlives_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Callable[[], Program]
) -> None:
    monkeypatch.setattr(fleet_server, "_LISTEN_AGAIN", 0.05)
    with Sentinels(tmp_path, Ca(tmp_path), FIRST + 10, program()) as sentinels:
        asyncio.run(outlives(sentinels))


async def outlives(sentinels: Sentinels) -> None:
    """Two relays share on the new server what they shared on the one that was killed, and hear each other."""
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def changed(domain: PolicyDomain) -> None:
        heard.put_nowait(domain.name)

    async def nothing(*_: object) -> bool:
        return True

    async with relay(sentinels.place) as one, relay(sentinels.place) as other:
        other.on_changed, other.on_forgotten, other.on_anew = changed, nothing, nothing
        listening = asyncio.create_task(other.run())
        now = time.time()
        while await seen(one) != known(now):  # A busy machine may be too late for one try.
            one.share(DOMAIN, known(now))
        assert await seen(other) == known(now)
        old = sentinels.master()
        sentinels.replicated(old)
        old.kill()
        theirs = await one.look(DOMAIN)
        assert theirs is None or theirs.entry == known(now)
        await asyncio.to_thread(sentinels.wait_for, sentinels.other(old))
        assert await seen(one) == known(now)
        while not await told(one, OTHER):  # Until the other one listens there.
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(heard.get(), 60) == OTHER.name
        listening.cancel()


async def told(fleet: Fleet, domain: PolicyDomain) -> int:
    """How many relays were told; none while the server does not work."""
    try:
        return await fleet.tell(domain)
    except FleetError:
        await fleet.beat()
        return 0


@pytest.mark.parametrize(
    ("wrong", "trouble"),
    [
        ({"name": "others"}, "sentinel 127.0.0.1 knows no server by the name others"),
        ({"password": "wrong"}, "sentinel 127.0.0.1: (WRONGPASS )?invalid username-password pair or user is disabled"),
        ({"password": ""}, "sentinel 127.0.0.1: Authentication required"),
        ({"ca_file": ""}, "sentinel 127.0.0.1: .*certificate verify failed"),
        ({"sentinels": (("127.0.0.1", 1),)}, "sentinel 127.0.0.1: .*Connection refused"),
    ],
)
async def test_why_sentinels_cannot_be_used(sentinels: Sentinels, wrong: dict[str, Any], trouble: str) -> None:
    async with relay(replace(sentinels.place, **wrong)) as one:
        await has_trouble(one, f"{trouble}.*")


async def test_a_sentinel_that_is_down_is_passed_over(sentinels: Sentinels) -> None:
    place = sentinels.place
    async with relay(replace(place, sentinels=(("127.0.0.1", 1), *place.sentinels))) as one:
        while not one.status()["works"]:
            await one.beat()


@pytest.mark.parametrize(
    ("reply", "trouble"),
    [
        (
            b"*2\r\n$9\r\n192.0.2.1\r\n$4\r\n6379\r\n",
            "sentinel 127.0.0.1 names '192.0.2.1', another machine, and there is no TLS: name the sentinels by rediss://",
        ),
        (b"+OK\r\n", "sentinel 127.0.0.1: what it says is no host and port"),
        (b"*2\r\n$1\r\n\xff\r\n$4\r\n6379\r\n", "sentinel 127.0.0.1: 'ascii' codec can't decode byte 0xff"),
        (b"*2\r\n$9\r\nlocalhost\r\n$1\r\nx\r\n", "sentinel 127.0.0.1: what it says is no host and port"),
        (b"*2\r\n$9\r\nlocalhost\r\n$5\r\n65536\r\n", "sentinel 127.0.0.1: what it says is no host and port"),
        (b"*-1\r\n", "sentinel 127.0.0.1 knows no server by the name x"),
    ],
)
async def test_what_a_sentinel_may_not_say(reply: bytes, trouble: str) -> None:
    with answering(reply) as (at, _):
        async with relay(FleetPlace(None, (at,), "x")) as one:
            await has_trouble(one, f"{re.escape(trouble)}.*")


async def test_a_connection_that_was_closed_is_made_anew_where_the_sentinels_say(tmp_path: Path) -> None:
    reply = b"*2\r\n$9\r\n127.0.0.1\r\n$4\r\n%d\r\n" % PLAIN
    with Shared(tmp_path, Ca(tmp_path), "--port", str(PLAIN)) as server, answering(reply) as (at, asked):
        async with relay(FleetPlace(None, (at,), "x", user="mtasts", password=PASSWORD)) as one:
            await looked(one)
            before = len(asked)
            with server.admin() as admin:
                admin.client_kill_filter(_type="normal", skipme=True)
            await looked(one)
            assert len(asked) > before


@pytest.mark.parametrize("reply", [b"*2\r\n$9\r\n192.0.2.1\r\n$4\r\n6379\r\n", b"*2\r\n$1\r\n\xff\r\n$1\r\nx\r\n"])
def test_whoever_listens_goes_on_to_try(monkeypatch: pytest.MonkeyPatch, reply: bytes) -> None:
    monkeypatch.setattr(fleet_server, "_LISTEN_AGAIN", 0.05)
    stop = threading.Event()
    with answering(reply) as (at, asked):
        server = fleet_server.FleetServer(FleetPlace(None, (at,), "x"))
        listening = threading.Thread(target=server.listen, args=(lambda _: None, stop))
        listening.start()
        while len(asked) < 3:
            assert listening.is_alive()
            time.sleep(0.01)
        stop.set()
        listening.join()
