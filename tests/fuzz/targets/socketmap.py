"""What a client sends to the socketmap server. Nothing is declared: the server ends the connection.

The first octet chooses where the stream is cut in two, and whether replies lie ready (odd).
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator, Sequence

from postfix_mtasts.daemon.server import Server
from postfix_mtasts.postfix.reply import temporary_failure
from postfix_mtasts.postfix.socketmap import Decoder, ProtocolError, Reply, Request, Status
from postfix_mtasts.sts.domain import PolicyDomainError, next_hop
from tests.fuzz.targets import cases

_LOOP = asyncio.new_event_loop()
logging.disable()


def seeds() -> Iterator[bytes]:
    requests = [
        Request(b"postfix", case["socketmap_key"].encode("utf-8", "surrogatepass")) for case in cases("query_keys.json")
    ]
    for chosen in b"\0", b"\1", b"\x81":
        yield chosen + b"".join(request.encode() for request in requests)
        yield chosen + Request(b"QUERYwithTLSRPT", b"a.example").encode() * 3 + b"7:a"
    yield b"\0" + Request(b"postfix", b"a" * 9990).encode() * 6
    yield b"\1" + b"3:a b," * 200
    yield b"\0" + b"10001:a b,"
    yield b"\0" + b"0003:a b,"


def run(data: bytes) -> None:
    global _ready
    chosen, stream = data[0] if data else 0, data[1:]
    _ready = bool(chosen % 2)
    cut = len(stream) * chosen // 256
    expected = b"".join(_reply(request).encode() for request in _requests([stream]))
    assert _requests([stream[:cut], stream[cut:]]) == _requests([stream])
    assert _LOOP.run_until_complete(_exchange(stream[:cut], stream[cut:])) == expected


def _requests(parts: Sequence[bytes]) -> list[Request]:
    decoder = Decoder()
    found = []
    with contextlib.suppress(ProtocolError):
        for part in parts:
            decoder.feed(part)
            while request := decoder.next_request():
                assert b" " not in request.name
                found.append(request)
    return found


def _reply(request: Request) -> Reply:
    try:
        return Reply(Status.OK, str(next_hop(request.key)))
    except PolicyDomainError as error:
        return temporary_failure(str(error))


async def _answer(request: Request) -> Reply:
    if len(request.key) % 2:
        await asyncio.sleep(0)
    return _reply(request)


def _at_once(octets: bytes) -> bytes | None:
    if not _ready:
        return None
    requests = _requests([octets])
    return _reply(requests[0]).encode() if len(requests) == 1 and requests[0].encode() == octets else None


async def _exchange(*parts: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(_address)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


async def _start() -> str:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")  # An abstract address that the kernel chooses.
    listener.listen()
    Server(_at_once, _answer).start([listener])
    address: bytes = listener.getsockname()
    return address.decode()


_ready = False
_address = _LOOP.run_until_complete(_start())
