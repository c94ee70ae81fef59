"""The socketmap server. It accepts connections, passes requests to `answer`, and sends the replies in the same order.

If `at_once` has the reply to a request, it is sent immediately. This is the most common case, and the fast one.

Postfix sends one request at a time on a connection, and may leave the connection idle for minutes. The server closes
idle connections only when it stops. It stops reading from a client that has too many requests without a reply.
"""

import asyncio
import collections
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import cast

from postfix_mtasts.daemon.listen import BACKLOG
from postfix_mtasts.log import events
from postfix_mtasts.postfix.reply import temporary_failure
from postfix_mtasts.postfix.socketmap import Decoder, ProtocolError, Reply, Request

# When the process has no free file descriptors, asyncio tries to accept this many connections, and prints a traceback
# for each of them.
_ACCEPTED_AT_ONCE = 10
_MAX_PENDING = 100  # Requests of one connection that are in progress at the same time.

AtOnce = Callable[[bytes], bytes | None]  # Returns the reply to a request if it has one, both in wire format.
Answer = Callable[[Request], Coroutine[None, None, Reply]]


class Server:
    """Answers requests on listening sockets: with `at_once` if that has a reply, otherwise with `answer`.

    The caller removes the files of Unix sockets.
    """

    def __init__(self, at_once: AtOnce, answer: Answer) -> None:
        self._at_once = at_once
        self._answer = answer
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()

    async def start(self, listeners: Sequence[socket.socket]) -> None:
        """Start to accept connections on `listeners`."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            # create_unix_server would remove the file at the end (since Python 3.13), but it may belong to systemd.
            self._servers.append(await loop.create_server(self._connect, sock=listener, backlog=_ACCEPTED_AT_ONCE))
            listener.listen(BACKLOG)

    async def aclose(self, grace: float) -> None:
        """Refuse new connections, answer the requests received so far for at most `grace` seconds, and close all."""
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.finish()
        closed = [connection.closed for connection in self._connections]
        if closed:
            await asyncio.wait(closed, timeout=grace)
        for connection in self._connections:
            connection.abort()

    def _connect(self) -> "_Connection":
        return _Connection(self._at_once, self._answer, self._connections)


class _Connection(asyncio.Protocol):
    """The connection of one client."""

    def __init__(self, at_once: AtOnce, answer: Answer, connections: set["_Connection"]) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._at_once = at_once
        self._answer = answer
        self._connections = connections
        self._decoder = Decoder()
        self._pending: collections.deque[bytes | asyncio.Task[Reply]] = collections.deque()
        self._idle = True  # Nothing is pending or half read, so new data may go to `at_once`.
        self._finishing = False  # No more requests are read.
        self._eof = False  # The client sends no more.
        self._takes_replies = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connection = transport.get_extra_info("socket")
        if connection.family != socket.AF_UNIX:
            # A client that vanished without a word would hold its descriptor for ever.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the work on requests, since nobody waits for the replies."""
        self._connections.discard(self)
        self._finishing = True
        for reply in self._pending:
            if isinstance(reply, asyncio.Task):
                reply.cancel()
        self._pending.clear()
        self.closed.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._idle and (reply := self._at_once(data)):
            self._transport.write(reply)
            return
        self._decoder.feed(data)
        self._go_on()

    def eof_received(self) -> bool:
        """Keep the connection open until all requests of the client are answered."""
        self._eof = True
        self._go_on()
        return True

    def pause_writing(self) -> None:
        self._takes_replies = self._idle = False

    def resume_writing(self) -> None:
        self._takes_replies = True
        self._go_on()

    def finish(self) -> None:
        """Read no more requests, and close the connection when all are answered."""
        self._finishing = True
        self._go_on()

    def abort(self) -> None:
        """Close the connection immediately."""
        self._transport.abort()

    def _go_on(self, _: object = None) -> None:
        """Send the replies that are due, and read more requests if there is room. Called after every event."""
        self._send()
        while len(self._pending) < _MAX_PENDING and (request := self._next_request()):
            self._pending.append(self._at_once(request.encode()) or self._begin(request))
            self._send()
        self._idle = not (self._pending or self._decoder.has_part or self._finishing)
        if not self._pending and (self._finishing or self._eof):
            self._transport.close()
        elif len(self._pending) < _MAX_PENDING:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _send(self) -> None:
        """Send finished replies, up to the first one that is not finished."""
        while self._takes_replies and self._pending:
            reply = self._pending[0]
            if isinstance(reply, asyncio.Task):
                if not reply.done():
                    return
                reply = _reply_of(reply).encode()
            self._pending.popleft()
            self._transport.write(reply)

    def _begin(self, request: Request) -> asyncio.Task[Reply]:
        task = asyncio.get_running_loop().create_task(self._answer(request))
        task.add_done_callback(self._go_on)
        return task

    def _next_request(self) -> Request | None:
        if self._finishing:
            return None
        try:
            return self._decoder.next_request()
        except ProtocolError as error:
            events.not_socketmap(self._peer(), str(error))
            self._finishing = True
            return None

    def _peer(self) -> str:
        name = self._transport.get_extra_info("peername") or self._transport.get_extra_info("sockname")
        if not isinstance(name, tuple):
            return f"unix:{name}"
        host, port = name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reply_of(task: asyncio.Task[Reply]) -> Reply:
    error = task.exception()
    if not error:
        return task.result()
    events.internal_error(error)
    # "Not found" would be wrong, because there may be a policy. A temporary failure keeps the mail in the queue.
    return temporary_failure("internal error")
