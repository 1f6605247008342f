"""A wait that somebody else breaks off."""

import asyncio

import pytest

from tests.simulation.virtual_time import run_virtually
from volagent.aio.breakable import Breakable


def test_answer_comes_through_when_nobody_breaks_off():
    async def story():
        wait = Breakable()
        assert await wait.wait(asyncio.sleep(1, "answer")) == "answer"
        wait.break_off()
        assert await wait.wait(asyncio.sleep(1, "again")) == "again"

    run_virtually(story())


def test_wait_ends_at_once_when_it_is_broken_off_even_twice():
    async def story():
        wait = Breakable()
        waiting = asyncio.ensure_future(wait.wait(asyncio.sleep(1000)))
        await asyncio.sleep(1)
        wait.break_off()
        wait.break_off()
        with pytest.raises(TimeoutError):
            await waiting
        assert asyncio.get_running_loop().time() < 2

    run_virtually(story())


def test_cancelling_is_no_breaking_off():
    async def story():
        waiting = asyncio.ensure_future(Breakable().wait(asyncio.sleep(1000)))
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run_virtually(story())
