"""How work is shared out: one piece for a key at a time; and of many pieces, a step in each round of the event loop."""

import asyncio
import collections
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_T = TypeVar("_T")


class Work(Generic[_K, _T]):
    """What is under way, by its keys: who comes meanwhile waits for it; who gives up does not end it."""

    def __init__(self) -> None:
        self._tasks: dict[_K, asyncio.Task[_T]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, key: _K, start: Callable[[], Coroutine[Any, Any, _T]]) -> asyncio.Task[_T]:
        """The work for a key, begun if none is under way."""
        task = self._tasks.get(key)
        if not task:
            task = asyncio.create_task(start())
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key))
        return task

    async def result(self, key: _K, start: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What the work for a key comes to."""
        return await asyncio.shield(self.begin(key, start))

    async def after(self, key: _K) -> None:
        """Wait until none is under way for a key, whatever it comes to."""
        while task := self._tasks.get(key):
            await asyncio.wait([task])

    async def aclose(self) -> None:
        """Give up all of it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Turns:
    """Lets steps begin one by one, a round of the event loop for each, so that all else gets its turn in between."""

    def __init__(self) -> None:
        self._waiting: collections.deque[asyncio.Future[None]] = collections.deque()
        self._goes_round = False

    async def take(self) -> None:
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if not self._goes_round:
            self._goes_round = True
            loop.call_soon(self._next)
        await turn

    def _next(self) -> None:
        while self._waiting and self._waiting[0].done():
            self._waiting.popleft()  # Given up.
        if self._waiting:
            self._waiting.popleft().set_result(None)
        self._goes_round = bool(self._waiting)
        if self._goes_round:
            asyncio.get_running_loop().call_soon(self._next)
