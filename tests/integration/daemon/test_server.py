"""The socketmap server on real sockets, with answers of the test's own."""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from postfix_mtasts.config import Endpoint, InetEndpoint, UnixEndpoint
from postfix_mtasts.daemon.listen import ListenError, listen, remove_file
from postfix_mtasts.daemon.server import Answer, AtOnce, Server
from postfix_mtasts.postfix.socketmap import Reply, Request, Status

MAX_PENDING = 100
KINDS = ["ipv4", "ipv6", "unix"]
GRACE = 10.0  # Seconds; only a defect needs that long.


def netstring(payload: bytes) -> bytes:
    return b"%d:%b," % (len(payload), payload)


def query(key: str) -> bytes:
    return netstring(f"postfix {key}".encode())


def queries(count: int) -> bytes:
    return b"".join(query(str(number)) for number in range(count))


def replies(count: int) -> list[str]:
    return [f"OK {number}" for number in range(count)]


class Client:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @property
    def name(self) -> str:
        """What the log calls this client."""
        host, port, *_ = self.writer.get_extra_info("sockname")
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def reply(self) -> str:
        length = int((await self.reader.readuntil(b":"))[:-1])
        payload = await self.reader.readexactly(length + 1)
        assert payload[length:] == b","
        return payload[:length].decode()

    async def ask(self, key: str) -> str:
        self.writer.write(query(key))
        return await self.reply()

    async def to_the_end(self) -> list[str]:
        """All replies until the server closes the connection."""
        found: list[str] = []
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                found.append(await self.reply())
        return found

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Go away without a word: the server gets an error, not an end of file."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Gate:
    """An answer that waits until a test lets it go; counts what was begun, what was ended and how."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.given_up: list[str] = []
        self.changed = asyncio.Condition()
        self._open = asyncio.Event()
        self._keys: dict[str, asyncio.Event] = {}

    async def answer(self, request: Request) -> Reply:
        key = request.key.decode()
        await self._note(self.begun, key)
        try:
            own = self._keys.setdefault(key, asyncio.Event())
            waits = [asyncio.ensure_future(event.wait()) for event in (own, self._open)]
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
        except asyncio.CancelledError:
            await self._note(self.given_up, key)
            raise
        return Reply(Status.OK, key)

    def open(self, key: str | None = None) -> None:
        (self._open if key is None else self._keys.setdefault(key, asyncio.Event())).set()

    async def wait_for(self, events: list[str], count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(events) >= count)

    async def _note(self, events: list[str], key: str) -> None:
        async with self.changed:
            events.append(key)
            self.changed.notify_all()


async def echo(request: Request) -> Reply:
    return Reply(Status.OK, request.key.decode())


def nothing_ready(_: bytes) -> None:
    return None


@contextlib.asynccontextmanager
async def serving(answer: Answer, *listeners: socket.socket, at_once: AtOnce = nothing_ready) -> AsyncIterator[Server]:
    server = Server(at_once, answer)
    server.start(listeners)
    try:
        yield server
    finally:
        await server.aclose(GRACE)


def ipv4() -> socket.socket:
    return listen(InetEndpoint("127.0.0.1", 0), 0)


@contextlib.asynccontextmanager
async def connected(listener: socket.socket) -> AsyncIterator[Client]:
    if listener.family == socket.AF_UNIX:
        reader, writer = await asyncio.open_unix_connection(listener.getsockname())
    else:
        reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def service(answer: Answer, at_once: AtOnce = nothing_ready) -> AsyncIterator[tuple[Client, Client]]:
    """A server on IPv4 and two of its clients."""
    listener = ipv4()
    async with serving(answer, listener, at_once=at_once), connected(listener) as one, connected(listener) as other:
        yield one, other


async def test_a_client_that_vanished_is_found_out() -> None:
    """The kernel has a keepalive timer for the accepted connection (proc_net_tcp: `tr` is 02)."""
    listener = ipv4()
    async with serving(echo, listener), connected(listener) as client:
        client.writer.write(query("a"))
        await client.reply()
        port = listener.getsockname()[1]
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = [line for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "01"]
    assert [line[5].partition(":")[0] for line in established] == ["02"]


def listener_of(kind: str, folder: Path) -> socket.socket:
    if kind == "unix":
        return listen(UnixEndpoint(str(folder / "socket")), 0o600)
    if kind == "ipv4":
        return ipv4()
    try:
        return listen(InetEndpoint("::1", 0), 0)
    except ListenError as error:
        pytest.skip(f"needs IPv6: ::1: {error}")


@pytest.fixture(autouse=True)
def _no_error_of_asyncio(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """asyncio only logs what callbacks of the server raise."""
    caplog.set_level(logging.INFO)
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"] == []


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [f"{record.levelname} {record.getMessage()}" for record in caplog.records if record.name == "postfix_mtasts"]


# Requests and replies


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_socket_is_answered(kind: str, tmp_path: Path) -> None:
    listener = listener_of(kind, tmp_path)
    async with serving(echo, listener), connected(listener) as client:
        assert [await client.ask("a"), await client.ask("b")] == ["OK a", "OK b"]


async def test_several_listeners_at_once(tmp_path: Path) -> None:
    listeners = [ipv4(), ipv4(), listener_of("unix", tmp_path)]
    async with serving(echo, *listeners), contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(listener)) for listener in listeners]
        assert await asyncio.gather(*(client.ask("a") for client in clients)) == ["OK a"] * 3


async def test_what_is_asked_and_answered_is_passed_on_as_it_is() -> None:
    seen: list[Request] = []

    async def answer(request: Request) -> Reply:
        seen.append(request)
        return Reply(Status.NOTFOUND)

    async with service(answer) as (client, _):
        client.writer.write(netstring(b"map \xff key ") + netstring(b" ") + netstring(b"m k"))
        assert [await client.reply() for _ in range(3)] == ["NOTFOUND "] * 3
    assert seen == [Request(b"map", b"\xff key "), Request(b"", b""), Request(b"m", b"k")]


async def test_replies_keep_the_order_of_requests_whatever_is_ready_first() -> None:
    gate = Gate()
    async with service(gate.answer) as (client, other):
        client.writer.write(queries(4))
        await gate.wait_for(gate.begun, 4)
        for key in ("3", "1", "2"):
            gate.open(key)
            gate.open(f"after {key}")
            assert await other.ask(f"after {key}") == f"OK after {key}"
        gate.open("0")
        assert [await client.reply() for _ in range(4)] == replies(4)


async def test_replies_are_sent_as_soon_as_it_is_their_turn() -> None:
    gate = Gate()
    async with service(gate.answer) as (client, _):
        client.writer.write(queries(2))
        gate.open("0")
        assert await client.reply() == "OK 0"
        gate.open("1")
        assert await client.reply() == "OK 1"


# Replies that lie ready


# Keys that end with `!` have one.
ready = {query(f"{number}!"): netstring(b"OK ready %d!" % number) for number in range(10)}.get


async def never(request: Request) -> Reply:
    raise AssertionError(f"asked for {request}")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_ready_reply_is_sent_and_nobody_is_asked(kind: str, tmp_path: Path) -> None:
    listener = listener_of(kind, tmp_path)
    async with serving(never, listener, at_once=ready), connected(listener) as client:
        assert [await client.ask("1!"), await client.ask("2!")] == ["OK ready 1!", "OK ready 2!"]
        client.writer.write(query("3!") + query("4!") + query("5!"))
        assert [await client.reply() for _ in range(3)] == ["OK ready 3!", "OK ready 4!", "OK ready 5!"]
        client.writer.write_eof()
        assert await client.to_the_end() == []


async def test_a_ready_reply_waits_for_the_slow_ones_before_it() -> None:
    gate = Gate()
    async with service(gate.answer, ready) as (client, other):
        client.writer.write(query("1") + query("2!") + query("3") + query("4!"))
        await gate.wait_for(gate.begun, 2)
        client.writer.write(query("5!"))
        assert await other.ask("6!") == "OK ready 6!"
        gate.open("3")
        gate.open("7")
        assert await other.ask("7") == "OK 7"
        gate.open("1")
        assert [await client.reply() for _ in range(5)] == ["OK 1", "OK ready 2!", "OK 3", "OK ready 4!", "OK ready 5!"]
        assert await client.ask("8!") == "OK ready 8!"
    assert gate.begun == ["1", "3", "7"]


async def test_a_request_in_pieces_has_a_ready_reply_too() -> None:
    async with service(never, ready) as (client, _):
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in query("1!") + query("2!"):
            client.writer.write(bytes([octet]))
            await asyncio.sleep(0)
        assert [await client.reply() for _ in range(2)] == ["OK ready 1!", "OK ready 2!"]


async def test_the_end_of_a_request_is_not_taken_for_another() -> None:
    """What comes after a part of a request looks like one with a ready reply, but is the key of the first."""
    inner = query("1!")
    outer = netstring(b"postfix " + inner)
    async with service(echo, ready) as (client, other):
        client.writer.write(outer[: -len(inner) - 1])
        for _ in range(10):
            assert await other.ask("other") == "OK other"
        client.writer.write(inner)
        for _ in range(10):
            assert await other.ask("other") == "OK other"
        client.writer.write(b",")
        assert await client.reply() == f"OK {inner.decode()}"


async def test_who_reads_no_replies_gets_no_ready_ones_either() -> None:
    sent = 0

    def large(request: bytes) -> bytes | None:
        nonlocal sent
        if request != query("1"):
            return None
        sent += 1
        return netstring(b"OK " + b"x" * 99_000)

    async with service(echo, large) as (client, other):
        for _ in range(1000):
            client.writer.write(query("1"))
            await asyncio.sleep(0)
        for _ in range(100):
            assert await other.ask("other") == "OK other"
        assert 0 < sent < 200  # What the kernel's buffers hold, and not the rest.
        assert [len(await client.reply()) for _ in range(1000)] == [99_003] * 1000
        assert sent == 1000


async def test_a_stream_in_pieces_of_one_octet() -> None:
    async with service(echo) as (client, _):
        client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in queries(20):
            client.writer.write(bytes([octet]))
            await asyncio.sleep(0)  # The server runs in the same loop, and reads it now.
        assert [await client.reply() for _ in range(20)] == replies(20)


@pytest.mark.parametrize("kind", KINDS)
async def test_500_requests_and_an_end_of_file_are_all_answered(kind: str, tmp_path: Path) -> None:
    listener = listener_of(kind, tmp_path)
    async with serving(echo, listener), connected(listener) as client:
        client.writer.write(queries(500))
        client.writer.write_eof()
        assert await client.to_the_end() == replies(500)


async def test_the_requests_of_one_connection_that_are_worked_on_are_limited() -> None:
    gate = Gate()
    async with service(gate.answer) as (client, other):
        client.writer.write(queries(3 * MAX_PENDING + 1))
        await gate.wait_for(gate.begun, MAX_PENDING)
        gate.open("other")
        assert await other.ask("other") == "OK other"
        assert sorted(gate.begun) == sorted([*map(str, range(MAX_PENDING)), "other"])
        gate.open()
        assert [await client.reply() for _ in range(3 * MAX_PENDING + 1)] == replies(3 * MAX_PENDING + 1)


async def test_requests_over_the_limit_are_answered_after_an_end_of_file_too() -> None:
    gate = Gate()
    async with service(gate.answer) as (client, _):
        client.writer.write(queries(3 * MAX_PENDING + 1))
        client.writer.write_eof()
        await gate.wait_for(gate.begun, MAX_PENDING)
        gate.open()
        assert await client.to_the_end() == replies(3 * MAX_PENDING + 1)


async def test_who_does_not_read_replies_is_not_read_from() -> None:
    large = Reply(Status.OK, "x" * 99_000)
    asked = 0

    async def answer(request: Request) -> Reply:
        nonlocal asked
        if request.key == b"other":
            return Reply(Status.OK, "other")
        asked += 1
        return large

    listener = ipv4()
    async with serving(answer, listener), connected(listener) as other:
        greedy = socket.socket()
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        greedy.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(greedy, listener.getsockname())
        sent = 0

        async def send_for_ever() -> None:
            nonlocal sent
            while True:
                await loop.sock_sendall(greedy, queries(100))
                sent += len(queries(100))

        sending = asyncio.ensure_future(send_for_ever())
        history = []
        for _ in range(2000):
            assert await other.ask("other") == "OK other"
            history.append((asked, sent))
        sending.cancel()
        greedy.close()
        # As many as are worked on at once, and the few that the kernel's buffers hold the replies of.
        assert MAX_PENDING <= asked <= MAX_PENDING + 50
        # What the kernel's buffers and one reading take in: nothing to what could have been sent.
        assert sent < 20_000_000
        assert history[1000:] == history[-1:] * 1000
        assert await other.ask("other") == "OK other"


async def test_who_reads_again_gets_all_replies() -> None:
    async def answer(request: Request) -> Reply:
        return Reply(Status.OK, request.key.decode() + "x" * 50_000)

    async with service(answer) as (client, other):
        client.writer.write(queries(300))
        for _ in range(100):
            assert (await other.ask("other")).startswith("OK other")
        assert [(await client.reply()).rstrip("x") for _ in range(300)] == replies(300)


async def test_a_connection_at_rest_stays_open() -> None:
    async with service(echo) as (idle, busy):
        assert await idle.ask("before") == "OK before"
        for number in range(1000):
            assert await busy.ask(str(number)) == f"OK {number}"
        assert await idle.ask("after") == "OK after"


@pytest.fixture
def _2100_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2100:
        pytest.skip(f"needs 2100 open files: ulimit -Hn says {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2100), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_2100_files")
async def test_the_queue_for_connections_is_as_long_as_the_kernel_allows() -> None:
    listener = ipv4()
    async with serving(echo, listener):
        info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        (most,) = struct.unpack_from("I", info, 28)  # tcpi_sacked, which for a socket that listens is that.
    assert most == min(4096, int(Path("/proc/sys/net/core/somaxconn").read_text()))


async def test_1000_connections_at_once() -> None:
    listener = ipv4()
    gate = Gate()
    keys = [str(number) for number in range(1000)]
    async with serving(gate.answer, listener), contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(listener)) for _ in keys]
        asked = [asyncio.ensure_future(client.ask(key)) for client, key in zip(clients, keys, strict=True)]
        await gate.wait_for(gate.begun, 1000)
        gate.open()
        assert await asyncio.gather(*asked) == [f"OK {key}" for key in keys]


# Clients that go away


@pytest.mark.parametrize("kind", KINDS)
async def test_who_has_finished_asking_still_gets_its_replies(kind: str, tmp_path: Path) -> None:
    gate = Gate()
    listener = listener_of(kind, tmp_path)
    async with serving(gate.answer, listener), connected(listener) as client:
        client.writer.write(queries(2))
        client.writer.write_eof()
        await gate.wait_for(gate.begun, 2)
        gate.open()
        assert await client.to_the_end() == ["OK 0", "OK 1"]


@pytest.mark.parametrize(
    "sent", [b"", b"1", b"20:", b"20:postfix examp", query("a") + b"9:postf"], ids=lambda sent: sent.decode() or "none"
)
async def test_an_end_of_file_within_a_request_ends_the_connection(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(echo) as (client, other):
        client.writer.write(sent)
        client.writer.write_eof()
        assert await client.to_the_end() == (["OK a"] if query("a") in sent else [])
        assert await other.ask("b") == "OK b"
    assert logged(caplog) == []


async def test_a_client_lost_within_a_request_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with service(echo) as (client, other):
        client.writer.write(query("a") + b"20:postfix examp")
        assert await client.reply() == "OK a"
        client.reset()
        assert await other.ask("b") == "OK b"
    assert logged(caplog) == []


async def test_the_answers_for_a_lost_client_are_given_up(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    async with service(gate.answer) as (client, other):
        client.writer.write(queries(3))
        await gate.wait_for(gate.begun, 3)
        client.reset()
        await gate.wait_for(gate.given_up, 3)
        gate.open()
        assert await other.ask("b") == "OK b"
    assert (sorted(gate.given_up), logged(caplog)) == (["0", "1", "2"], [])


async def test_a_client_lost_while_it_is_sent_replies_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(_: Request) -> Reply:
        return Reply(Status.OK, "x" * 99_000)

    async with service(answer) as (client, other):
        client.writer.write(queries(300))
        assert len(await client.reply()) == 99_003
        client.reset()
        assert len(await other.ask("b")) == 99_003
    assert logged(caplog) == []


# Clients that speak something else

_LENGTH = "expected the length of a netstring"
_AT_MOST = "expected a netstring of at most 10000 bytes"
_COMMA = "expected a comma after the netstring"
_WORDS = "expected the name of a map, a space and a key"

FOREIGN = {
    "HTTP": (b"GET /metrics HTTP/1.1\r\nHost: a.example\r\n\r\n", _LENGTH),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200, 232)) + b"\x20" + bytes(32), _LENGTH),
    "SMTP": (b"EHLO client.example\r\n", _LENGTH),
    "tcp_table": (b"get example.com\n", _LENGTH),
    "binary": (bytes(range(256)), _LENGTH),
    "one line feed": (b"\n", _LENGTH),
    "a sign before the length": (b"+9:postfix a,", _LENGTH),
    "digits that are none in ASCII": ("٣:a b,".encode(), _LENGTH),
    "no length": (b":", _AT_MOST),
    "one octet too long": (b"10001:postfix a", _AT_MOST),
    "too many digits": (b"123456", _AT_MOST),
    "leading zeros without end": (b"000000", _AT_MOST),
    "no comma": (b"9:postfix a;", _COMMA),
    "a length one too short": (b"8:postfix a,", _COMMA),
    "no blank": (b"7:postfix,", _WORDS),
    "empty netstring": (b"0:,", _WORDS),
}


@pytest.mark.parametrize(("octets", "reason"), FOREIGN.values(), ids=FOREIGN.keys())
async def test_a_client_that_does_not_speak_socketmap_is_told_off_in_the_log(
    octets: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with service(echo) as (client, other):
        client.writer.write(queries(2) + octets)
        assert await client.to_the_end() == replies(2)
        name = client.name
        assert await other.ask("b") == "OK b"
    shown = ascii(octets[:40].decode("latin-1"))
    assert logged(caplog) == [f"ERROR client={name} does not speak socketmap: {reason}, got {shown}"]


@pytest.mark.parametrize("kind", KINDS)
async def test_the_log_names_the_client(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listener = listener_of(kind, tmp_path)
    async with serving(echo, listener), connected(listener) as client:
        client.writer.write(b"x")
        assert await client.to_the_end() == []
        name = f"unix:{tmp_path / 'socket'}" if kind == "unix" else client.name
    assert logged(caplog) == [f"ERROR client={name} does not speak socketmap: {_LENGTH}, got 'x'"]


async def test_what_was_asked_before_is_answered_though_it_takes_time(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    async with service(gate.answer) as (client, other):
        client.writer.write(queries(2) + b"x")
        await gate.wait_for(gate.begun, 2)
        gate.open("other")
        assert await other.ask("other") == "OK other"
        before = logged(caplog)
        client.writer.write(b"x" * 1_000_000)
        gate.open()
        assert await client.to_the_end() == replies(2)
        name = client.name
    line = f"ERROR client={name} does not speak socketmap: {_LENGTH}, got 'x'"
    assert (before, logged(caplog)) == ([line], [line])


# Defects of our own


async def test_an_error_in_an_answer_is_a_temporary_failure(caplog: pytest.LogCaptureFixture) -> None:
    defect = ZeroDivisionError("a defect")

    async def answer(request: Request) -> Reply:
        if request.key == b"1":
            raise defect
        return await echo(request)

    async with service(answer) as (client, _):
        client.writer.write(queries(3))
        assert [await client.reply() for _ in range(3)] == ["OK 0", "TEMP internal error", "OK 2"]
        assert await client.ask("4") == "OK 4"
    (record,) = (record for record in caplog.records if record.name == "postfix_mtasts")
    assert record.exc_info
    assert (record.levelname, record.getMessage(), record.exc_info[1]) == ("ERROR", "internal error", defect)
    assert record.exc_info[2]


# The end


async def test_the_end_waits_for_what_is_under_way() -> None:
    gate = Gate()
    listener = ipv4()
    address = listener.getsockname()
    server = Server(nothing_ready, gate.answer)
    server.start([listener])
    async with connected(listener) as client, connected(listener) as idle:
        gate.open("idle")
        assert await idle.ask("idle") == "OK idle"
        client.writer.write(queries(2))
        await gate.wait_for(gate.begun, 3)
        closing = asyncio.ensure_future(server.aclose(GRACE))
        assert await idle.to_the_end() == []
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        client.writer.write(query("too late"))
        gate.open()
        assert await client.to_the_end() == ["OK 0", "OK 1"]
        await closing
    assert gate.begun == ["idle", "0", "1"]


class Waiting:
    """A client that connects and asks while the event loop of the server stands still."""

    def __init__(self, listener: socket.socket) -> None:
        self.socket = socket.socket(listener.family)
        self.socket.settimeout(GRACE)
        self.socket.connect(listener.getsockname())

    def ask(self, key: str) -> None:
        self.socket.sendall(query(key))

    async def replies(self) -> str:
        """Return what the server sends until it closes the connection, and "reset" if it does not end in order."""
        found = b""
        with self.socket, contextlib.suppress(ConnectionError):
            while data := await asyncio.to_thread(self.socket.recv, 1000):
                found += data
            return found.decode()
        return f"{found.decode()} reset"


@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_answers_who_waits_to_be_accepted(kind: str, tmp_path: Path) -> None:
    listener = listener_of(kind, tmp_path)
    server = Server(nothing_ready, echo)
    server.start([listener])
    clients = [Waiting(listener) for _ in range(100)]
    for number, client in enumerate(clients):
        client.ask(str(number))
    await server.aclose(GRACE)
    expected = [netstring(f"OK {number}".encode()).decode() for number in range(100)]
    assert [await client.replies() for client in clients] == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_the_end_leaves_later_connections_to_who_listens_next(kind: str, tmp_path: Path) -> None:
    """As systemd's sockets: until another process has them, connections wait in their queues."""
    listener = listener_of(kind, tmp_path)
    duplicate = listener.dup()
    server = Server(nothing_ready, echo)
    server.start([listener])
    closing = asyncio.ensure_future(server.aclose(GRACE))
    clients: list[Waiting] = []
    for number in range(100):  # One comes between any two steps of the end, and the last ones after it.
        clients.append(Waiting(duplicate))
        clients[-1].ask(str(number))
        await asyncio.sleep(0)
    await closing
    async with serving(echo, duplicate):
        for number, client in enumerate(clients):
            client.socket.shutdown(socket.SHUT_WR)
            assert await client.replies() == netstring(f"OK {number}".encode()).decode()


@pytest.mark.parametrize("sent", [0, 5])
async def test_the_end_waits_for_the_first_request_of_a_connection(sent: int) -> None:
    gate = Gate()
    listener = ipv4()
    server = Server(nothing_ready, gate.answer)
    server.start([listener])
    async with connected(listener) as client, connected(listener) as slow:
        client.writer.write(query("0")[:sent])
        slow.writer.write(query("slow"))
        await gate.wait_for(gate.begun, 1)
        closing = asyncio.ensure_future(server.aclose(GRACE))
        for _ in range(20):  # The server, in the same loop, does all that it does at once.
            await asyncio.sleep(0)
        assert listener.fileno() == -1
        client.writer.write(query("0")[sent:])
        await gate.wait_for(gate.begun, 2)
        client.writer.write(query("too late"))
        gate.open()
        assert await client.to_the_end() == ["OK 0"]
        assert await slow.to_the_end() == ["OK slow"]
        await closing
    assert gate.begun == ["slow", "0"]


async def test_the_end_reads_what_has_come_on_a_connection_at_rest() -> None:
    listener = ipv4()
    server = Server(nothing_ready, echo)
    server.start([listener])
    client = Waiting(listener)
    client.ask("a")
    reply = netstring(b"OK a")
    assert await asyncio.to_thread(client.socket.recv, len(reply), socket.MSG_WAITALL) == reply
    client.ask("b")
    await server.aclose(GRACE)
    assert await client.replies() == netstring(b"OK b").decode()


async def test_the_end_does_not_wait_for_who_never_asks() -> None:
    listener = ipv4()
    server = Server(nothing_ready, echo)
    server.start([listener])
    silent, half = Waiting(listener), Waiting(listener)
    half.socket.sendall(query("a")[:-1])
    async with connected(listener) as other:
        assert await other.ask("a") == "OK a"
        await server.aclose(3600)
    assert await silent.replies() == ""
    assert (await half.replies()).strip() in ("", "reset")


async def test_the_end_does_not_wait_without_end(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    listener = ipv4()
    server = Server(nothing_ready, gate.answer)
    server.start([listener])
    async with connected(listener) as client:
        client.writer.write(queries(2))
        await gate.wait_for(gate.begun, 2)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await server.aclose(0.2)
        assert loop.time() - begin > 0.19  # uvloop counts milliseconds.
        assert await client.to_the_end() == []
        await gate.wait_for(gate.given_up, 2)
    assert logged(caplog) == []


async def test_the_end_does_not_wait_for_who_reads_no_replies() -> None:
    async def answer(_: Request) -> Reply:
        return Reply(Status.OK, "x" * 99_000)

    listener = ipv4()
    server = Server(nothing_ready, answer)
    server.start([listener])
    async with connected(listener) as client, connected(listener) as other:
        client.writer.write(queries(1000))
        for _ in range(100):
            await other.ask("other")
        await server.aclose(0.2)
        assert await other.to_the_end() == []


async def test_the_end_without_a_client() -> None:
    server = Server(nothing_ready, echo)
    server.start([ipv4()])
    await server.aclose(GRACE)


@pytest.mark.parametrize("after", ["an end", "a kill"])
def test_a_unix_socket_can_be_listened_on_again(after: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    endpoint = UnixEndpoint(str(path))

    async def once(key: str) -> str:
        listener = listen(endpoint, 0o600)
        async with serving(echo, listener), connected(listener) as client:
            reply = await client.ask(key)
            remove_file(listener)
        return reply

    if after == "a kill":
        listen(endpoint, 0o600).close()
        assert path.is_socket()
    assert [asyncio.run(once(key)) for key in ("a", "b")] == ["OK a", "OK b"]


async def test_the_end_leaves_the_file_of_a_unix_socket_to_others(tmp_path: Path) -> None:
    """It may be systemd's, who goes on listening there."""
    theirs = listener_of("unix", tmp_path)
    async with serving(echo, socket.fromfd(theirs.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)):
        pass
    async with serving(echo, theirs), connected(theirs) as client:
        assert await client.ask("a") == "OK a"


# Sockets that cannot be listened on


@contextlib.contextmanager
def other_process(code: str, *arguments: str) -> Iterator[str]:
    """Another process that does what `code` says and waits; its first line of output."""
    command = [sys.executable, "-c", f"import socket, sys\n{code}\nsys.stdin.read()", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def refusal(endpoint: Endpoint) -> str:
    with pytest.raises(ListenError) as caught:
        listen(endpoint, 0o600)
    return str(caught.value)


def test_a_port_that_another_process_listens_on() -> None:
    code = "s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True)"
    with other_process(code) as port:
        assert refusal(InetEndpoint("127.0.0.1", int(port))) == "address already in use"


def test_a_unix_socket_that_another_process_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    code = "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print('ready', flush=True)"
    with other_process(code, str(path)):
        assert refusal(UnixEndpoint(str(path))) == "another process is listening there"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert path.is_socket()


def test_a_unix_socket_whose_server_takes_no_more_connections(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    code = "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(0); print('ready', flush=True)"
    with other_process(code, str(path)), socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(path))
        assert refusal(UnixEndpoint(str(path))) == "another process is listening there"
    assert path.is_socket()


def test_an_address_of_another_machine() -> None:
    assert refusal(InetEndpoint("192.0.2.1", 8461)) == "cannot assign requested address"


def test_a_unix_socket_where_a_file_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    assert refusal(UnixEndpoint(str(path))) == "a file with this name exists, and is not a socket"
    assert path.read_text() == "precious"


def test_a_unix_socket_where_a_folder_is(tmp_path: Path) -> None:
    assert refusal(UnixEndpoint(str(tmp_path))) == "a file with this name exists, and is not a socket"


def test_a_unix_socket_in_no_folder(tmp_path: Path) -> None:
    assert refusal(UnixEndpoint(str(tmp_path / "none" / "socket"))) == f"there is no folder {tmp_path / 'none'}"


def test_a_unix_socket_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(UnixEndpoint(str(tmp_path / "file" / "socket"))) == f"there is no folder {tmp_path / 'file'}"


def test_a_unix_socket_behind_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert refusal(UnixEndpoint(str(tmp_path / "link"))) == "address already in use"


def test_the_mode_of_a_unix_socket_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    modes = [0o666, 0o660, 0o600, 0o777, 0o000]
    umasks = [0o000, 0o022, 0o077, 0o777]
    found = {}
    for umask in umasks:
        for mode in modes:
            path = tmp_path / f"{umask:o}-{mode:o}"
            before = os.umask(umask)
            try:
                listen(UnixEndpoint(str(path)), mode).close()
            finally:
                after = os.umask(before)
            found[umask, mode] = (stat.S_IMODE(path.stat().st_mode), after)
    assert found == {(umask, mode): (mode, umask) for umask in umasks for mode in modes}
