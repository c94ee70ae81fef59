"""The socketmap server: connections in, requests to `answer`, replies out in the order of their requests.

A reply that lies ready is sent as soon as its request has come: that is what mostly happens, and all that happens then.

Postfix asks one thing at a time on a connection, and may leave it idle for minutes; an idle connection is never closed
while the server runs. A client that asks faster than it is answered is not read from until it has caught up.
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

_ACCEPTED_AT_ONCE = 10  # As often asyncio fails to accept, and prints a traceback each time, when files run out.
_MAX_PENDING = 100  # Requests of one connection that are worked on at once.

AtOnce = Callable[[bytes], bytes | None]  # A reply for a request, both as they go over the wire.
Answer = Callable[[Request], Coroutine[None, None, Reply]]


class Server:
    """Answers on listening sockets, whose files are left to the caller: by `at_once` if that can, or by `answer`."""

    def __init__(self, at_once: AtOnce, answer: Answer) -> None:
        self._at_once = at_once
        self._answer = answer
        self._servers: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()

    async def start(self, listeners: Sequence[socket.socket]) -> None:
        """Begin to answer."""
        loop = asyncio.get_running_loop()
        for listener in listeners:
            # Not create_unix_server, which from Python 3.13 on removes the file when it ends: it may be systemd's.
            self._servers.append(await loop.create_server(self._connect, sock=listener, backlog=_ACCEPTED_AT_ONCE))
            listener.listen(BACKLOG)

    async def aclose(self, grace: float) -> None:
        """Stop: refuse connections, answer what was asked, for at most `grace` seconds, and close all."""
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
    """One client."""

    def __init__(self, at_once: AtOnce, answer: Answer, connections: set["_Connection"]) -> None:
        self.closed = asyncio.get_running_loop().create_future()
        self._at_once = at_once
        self._answer = answer
        self._connections = connections
        self._decoder = Decoder()
        self._pending: collections.deque[bytes | asyncio.Task[Reply]] = collections.deque()
        self._idle = True  # What comes now is a request from its beginning on, and its reply may go out at once.
        self._finishing = False  # No more requests are taken.
        self._eof = False  # No more will come.
        self._takes_replies = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the replies any more."""
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
        """What the client has asked is still answered."""
        self._eof = True
        self._go_on()
        return True

    def pause_writing(self) -> None:
        self._takes_replies = self._idle = False

    def resume_writing(self) -> None:
        self._takes_replies = True
        self._go_on()

    def finish(self) -> None:
        """Take no more requests, and close when all are answered."""
        self._finishing = True
        self._go_on()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def _go_on(self, _: object = None) -> None:
        """Whatever has happened: send the replies that are due, and take the requests that there is room for."""
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
        """The replies that are due."""
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
    # Never "not found": there may be a policy (and mail must not bounce for a defect of ours).
    return temporary_failure("internal error")
