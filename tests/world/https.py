"""An HTTPS server that knows its sites by SNI, and can fail at every step of the way.

    with HttpsServer() as https:
        https.policy("mta-sts.example.com", "version: STSv1\n…", certificate.server_context())
        https.site("mta-sts.example.net", context, answer(b"…")[:-1], End.RESET)
        https.site("mta-sts.example.org", None, HANG)                       # never gets to TLS
        …                                                                   # connect to https.address, https.port
        assert https.requests == [Request("mta-sts.example.com", "GET", "/.well-known/mta-sts.txt", (…))]

A site is a TLS context and steps. After the ClientHello comes the handshake, after the request come the steps: bytes
are sent as they are, and what a function makes of the ClientHello too; the rest is below. Without a context the steps
follow the ClientHello, in plain text. After the last step the connection is closed. A name that no site has gets the
alert unrecognized_name.
"""

import asyncio
import concurrent.futures
import contextlib
import enum
import http
import re
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.world.dns import LoopServer
from tests.world.tls13 import CIPHER, records

_T = TypeVar("_T")
_CHUNK = 16384  # A record of TLS.
_IN_FLIGHT = 32768  # Bytes that count as sent, although the client has not received them.


class Request(NamedTuple):
    """A request as received; `host` is the name of the TLS handshake."""

    host: str | None
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Drip:
    """Send one byte per interval, in seconds."""

    data: bytes
    interval: float


@dataclass(frozen=True)
class Flood:
    """Send so many zero bytes."""

    size: int


@dataclass(frozen=True)
class Sealed:
    """Send TLS 1.3 records with these contents (tests/world/tls13.py), before anything else is sent.

    The context must have a keylog file, no tickets, and the cipher `CIPHER`.
    """

    contents: Sequence[bytes]


class Hold:
    """Wait until a test calls `release`; `reached` is set when a connection waits here."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._released: concurrent.futures.Future[None] = concurrent.futures.Future()

    def release(self) -> None:
        """Go on, now and whenever a connection comes here again."""
        self._released.set_result(None)

    async def wait(self) -> None:
        """Wait for the release."""
        self.reached.set()
        await asyncio.wait([asyncio.wrap_future(self._released)])


class End(enum.Enum):
    """End the connection at once: with a RST, with a FIN that no close_notify precedes, or with such a FIN and an ear
    for the client until it goes too."""

    RESET = enum.auto()
    CUT = enum.auto()
    HALF = enum.auto()


HANG = Hold()
Step = bytes | Callable[[bytes], bytes] | Drip | Flood | Sealed | Hold | End


def answer(
    body: bytes | str = b"",
    *,
    status: int = 200,
    content_type: str | None = "text/plain",
    headers: Iterable[tuple[str, str]] = (),
) -> bytes:
    """An HTTP response, with a Content-Length unless the headers have one or say how the body is transferred."""
    content = body.encode() if isinstance(body, str) else body
    phrases = {known.value: known.phrase for known in http.HTTPStatus}
    fields = list(headers)
    if content_type is not None:
        fields.append(("Content-Type", content_type))
    if not {name.lower() for name, _ in fields} & {"content-length", "transfer-encoding"}:
        fields.append(("Content-Length", str(len(content))))
    head = [f"HTTP/1.1 {status} {phrases.get(status, 'Unknown')}", *(f"{name}: {value}" for name, value in fields)]
    return "".join(f"{line}\r\n" for line in [*head, ""]).encode() + content


def chunked(body: bytes, size: int) -> bytes:
    """The body in chunks, for an answer with `Transfer-Encoding: chunked`."""
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


class HttpsServer(LoopServer):
    """Serves from `__enter__` to `__exit__`; the methods may be called from any thread.

    `connections` counts what was accepted, `sni` has the names that were asked for (None: without one), `requests` what
    was asked, and `sent` counts the bytes of the steps that went out to the clients of each name.

    With `at_once`, it has no sites: these steps come first of all, and the ClientHello is not read.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0, at_once: Sequence[Step] | None = None) -> None:
        super().__init__(address, port)
        self.connections = 0
        self.sni: list[str | None] = []
        self.requests: list[Request] = []
        self.sent: Counter[str | None] = Counter()
        self._at_once = at_once
        self._sites: dict[str | None, tuple[ssl.SSLContext | None, Sequence[Step]]] = {}

    def site(self, host: str, context: ssl.SSLContext | None, *steps: Step) -> None:
        """Serve `host` so from now on."""
        self._sites[host] = context, steps

    def site_of(self, host: str | None) -> tuple[ssl.SSLContext | None, Sequence[Step]] | None:
        """What a client that asks for `host` gets; None if there is no such site. A subclass may make it up."""
        return self._sites.get(host)

    def policy(
        self,
        host: str,
        body: bytes | str,
        context: ssl.SSLContext,
        status: int = 200,
        content_type: str | None = "text/plain",
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Serve one well-formed answer."""
        self.site(host, context, answer(body, status=status, content_type=content_type, headers=headers))

    async def _listen(self) -> Sequence[asyncio.Server]:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        server = await asyncio.start_server(
            lambda r, w: self._spawn(self._connected(r, w), w), self.address, self.port, family=family
        )
        server.sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _IN_FLIGHT // 2)  # The kernel doubles it.
        self.port = server.sockets[0].getsockname()[1]
        return [server]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        # A client that goes away, or dislikes our certificate, is a case of the tests, no error.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._converse(_Connection(reader, writer))

    async def _converse(self, connection: "_Connection") -> None:
        if self._at_once is not None:
            await self._perform(connection, None, self._at_once)
            return
        host, alert = await connection.client_hello()
        self.sni.append(host)
        site = self.site_of(host)
        if site is None:
            await connection.send(alert)
            await connection.close()
            return
        context, steps = site
        if context is not None:
            await connection.start_tls(context)
            self.requests.append(_request(host, await connection.read_until(b"\r\n\r\n")))
        await self._perform(connection, host, steps)

    async def _perform(self, connection: "_Connection", host: str | None, steps: Sequence[Step]) -> None:
        async def send(data: bytes, *, is_sealed: bool = False) -> None:
            for at in range(0, len(data), _CHUNK):
                chunk = data[at : at + _CHUNK]
                await connection.send(chunk, is_sealed=is_sealed)
                self.sent[host] += len(chunk)

        for step in steps:
            match step:
                case bytes():
                    await send(step)
                case Flood():
                    await send(bytes(step.size))
                case Callable():
                    await send(step(connection.hello))
                case Drip():
                    for byte in step.data:
                        await send(bytes([byte]))
                        await self._sleep(step.interval)
                case Sealed():
                    await send(await asyncio.to_thread(connection.sealed, step.contents), is_sealed=True)
                case Hold():
                    await step.wait()
                case End.RESET:
                    connection.reset()
                    return
                case End.CUT:
                    await connection.close(notify=False)
                    return
                case End.HALF:
                    await connection.half_close()
        await connection.close()


class _Connection:
    """A byte stream that TLS can start on after its first bytes were looked at."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self.hello = b""
        writer.transport.set_write_buffer_limits(0)

    async def client_hello(self) -> tuple[str | None, bytes]:
        """The server name that the client asks for, and the alert that would refuse it."""
        names: list[str | None] = []

        def refuse(connection: object, name: str | None, context: object) -> int:
            names.append(name)
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.sni_callback = refuse
        outgoing = ssl.MemoryBIO()
        probe = context.wrap_bio(self._incoming, outgoing, server_side=True)
        while True:
            data = await self._read()
            self.hello += data
            self._incoming.write(data)
            try:
                probe.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return (names[0] if names else None), outgoing.read()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        self._incoming = ssl.MemoryBIO()
        self._incoming.write(self.hello)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        try:
            await self._pump(self._tls.do_handshake)
        except ssl.SSLError:
            await self._flush()
            await self.close(notify=False)
            raise

    async def read_until(self, end: bytes) -> bytes:
        assert self._tls is not None
        received = b""
        while end not in received:
            data = await self._pump(self._tls.read)
            if not data:
                raise ConnectionError("the client ended the TLS connection")
            received += data
        return received

    async def send(self, data: bytes, *, is_sealed: bool = False) -> None:
        if self._tls is None or is_sealed:
            self._outgoing.write(data)
        else:
            self._tls.write(data)
        await self._flush()

    def sealed(self, contents: Sequence[bytes]) -> bytes:
        assert self._tls is not None
        cipher = self._tls.cipher()
        assert cipher is not None
        assert cipher[0] == CIPHER
        client_random = self.hello[11:43].hex()
        log = Path(self._tls.context.keylog_filename).read_text()
        (secret,) = re.findall(rf"^SERVER_TRAFFIC_SECRET_0 {client_random} (\w+)$", log, re.MULTILINE)
        return records(bytes.fromhex(secret), contents)

    def reset(self) -> None:
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def half_close(self) -> None:
        self._writer.write_eof()
        while await self._reader.read(_CHUNK):
            pass

    async def close(self, *, notify: bool = True) -> None:
        if notify and self._tls is not None:
            with contextlib.suppress(ssl.SSLWantReadError):  # We do not wait for the other side's.
                self._tls.unwrap()
            await self._flush()
        self._writer.close()
        await self._writer.wait_closed()

    async def _pump(self, operation: Callable[[], _T]) -> _T:
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                await self._flush()
                self._incoming.write(await self._read())
            else:
                await self._flush()
                return result

    async def _read(self) -> bytes:
        data = await self._reader.read(_CHUNK)
        if not data:
            raise ConnectionError("the client closed the connection")
        return data

    async def _flush(self) -> None:
        self._writer.write(self._outgoing.read())
        await self._writer.drain()


def _request(host: str | None, head: bytes) -> Request:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    fields = (line.partition(":") for line in lines)
    return Request(host, method, path, tuple((name, value.strip()) for name, _, value in fields))
