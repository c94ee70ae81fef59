"""Turns: one step in each round of the event loop, in the order in which they were asked for."""

import asyncio
import itertools

from postfix_mtasts.work import Turns


async def rounds(count: int, log: list[str]) -> None:
    for number in range(count):
        await asyncio.sleep(0)
        log.append(f"round {number}")


async def test_one_turn_in_each_round_in_order() -> None:
    turns, log = Turns(), []

    async def step(name: str) -> None:
        await turns.take()
        log.append(name)

    steps = [asyncio.create_task(step(name)) for name in "abcd"]
    await asyncio.gather(rounds(20, log), *steps)
    taken = [position for position, name in enumerate(log) if name in "abcd"]
    assert [log[position] for position in taken] == list("abcd")
    assert all(later - earlier >= 2 for earlier, later in itertools.pairwise(taken)), log


async def test_a_turn_that_was_given_up_costs_nobody_his() -> None:
    turns, log = Turns(), []

    async def step(name: str) -> None:
        await turns.take()
        log.append(name)

    steps = [asyncio.create_task(step(name)) for name in "abcd"]
    await asyncio.sleep(0)
    for given_up in (0, 2):
        steps[given_up].cancel()
    await asyncio.wait(steps)
    assert log == ["b", "d"]
    await asyncio.wait_for(turns.take(), 10)
