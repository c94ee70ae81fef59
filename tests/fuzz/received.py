"""A host that has sent certain octets, for targets that read from a connection."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.remote.network import Network
from postfix_mtasts.remote.stream import Stream
from postfix_mtasts.sts.observation import Stage
from postfix_mtasts.turns import Turns

_T = TypeVar("_T")

RESOLVER = Resolver(timeout=1)  # It is not asked.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_SPACE = 1 << 20  # Octets that a socket takes before somebody reads them.
_LOOP = asyncio.new_event_loop()


class Host:
    """Sends a piece for each time that it is read from, and then ends the connection: with close_notify, or `cut`."""

    pieces: Sequence[bytes] = ()
    cut = False


class _Stream(Stream):
    """Has no TLS, but an end as TLS has it."""

    def __init__(self, ours: socket.socket, theirs: socket.socket) -> None:
        super().__init__(ours, Turns())
        self._theirs = theirs
        self._pieces = iter(Host.pieces)

    async def read(self, max_octets: int) -> bytes:
        if piece := next(self._pieces, b""):
            self._theirs.sendall(piece)
        else:
            self._theirs.shutdown(socket.SHUT_WR)
        data = await super().read(max_octets)
        if not data and Host.cut:
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol")
        return data


class ToHost(Network):
    """Takes the place of `Network`."""

    async def connect(self, host: str, port: int) -> Stream:
        ours, self._theirs = socket.socketpair()
        ours.setblocking(False)
        self._theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SPACE)
        self._stream = _Stream(ours, self._theirs)
        return self._stream

    async def connect_to_proxy(self, host: str, port: int) -> Stream:
        self.enter(Stage.PROXY)
        return await self.connect(host, port)

    async def start_tls(self, stream: Stream, host: str, tls: ssl.SSLContext) -> None:
        self.enter(Stage.RESPONSE)

    def abort(self) -> None:
        super().abort()
        self._theirs.close()


def run(work: Coroutine[None, None, _T]) -> _T:
    """Run to the end; nothing is logged."""
    logging.disable()
    with contextlib.closing(work):
        return _LOOP.run_until_complete(work)
