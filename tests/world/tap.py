"""A tap between Postfix and the daemon, that notes what is asked and answered.

    with Tap("127.0.0.1", 8462, "127.0.0.1", 8461) as tap:      # Postfix asks port 8462, the daemon listens on 8461
        …
        assert tap.lookups == [Lookup("postfix example.com", "NOTFOUND ")]

What passes is not changed, and a lookup is noted before its reply is passed on.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

from tests.world.dns import LoopServer


class Lookup(NamedTuple):
    """A request and its reply, without the frames of their netstrings."""

    request: str
    reply: str


class Tap(LoopServer):
    """Serves from `__enter__` to `__exit__`."""

    def __init__(self, address: str, port: int, daemon_address: str, daemon_port: int) -> None:
        super().__init__(address, port)
        self.lookups: list[Lookup] = []
        self._daemon = daemon_address, daemon_port

    async def _listen(self) -> Sequence[asyncio.Server]:
        return [await asyncio.start_server(lambda r, w: self._spawn(self._connected(r, w), w), self.address, self.port)]

    async def _connected(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        writers = [to_client]
        try:
            # Postfix closes what is idle, and the daemon may end.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                daemon, to_daemon = await asyncio.open_connection(*self._daemon)
                writers.append(to_daemon)
                while True:
                    request = await _netstring(client)
                    to_daemon.write(request)
                    reply = await _netstring(daemon)
                    self.lookups.append(Lookup(_content(request), _content(reply)))
                    to_client.write(reply)
        finally:
            for writer in writers:
                writer.close()


async def _netstring(stream: asyncio.StreamReader) -> bytes:
    length = await stream.readuntil(b":")
    return length + await stream.readexactly(int(length[:-1]) + 1)


def _content(netstring: bytes) -> str:
    return netstring.partition(b":")[2].removesuffix(b",").decode()
