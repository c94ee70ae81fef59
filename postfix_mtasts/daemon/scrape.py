"""The HTTP listener for metrics: GET /metrics, and nothing else. One request a connection."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import h11

from postfix_mtasts import __version__
from postfix_mtasts.daemon.work import Connections

PATH = b"/metrics"
MAX_REQUEST = 8192  # Octets of a request. That of Prometheus has less than 500.
DEADLINE = 10.0  # Seconds for a connection. Prometheus waits as long.
MAX_CONNECTIONS = 10  # At once; a further one is closed. Each Prometheus has one.


class Scrape:
    """Answers requests with what `text` returns, of the media type `content_type`."""

    def __init__(self, text: Callable[[], Awaitable[bytes]], content_type: str) -> None:
        self._text = text
        self._content_type = content_type
        self.connections = Connections(self._serve, MAX_REQUEST, MAX_CONNECTIONS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(DEADLINE):
                await self._converse(reader, writer)
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError):
            pass  # Whoever has gone away, or does not go on, needs no answer.
        finally:
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST)
        body = b""
        try:
            status = _status(await _request(connection, reader))
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
        if status == 200:
            body = await self._text()
        with contextlib.suppress(h11.LocalProtocolError):  # There was no request.
            fields = [("Content-Type", self._content_type), ("Content-Length", str(len(body)))]
            fields += [("Connection", "close"), ("Server", f"postfix-mtasts/{__version__}")]
            fields += [("Allow", "GET")] if status == 405 else []
            writer.write(connection.send(h11.Response(status_code=status, headers=fields)) or b"")
            writer.write(body)
            await writer.drain()


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The head of a request, or None if there is none. Raises h11.RemoteProtocolError."""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(MAX_REQUEST))
        else:
            return event if isinstance(event, h11.Request) else None


def _status(request: h11.Request | None) -> int:
    if request is None:
        return 400
    if request.target.partition(b"?")[0] != PATH:
        return 404
    return 200 if request.method == b"GET" else 405
