"""The socketmap server. It accepts connections, passes requests to `answer`, and sends the replies in the same order.

If `at_once` has the reply to a request, it is sent immediately. This is the most common case, and the fast one.

Postfix sends one request at a time on a connection, and may leave the connection idle for minutes. The server closes
idle connections only when it stops. It stops reading from a client that has too many requests without a reply.

A stop leaves nobody without a reply who has just connected: the server first accepts the connections that wait, and
reads the request of each new one. Connections that come later stay in the queue of a socket that systemd holds.
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

_ACCEPTED_AT_ONCE = 10  # Connections that are accepted before those that are open have their turn.
_ACCEPT_AGAIN = 1.0  # Seconds until the next attempt when the process has no free file descriptors.
_MAX_PENDING = 100  # Requests of one connection that are in progress at the same time.
_LAST_REQUESTS = 1.0  # Seconds at the end in which a request that is under way may arrive.

AtOnce = Callable[[bytes], bytes | None]  # Returns the reply to a request if it has one, both in wire format.
Answer = Callable[[Request], Coroutine[None, None, Reply]]


class Server:
    """Answers requests on listening sockets: with `at_once` if that has a reply, otherwise with `answer`.

    The caller removes the files of Unix sockets.
    """

    def __init__(self, at_once: AtOnce, answer: Answer) -> None:
        self._at_once = at_once
        self._answer = answer
        self._listeners: list[socket.socket] = []
        self._connections: set[_Connection] = set()
        self._accepted: set[asyncio.Task[object]] = set()  # They become connections soon.

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Start to accept connections on `listeners`. The server closes them at its end."""
        for listener in listeners:
            listener.setblocking(False)
            self._listeners.append(listener)
            self._watch(listener)

    async def aclose(self, grace: float) -> None:
        """Refuse new connections, answer the requests received so far for at most `grace` seconds, and close all."""
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        for listener in self._listeners:
            loop.remove_reader(listener)
            self._accept(listener, BACKLOG)
            listener.close()
        await asyncio.gather(*self._accepted, return_exceptions=True)
        for _ in range(2):  # After that, the event loop has read what had arrived.
            await asyncio.sleep(0)
        for connection in self._connections:
            connection.finish()
        await self._until_closed(min(end, loop.time() + _LAST_REQUESTS))
        for connection in self._connections:
            connection.read_no_more()
        await self._until_closed(end)
        for connection in self._connections:
            connection.abort()

    def _watch(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, _ACCEPTED_AT_ONCE)

    def _accept(self, listener: socket.socket, most: int) -> None:
        """Accept up to `most` of the connections that wait."""
        loop = asyncio.get_running_loop()
        for _ in range(most):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # The process lacks descriptors, or the machine lacks memory.
                loop.remove_reader(listener)
                loop.call_later(_ACCEPT_AGAIN, self._watch, listener)
                loop.call_exception_handler({"message": "connections cannot be accepted", "exception": error})
                return
            connection.setblocking(False)
            task = loop.create_task(loop.connect_accepted_socket(self._connect, connection))
            self._accepted.add(task)
            task.add_done_callback(self._accepted.discard)

    async def _until_closed(self, end: float) -> None:
        closed = [connection.closed for connection in self._connections]
        if closed:
            await asyncio.wait(closed, timeout=max(0, end - asyncio.get_running_loop().time()))

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
        self._silent = True  # The client has sent nothing yet.
        self._stopping = False  # The connection is to end; a request that has begun to arrive is still read.
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
        self._silent = False
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
        """Close the connection when all requests received are answered. If none is complete yet, wait for the first."""
        self._stopping = True
        self._go_on()

    def read_no_more(self) -> None:
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
        self._finishing |= self._stopping and not (self._silent or self._decoder.has_part)
        self._idle = not (self._pending or self._decoder.has_part or self._stopping or self._finishing)
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
