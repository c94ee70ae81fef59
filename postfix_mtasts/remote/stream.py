"""An open connection as a stream of octets, without TLS and with it.

OpenSSL works on buffers in memory, and this module moves octets between them and the socket, in place of asyncio's
transport. So what a hostile host sends is read in small slices, with the event loop in between, and is counted before
OpenSSL sees it. And the end that a host authenticates (close_notify) differs from a connection that somebody on the way
has cut (RFC 8446, 6.1).
"""

import asyncio
import contextlib
import functools
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from postfix_mtasts.turns import Turns

_T = TypeVar("_T")

# Octets given to OpenSSL at once: at most some 150 KeyUpdate records, the smallest that cost it work.
_SLICE = 4096
# Octets of one connection, from its beginning. A policy of 64 KiB with its certificates needs less than a third.
MAX_RECEIVED = 524_288
# Records of TLS of one connection. A KeyUpdate in one costs OpenSSL as much as a policy, and has 27 octets.
_MAX_RECORDS = 1000
_HANDSHAKE, _RECORD_HEADER = 22, 5  # The type of a TLS record, and octets before its content (RFC 8446, 5.1).
# Types of handshake messages, and octets before their content (RFC 5246, 7.4).
_SERVER_HELLO, _SERVER_KEY_EXCHANGE, _MESSAGE_HEADER = 2, 12, 4
# Bits of a finite field for the key exchange: OpenSSL works in it for 30 ms, in one of 10,000 bits for a second.
_MAX_FIELD = 4096
# What makes a ServerHello a HelloRetryRequest (RFC 8446, 4.1.3); and its key_share, if it names a finite field (4.2.7).
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_FINITE_FIELD = bytes.fromhex("0033 0002 01")


class NetworkError(Exception):
    """The connection failed, or was given up, for a reason that is not an error of the system."""

    def __init__(self, reason: str, *, is_local: bool = False) -> None:
        super().__init__(reason)
        self.is_local = is_local  # This machine is the cause, not the host.


class Records:
    """Sees the records of TLS that come. `count` says how many there were.

    And it sees in which finite field a host wants the key exchange, before OpenSSL works in it: `refused` is why it
    must not. TLS 1.3 offers fields of up to 8,192 bits, and Python's ssl cannot leave them out. In TLS 1.2, where they
    are offered to MX hosts as by Postfix, the host chooses any.
    """

    def __init__(self) -> None:
        self.count = 0
        self.refused = ""
        self._header, self._left = bytearray(), 0  # Of the record that is coming: its header, and octets to come.
        self._messages = bytearray()  # Of the handshake: those that are not complete.
        self._cipher = 0

    def take(self, data: bytes) -> None:
        """Take the next octets of the connection."""
        at = 0
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                self._left -= len(part)
                if self._header[0] == _HANDSHAKE:
                    self._collect(part)
            else:
                if len(self._header) == _RECORD_HEADER:
                    self._header.clear()
                part = data[at : at + _RECORD_HEADER - len(self._header)]
                self._header += part
                if len(self._header) == _RECORD_HEADER:
                    self.count += 1
                    self._left = int.from_bytes(self._header[3:])
            at += len(part)

    def _collect(self, part: bytes) -> None:
        self._messages += part
        while len(self._messages) >= _MESSAGE_HEADER:
            end = _MESSAGE_HEADER + int.from_bytes(self._messages[1:_MESSAGE_HEADER])
            if len(self._messages) < end:
                break
            self._look_at(self._messages[0], bytes(self._messages[_MESSAGE_HEADER:end]))
            del self._messages[:end]

    def _look_at(self, kind: int, content: bytes) -> None:
        if kind == _SERVER_HELLO:
            _, random, rest = content[:2], content[2:34], content[34:]
            at = 1 + int.from_bytes(rest[:1])  # Behind the session id.
            self._cipher = int.from_bytes(rest[at : at + 2])
            if random == RETRY and _FINITE_FIELD in rest:
                self.refused = "the host wants a finite field for the key exchange (ffdhe)"
        elif kind == _SERVER_KEY_EXCHANGE and self._cipher in _dhe():
            bits = 8 * int.from_bytes(content[:2])  # Of its prime, which comes first (RFC 5246, 7.4.3).
            if bits > _MAX_FIELD:
                self.refused = f"the host wants a finite field of {bits} bits for the key exchange (DHE)"


@functools.cache
def _dhe() -> frozenset[int]:
    """The ciphers of TLS 1.2 whose key exchange is in a finite field."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("kDHE:@SECLEVEL=0")
    return frozenset(cipher["id"] & 0xFFFF for cipher in context.get_ciphers())


class Stream:
    """The stream of a connected, non-blocking socket, which it closes.

    What has come is worked on in `turns`, which streams share, so that many hosts at once freeze nothing.
    """

    def __init__(self, connection: socket.socket, turns: Turns) -> None:
        self._connection = connection
        self._turns = turns
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._received = 0
        self._records = Records()
        self.tls: ssl.SSLObject | None = None  # Once it is established.

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Speak TLS from now on, with a host that `context` verifies. Raises OSError and NetworkError."""
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        try:
            await self._perform(tls.do_handshake)
        except ssl.SSLError:
            with contextlib.suppress(OSError):  # The host is told why, if it still listens.
                self._connection.send(self._outgoing.read())
            raise
        self.tls = tls

    async def read(self, max_octets: int) -> bytes:
        """What has come, at most so many octets; none at an end that the host has authenticated.

        Raises OSError, among them ssl.SSLEOFError for an end that it has not, and NetworkError.
        """
        if not self.tls:
            return await self._receive(max_octets)
        try:
            return await self._perform(self.tls.read, max_octets)
        except ssl.SSLZeroReturnError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send, and wait until the kernel has taken all. Raises OSError."""
        if self.tls:
            await self._perform(self.tls.write, data)
        else:
            await asyncio.get_running_loop().sock_sendall(self._connection, data)

    def abort(self) -> None:
        """Close at once."""
        self._connection.close()

    async def _perform(self, step: Callable[..., _T], *arguments: object) -> _T:
        """Have OpenSSL make a step, as soon as it has received what it needs for it."""
        while True:
            try:
                result = step(*arguments)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive_tls()
            else:
                await self._flush()
                return result

    async def _receive_tls(self) -> None:
        data = await self._receive(_SLICE)
        self._records.take(data)
        if self._records.count > _MAX_RECORDS:
            raise NetworkError(f"the host sent more than {_MAX_RECORDS} records of TLS without an end")
        if self._records.refused:
            raise NetworkError(self._records.refused)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await asyncio.get_running_loop().sock_sendall(self._connection, self._outgoing.read())

    async def _receive(self, max_octets: int) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self._connection, max_octets)
        await self._turns.take(1)  # Also because sock_recv does not wait where octets lie ready.
        self._received += len(data)
        if self._received > MAX_RECEIVED:
            raise NetworkError(f"the host sent more than {MAX_RECEIVED // 1024} KiB without an end")
        return data
