"""What the event loop costs by itself: uvloop, and a protocol that answers whatever comes with one reply.

python alone.py HOST:PORT|PATH REPLY
"""

import asyncio
import sys

import uvloop


class _Constant(asyncio.Protocol):
    def __init__(self, reply: bytes) -> None:
        self._reply = reply

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # As documented.
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._reply)


async def _serve(address: str, reply: bytes) -> None:
    loop = asyncio.get_running_loop()
    if address.startswith("/"):
        server = await loop.create_unix_server(lambda: _Constant(reply), address)
    else:
        host, port = address.split(":")
        server = await loop.create_server(lambda: _Constant(reply), host, int(port))
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(sys.argv[1], b"%d:%s," % (len(sys.argv[2]), sys.argv[2].encode())))
