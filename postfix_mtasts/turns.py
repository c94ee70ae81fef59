"""Spreads the steps of many tasks over rounds of the event loop, so that everything else has its turn in between."""

import asyncio
import collections


class Turns:
    """Lets steps begin one by one, with rounds of the event loop in between for everything else."""

    def __init__(self) -> None:
        self._waiting: collections.deque[tuple[asyncio.Future[None], int]] = collections.deque()
        self._goes_round = False

    async def take(self, rounds: int) -> None:
        """Wait for a turn. After it, so many rounds pass before the next one."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, rounds))
        if not self._goes_round:
            self._goes_round = True
            self._give_after(1)
        await turn

    def _give_after(self, rounds: int) -> None:
        if rounds:
            asyncio.get_running_loop().call_soon(self._give_after, rounds - 1)
            return
        while self._waiting:
            turn, rounds = self._waiting.popleft()
            if not turn.done():  # Otherwise, its task was cancelled.
                turn.set_result(None)
                self._give_after(rounds)
                return
        self._goes_round = False
