"""Reads of single rows, gathered: handing a call to the database's thread costs more than finding no row in it."""

import asyncio
from collections.abc import Awaitable, Callable

GATHER_READS = 0.001  # Seconds that reads gather, if several came at once before.


class _Read:
    """Keys that are read together, and their rows once they have been read."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self.rows: dict[str, bytes] | None = None


class Reads:
    """Reads rows by `read`, which takes keys and returns the rows of those that have one."""

    def __init__(self, read: Callable[[list[str]], Awaitable[dict[str, bytes]]]) -> None:
        self._read = read
        self._next = _Read()
        self._reading = asyncio.Lock()
        self._many = False  # Whether the last reading was of several keys.

    async def row(self, key: str) -> bytes | None:
        """The row of a key, if it has one."""
        read = self._next
        read.keys.add(key)
        async with self._reading:
            if read.rows is None:
                if self._many:
                    await asyncio.sleep(GATHER_READS)
                if read is self._next:
                    self._next = _Read()
                self._many = len(read.keys) > 1
                read.rows = await self._read(list(read.keys))
        return read.rows.get(key)
