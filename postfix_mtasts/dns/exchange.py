"""One query, and what nameservers send back: over UDP, and over TCP if a response is truncated (RFC 1035, 4.2).

Each query has its own sockets, so that the port is as hard to guess as the query id (RFC 5452, 9.2). They are
connected. So the kernel drops datagrams from other addresses, and reports at once if the nameserver's port is closed.
A socket stays open until the exchange ends. So a response is heard that comes after other servers were asked.
"""

import asyncio
import collections
import socket

from postfix_mtasts.config import InetEndpoint
from postfix_mtasts.dns.message import MAX_DATAGRAM, Answer, MalformedError, Query
from postfix_mtasts.turns import Turns


class Exchange:
    """Sends a query to nameservers, and gives the answers that come. `tcp_within` is in seconds. `close` it.

    Responses over TCP, which are larger, are read in `turns`.
    """

    def __init__(self, query: Query, tcp_within: float, turns: Turns) -> None:
        self._query = query
        self._tcp_within = tcp_within
        self._turns = turns
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[InetEndpoint, socket.socket] = {}
        self._without_edns: dict[InetEndpoint, Query] = {}
        self._heard: collections.deque[tuple[InetEndpoint, bytes | OSError]] = collections.deque()
        self._waiter: asyncio.Future[None] | None = None

    def send(self, server: InetEndpoint) -> None:
        """Send the query to a nameserver, maybe once more. Raises OSError."""
        datagrams = self._sockets.get(server)
        if not datagrams:
            family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
            datagrams = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                datagrams.connect((server.host, server.port))
            except OSError:
                datagrams.close()  # If there is no way now, there may be one when it is asked again.
                raise
            self._sockets[server] = datagrams
            # Of a socket object, asyncio would first make the text of an error: that costs as much as the query.
            self._loop.add_reader(datagrams.fileno(), self._receive, server, datagrams)
        datagrams.send(self._asked(server).wire)

    async def heard(self, until: float) -> tuple[InetEndpoint, bytes | OSError] | None:
        """The next response to the query, or error of a socket; None if there is none until that time of the loop."""
        if not self._heard:
            self._waiter = waiter = self._loop.create_future()
            timer = self._loop.call_at(until, _wake, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        return self._heard.popleft() if self._heard else None

    async def read(self, server: InetEndpoint, response: bytes) -> Answer | None:
        """The answer in a response; None if the server has to be asked in another way, which was done.

        Raises ResponseError, OSError and EOFError.
        """
        query = self._asked(server)
        if query.is_refused_for_edns(response):
            self._without_edns[server] = query.without_edns()
            self.send(server)
            return None
        if query.is_truncated(response):
            async with asyncio.timeout(self._tcp_within):
                response = await _over_tcp(server, query)
            await self._turns.take(1)
        return query.read(response)

    def close(self) -> None:
        """Close all sockets."""
        for server in list(self._sockets):
            self._close(server)

    def _close(self, server: InetEndpoint) -> None:
        datagrams = self._sockets.pop(server)
        self._loop.remove_reader(datagrams.fileno())
        datagrams.close()

    def _asked(self, server: InetEndpoint) -> Query:
        return self._without_edns.get(server, self._query)

    def _receive(self, server: InetEndpoint, datagrams: socket.socket) -> None:
        try:
            response: bytes | OSError = datagrams.recv(MAX_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            response = error
            self._close(server)  # uvloop hears nothing of a socket after its first error.
        if isinstance(response, OSError) or self._asked(server).is_answered_by(response):
            self._heard.append((server, response))
            if self._waiter:
                _wake(self._waiter)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _over_tcp(server: InetEndpoint, query: Query) -> bytes:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        writer.write(len(query.wire).to_bytes(2) + query.wire)
        response = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
    finally:
        writer.transport.abort()
    if not query.is_answered_by(response):
        raise MalformedError("not a response to our query")
    return response
