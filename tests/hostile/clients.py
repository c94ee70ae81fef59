"""Clients beside hostile domains, in a process of their own: one asks for a domain whose reply lies ready, all the
time, and one for a new domain each time. They ask until their input ends, and print what they saw as JSON.

python -m tests.hostile.clients SOCKET REPLY READY-DOMAIN NEW-DOMAIN…
"""

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

_BETWEEN = {"ready": 0.002, "new": 0.1}  # Seconds from a reply to the next question.
_PATIENCE = 120.0  # Seconds for all replies.


@dataclass
class Waits:
    """How long the replies of the two took, in seconds; and what was no good reply."""

    ready: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def beside(endpoint: str, reply: str, ready: str, new: Sequence[str]) -> Iterator[Waits]:
    """The clients ask from begin to end of the block; there, the waits are filled in."""
    waits = Waits()
    command = [sys.executable, "-m", "tests.hostile.clients", endpoint.removeprefix("unix:"), reply, ready, *new]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "they ask\n"
            yield waits
            output, _ = process.communicate(timeout=_PATIENCE)
        finally:
            process.kill()
    waits.__dict__.update(json.loads(output))


def ask_all(endpoint: str, domains: Sequence[str]) -> Mapping[str, str]:
    """The replies for domains, which are asked for at the same time, each on a connection of its own."""

    async def ask(domain: str) -> str:
        replies = []
        async with _connected(endpoint.removeprefix("unix:")) as connection:
            replies.append(await connection.ask(domain))
        return replies[0]

    async def all_of_them() -> list[str]:
        async with asyncio.timeout(_PATIENCE):
            return await asyncio.gather(*map(ask, domains))

    return dict(zip(domains, asyncio.run(all_of_them()), strict=True))


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, domain: str) -> str:
        query = f"postfix {domain}".encode()
        self._writer.write(b"%d:%b," % (len(query), query))
        size = int((await self._reader.readuntil(b":"))[:-1])
        return (await self._reader.readexactly(size + 1))[:-1].decode()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def _connected(path: str) -> AsyncIterator["_Connection"]:
    connection = _Connection(*await asyncio.open_unix_connection(path))
    try:
        yield connection
    finally:
        await connection.close()


async def _keep_asking(path: str, reply: str, kind: str, domains: Iterable[str], waits: Waits) -> None:
    async with _connected(path) as connection:
        for domain in domains:
            begin = time.monotonic()
            said = await connection.ask(domain)
            getattr(waits, kind).append(time.monotonic() - begin)
            if said != reply:
                waits.wrong.append(f"{domain}: {said}")
            await asyncio.sleep(_BETWEEN[kind])


async def _main(path: str, reply: str, ready: str, *new: str) -> None:
    waits = Waits()
    loop = asyncio.get_running_loop()
    ended = loop.run_in_executor(None, sys.stdin.read)
    asking = [
        asyncio.create_task(_keep_asking(path, reply, "ready", itertools.repeat(ready), waits)),
        asyncio.create_task(_keep_asking(path, reply, "new", new, waits)),
    ]
    while not (waits.ready and waits.new):
        await asyncio.sleep(0.01)
    waits.ready.clear()  # The first was not ready.
    waits.new.clear()
    print("they ask", flush=True)  # noqa: T201 - this is its output
    await ended
    for task in asking:
        task.cancel()
    for result in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    print(json.dumps(waits.__dict__))  # noqa: T201 - this is its output


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
