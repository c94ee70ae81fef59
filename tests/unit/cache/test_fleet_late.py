"""How long a relay waits for its fleet's server if the machine has no time for the relay itself."""

import asyncio
import time

from postfix_mtasts.cache.fleet import is_done

WITHIN = 0.6  # Seconds. It has as long again, which is much more than a busy machine needs for it.


def later(rounds: int, future: asyncio.Future[None]) -> None:
    """Set the result so many rounds of the event loop later, as what a thread has done goes from hand to hand."""
    if rounds:
        asyncio.get_running_loop().call_soon(later, rounds - 1, future)
    else:
        future.set_result(None)


async def test_a_process_that_was_late_itself_still_hears_what_came_in_time() -> None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_soon(time.sleep, WITHIN + 0.1)
    loop.call_later(WITHIN / 2, later, 5, future)
    assert await is_done(future, WITHIN)


async def test_what_never_comes_is_waited_for_so_long() -> None:
    assert not await is_done(asyncio.get_running_loop().create_future(), 0.05)
