"""Runs one task at a time for each key, or one for each connection, and counts how tasks ended."""

import asyncio
import collections
import socket
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from postfix_mtasts.log import events

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


class SingleFlight(Generic[_K, _T]):
    """At most one task for each key. Whoever asks meanwhile waits for it, and whoever gives up does not end it."""

    def __init__(self) -> None:
        self._tasks: dict[_K, asyncio.Task[_T]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, key: _K, start: Callable[[], Coroutine[Any, Any, _T]]) -> asyncio.Task[_T]:
        """The task for a key, which is started if there is none."""
        task = self._tasks.get(key)
        if not task:
            task = asyncio.create_task(start())
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key))
        return task

    async def result(self, key: _K, start: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """The result of the task for a key, which is started if there is none."""
        return await asyncio.shield(self.begin(key, start))

    async def after(self, key: _K) -> None:
        """Wait until there is no task for a key, whatever its result."""
        while task := self._tasks.get(key):
            await asyncio.wait([task])

    async def aclose(self) -> None:
        """Cancel all tasks."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Connections:
    """Serves each connection to a listener in a task of its own: `most` at once, and a further one is closed."""

    def __init__(self, serve: Serve, limit: int, most: int | None = None) -> None:
        self._serve = serve
        self._limit = limit  # Octets of a request.
        self._most = most
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket) -> None:
        """Start to accept connections on `listener`, which is closed at the end; its file belongs to the caller."""
        # start_unix_server would remove the file at the end (since Python 3.13), but it may belong to systemd.
        self._server = await asyncio.start_server(self._connected, sock=listener, limit=self._limit)

    async def aclose(self) -> None:
        """Stop, and close all connections."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._most is not None and len(self._tasks) >= self._most:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error:
            events.internal_error(error)


class Recent:
    """Counts what ended in the last `minutes`, and what of it failed. `clock` gives seconds."""

    def __init__(self, minutes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes = minutes
        self.last_failure = ""  # Why; it may be older.
        self._clock = clock
        self._counts: collections.deque[tuple[int, list[int]]] = collections.deque(
            maxlen=minutes
        )  # For each minute: ended, failed.

    def note(self, failure: str = "") -> None:
        """Count one more that ended, or that failed for this reason."""
        minute = self._minute()
        if not self._counts or self._counts[-1][0] != minute:
            self._counts.append((minute, [0, 0]))
        counts = self._counts[-1][1]
        counts[0] += 1
        if failure:
            counts[1] += 1
            self.last_failure = failure

    def counts(self) -> tuple[int, int]:
        """How many ended, and how many of them failed."""
        first = self._minute() - self.minutes + 1
        recent = [counts for minute, counts in self._counts if minute >= first]
        return sum(ended for ended, _ in recent), sum(failed for _, failed in recent)

    def _minute(self) -> int:
        return int(self._clock() // 60)
