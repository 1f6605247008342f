"""Long work lets others have their turn."""

import asyncio

from volagent.aio.slices import SLICE, in_slices


async def count_turns(items):
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    seen = [item async for item in in_slices(items)]
    task.cancel()
    return seen, turns


async def test_others_have_their_turns_between_the_slices_of_long_work():
    seen, turns = await count_turns(range(3 * SLICE))

    assert seen == list(range(3 * SLICE))
    assert turns >= 2


async def test_short_work_is_done_in_one_piece():
    seen, turns = await count_turns(range(SLICE - 1))

    assert seen == list(range(SLICE - 1))
    assert turns == 0
