"""Turns: one step at a time, as many rounds of the event loop apart as it asks for, in the order of the asking."""

import asyncio
import itertools

import pytest

from postfix_mtasts.turns import Turns


async def rounds(count: int, log: list[str]) -> None:
    for number in range(count):
        await asyncio.sleep(0)
        log.append(f"round {number}")


@pytest.mark.parametrize("apart", [1, 2, 7])
async def test_turns_come_in_order_and_so_many_rounds_apart(apart: int) -> None:
    turns, log = Turns(), list[str]()

    async def step(name: str) -> None:
        await turns.take(apart)
        log.append(name)

    steps = [asyncio.create_task(step(name)) for name in "abcd"]
    await asyncio.gather(rounds(50, log), *steps)
    taken = [position for position, name in enumerate(log) if name in "abcd"]
    assert [log[position] for position in taken] == list("abcd")
    assert [later - earlier - 1 for earlier, later in itertools.pairwise(taken)] == [apart] * 3, log


async def test_the_rounds_pass_though_nobody_waits() -> None:
    turns, log = Turns(), list[str]()
    await turns.take(9)
    passing = asyncio.create_task(rounds(20, log))
    await turns.take(9)
    log.append("taken")
    await passing
    assert 8 <= log.index("taken") <= 10, log


async def test_a_turn_that_was_given_up_costs_nobody_his() -> None:
    turns, log = Turns(), list[str]()

    async def step(name: str) -> None:
        await turns.take(1)
        log.append(name)

    steps = [asyncio.create_task(step(name)) for name in "abcd"]
    await asyncio.sleep(0)
    for given_up in (0, 2):
        steps[given_up].cancel()
    await asyncio.wait(steps)
    assert log == ["b", "d"]
    await asyncio.wait_for(turns.take(1), 10)
