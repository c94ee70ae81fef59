"""What a hostile server in the place of the fleet's may cost a relay: octets, memory, processor, and time."""

import asyncio
import contextlib
import gc
import itertools
import json
import queue
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from postfix_mtasts.cache import fleet_server
from postfix_mtasts.cache.fleet import Fleet
from postfix_mtasts.cache.fleet_bounds import MAX_OCTETS, NEWS_AT_ONCE, STEPS
from postfix_mtasts.cache.fleet_connection import TIMEOUT
from postfix_mtasts.cache.fleet_jobs import FleetError, Look
from postfix_mtasts.cache.fleet_server import FleetServer
from postfix_mtasts.config_fleet import FleetPlace
from tests.world.ca import Ca
from tests.world.fleet import Shared

_MIB = 2**20
_IN_FLIGHT = 16 * _MIB  # Octets that the kernel may have taken, and nobody has read.
_SUBSCRIBED = b"*3\r\n$9\r\nsubscribe\r\n$11\r\nmtasts:news\r\n:1\r\n"


class Hostile:
    """Answers the first request that is no PING with pieces, until the other end has gone; then `gone` is set."""

    def __init__(self, pieces: Iterable[bytes], pause: float = 0.0) -> None:
        self._pieces = pieces
        self._pause = pause
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = FleetPlace(("127.0.0.1", self._listener.getsockname()[1]))
        self.sent = 0
        self.gone = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                while b"PING" in connection.recv(65536):
                    connection.sendall(b"+PONG\r\n")
                with contextlib.suppress(OSError):
                    for piece in self._pieces:
                        connection.sendall(piece)
                        self.sent += len(piece)
                        time.sleep(self._pause)
                    while connection.recv(65536):
                        pass
        self.gone.set()

    def __enter__(self) -> "Hostile":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


def _endless(head: bytes, *bodies: bytes) -> Iterator[bytes]:
    return itertools.chain([head], itertools.cycle(bodies))


@contextmanager
def _memory(most: int) -> Iterator[None]:
    """No more octets of memory than that are taken in the block, at any time."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


_REPLIES = {
    "a bulk string of 2 GiB": (b"$2147483647\r\n", b"x" * 65536),
    "an array of numbers": (b"*1000000000\r\n", b":1234567\r\n" * 6000),
    "an array of nothing": (b"*1000000000\r\n", b"+\r\n" * 20000),
    "an array of arrays": (b"*1000000000\r\n", b"*1\r\n+\r\n" * 9000),
    "arrays in arrays": (b"", b"*1\r\n" * 10000),
    "a line without an end": (b"+", b"x" * 65536),
    "an error without an end": (b"-ERR ", b"x" * 65536),
    "no reply": (b"", b"\xff" * 65536),
    "lines that are none": (b"", b"\n" * 65536),
}


@pytest.mark.parametrize("reply", _REPLIES.values(), ids=_REPLIES)
def test_a_reply_without_an_end_is_bounded(reply: tuple[bytes, bytes]) -> None:
    with Hostile(_endless(*reply)) as hostile:
        server = FleetServer(hostile.place)
        begun = time.thread_time()
        with _memory(6 * MAX_OCTETS), pytest.raises(FleetError) as caught:
            server.do([Look("example.com")])
        assert time.thread_time() - begun < 3
        assert hostile.gone.wait(20)
        assert hostile.sent < MAX_OCTETS + _IN_FLIGHT
        assert (len(str(caught.value)) <= 200, str(caught.value).isascii()) == (True, True)


def test_a_reply_that_comes_octet_by_octet_ends_in_time() -> None:
    with Hostile(_endless(b"$1000000\r\n", b"x"), pause=0.001) as hostile:
        with pytest.raises(FleetError, match="no complete answer within 1 s"):
            FleetServer(hostile.place).do([Look("example.com")])
        assert hostile.gone.wait(20)
        assert hostile.sent < 10_000


def test_a_server_that_takes_a_request_slowly_is_not_waited_for() -> None:
    taken = 0
    given_up = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def take() -> None:
            nonlocal taken
            connection, _ = listener.accept()
            with connection:
                while not given_up.wait(0.02):
                    taken += len(connection.recv(4096))

        thread = threading.Thread(target=take)
        thread.start()
        server = FleetServer(FleetPlace(("127.0.0.1", listener.getsockname()[1])))
        with pytest.raises(FleetError, match="no complete answer within 1 s"):
            server.do([Look("example.com", "x" * 2**16)] * 1000)
        given_up.set()
        thread.join()
    assert taken < 2**25


@pytest.mark.parametrize(
    "reply",
    [b"*-5\r\n", b"$-7\r\n", b":1\r\n", b"*1\r\n:1\r\n", b":" + b"9" * 5000 + b"\r\n", b"-\x1b[31mERR\r\n", b"%1\r\n"],
)
async def test_a_reply_that_is_none_is_trouble(reply: bytes) -> None:
    with Hostile([reply]) as hostile:
        fleet = Fleet(FleetServer(hostile.place), "here")
        await fleet.beat()
        status = fleet.status()
        await fleet.aclose()
    assert (status["works"], str(status["trouble"]).isprintable(), str(status["trouble"]).isascii()) == (
        False,
        True,
        True,
    )


async def test_arrays_in_arrays_end_no_relay() -> None:
    with Hostile(_endless(b"", b"*1\r\n" * 10000)) as hostile:
        fleet = Fleet(FleetServer(hostile.place), "here")
        await fleet.beat()
        assert "recursion" in fleet.status()["trouble"]
        await fleet.aclose()


def _listening(place: FleetPlace, told: Callable[[bytes], None]) -> tuple[threading.Thread, threading.Event]:
    stop = threading.Event()
    return threading.Thread(target=FleetServer(place).listen, args=(told, stop)), stop


@pytest.mark.parametrize("reply", _REPLIES.values(), ids=_REPLIES)
def test_news_without_an_end_is_bounded(reply: tuple[bytes, bytes]) -> None:
    with Hostile(_endless(_SUBSCRIBED + reply[0], reply[1])) as hostile:
        heard: list[bytes] = []
        thread, stop = _listening(hostile.place, heard.append)
        with _memory(2 * _MIB):
            thread.start()
            assert hostile.gone.wait(20)
        stop.set()
        thread.join(20)
        assert (heard, thread.is_alive()) == ([], False)
        assert hostile.sent < NEWS_AT_ONCE + _IN_FLIGHT


def test_news_is_listened_to_no_faster_than_it_may_come() -> None:
    news = json.dumps({"change": "example.com"}).encode()
    message = b"*3\r\n$7\r\nmessage\r\n$11\r\nmtasts:news\r\n$%d\r\n%s\r\n" % (len(news), news)
    count = 2**19 // len(message)  # Of what comes in, 64 KiB are read at once.
    with Hostile([_SUBSCRIBED, message * count]) as hostile:
        heard: list[bytes] = []
        thread, stop = _listening(hostile.place, heard.append)
        begun = time.monotonic()
        thread.start()
        while len(heard) < count:
            time.sleep(0.01)
        assert time.monotonic() - begun > 1.5
        stop.set()
        thread.join(20)
    assert heard == [news] * count


def test_a_server_that_answers_no_ping_is_listened_to_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_server, "_PING_EVERY", 0.2)
    with Hostile([_SUBSCRIBED]) as hostile:
        thread, stop = _listening(hostile.place, lambda _: None)
        thread.start()
        assert hostile.gone.wait(20)
        stop.set()
        thread.join(20)


def test_whoever_was_stopped_for_long_listens_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fleet_server, "_PING_EVERY", 0.2)
    monkeypatch.setattr(fleet_server, "_LISTEN_AGAIN", 0.0)
    heard: queue.Queue[bytes] = queue.Queue()

    def told(data: bytes) -> None:
        heard.put(data)
        if data == b"stop":
            time.sleep(2)

    with Shared(tmp_path, Ca(tmp_path)) as server, server.admin() as admin:
        thread, stop = _listening(server.place, told)
        thread.start()
        while not admin.publish("mtasts:news", "stop"):
            time.sleep(0.01)
        listening = admin.client_list(_type="pubsub")
        while heard.get() != b"":  # A ping was answered after that.
            pass
        assert [one["id"] for one in admin.client_list(_type="pubsub")] == [one["id"] for one in listening]
        stop.set()
        thread.join(20)


async def test_a_connection_that_was_not_used_for_a_while_is_used_again(tmp_path: Path) -> None:
    """redis-py looks into it before, which is no round trip that lasts too long."""
    with Shared(tmp_path, Ca(tmp_path)) as server, server.admin() as admin:
        fleet = Fleet(FleetServer(server.place), str(server.place))
        try:
            while not fleet.status()["works"]:
                await fleet.beat()
            before = admin.info("stats")["total_connections_received"]
            await asyncio.sleep(STEPS * TIMEOUT + 0.1)
            await fleet.beat()
            assert (fleet.status()["trouble"], admin.info("stats")["total_connections_received"]) == (None, before)
        finally:
            await fleet.aclose()
