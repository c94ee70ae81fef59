"""An open connection as a stream of octets, without TLS and with it.

OpenSSL works on buffers in memory, and this module moves octets between them and the socket, in place of asyncio's
transport. So what a hostile host sends is read in small slices, with the event loop in between, and is counted before
OpenSSL sees it. And the end that a host
authenticates (close_notify) differs from a connection that somebody on the way has cut (RFC 8446, 6.1).
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

# Octets given to OpenSSL at once: at most some 150 KeyUpdate records, the smallest that cost it work.
_SLICE = 4096
# Octets of one connection, from its beginning. A policy of 64 KiB with its certificates needs less than a third.
MAX_RECEIVED = 524_288


class NetworkError(Exception):
    """The connection failed, or was given up, for a reason that is not an error of the system."""

    def __init__(self, reason: str, *, is_local: bool = False) -> None:
        super().__init__(reason)
        self.is_local = is_local  # This machine is the cause, not the host.


class Stream:
    """The stream of a connected, non-blocking socket, which it closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._received = 0
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
                if data := await self._receive(_SLICE):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            else:
                await self._flush()
                return result

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await asyncio.get_running_loop().sock_sendall(self._connection, self._outgoing.read())

    async def _receive(self, max_octets: int) -> bytes:
        # sock_recv does not wait where octets lie ready, so a host that sends without end would keep the loop.
        await asyncio.sleep(0)
        data = await asyncio.get_running_loop().sock_recv(self._connection, max_octets)
        self._received += len(data)
        if self._received > MAX_RECEIVED:
            raise NetworkError(f"the host sent more than {MAX_RECEIVED // 1024} KiB without an end")
        return data
