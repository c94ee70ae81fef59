"""A wire between clients and a server, that a test can cut."""

import asyncio
from collections.abc import Sequence

from tests.world.dns import LoopServer


class Wire(LoopServer):
    """Stands before a port of this machine. When it is cut, `left` octets of replies still get through.

    Then both ends see the connection closed if it `closes`, and hear nothing more if not.
    """

    def __init__(self, to: int, *, closes: bool) -> None:
        super().__init__("127.0.0.1", 0)
        self._to = to
        self.closes = closes
        self.left: int | None = None

    async def _listen(self) -> Sequence[asyncio.Server]:
        listener = await asyncio.start_server(lambda r, w: self._spawn(self._connected(r, w), w), self.address)
        self.port = listener.sockets[0].getsockname()[1]
        return [listener]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(self.address, self._to)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pass_on(reader, to_server, is_reply=False))
                    both.create_task(self._pass_on(from_server, writer, is_reply=True))
            finally:
                to_server.transport.abort()
        except* OSError:
            pass

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_reply: bool) -> None:
        while data := await reader.read(65536):
            if is_reply and self.left is not None:
                data, self.left = data[: self.left], max(0, self.left - len(data))
            writer.write(data)
            await writer.drain()
            if is_reply and self.left == 0 and self.closes:
                break
        raise ConnectionResetError  # The end of one direction is that of both.
