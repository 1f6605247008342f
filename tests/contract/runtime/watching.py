"""Waiting for what a runtime tells, without sleeping."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

WITHIN_S = 30.0


class Watcher:
    """Collects what `follow` says."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self._news = asyncio.Event()

    def __call__(self, pod: Any) -> None:
        self.told.append(pod)
        self._news.set()

    async def until(self, holds: Callable[[], Awaitable[Any]]) -> Any:
        """The first true answer of `holds`, asked again with everything that is told."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                self._news.clear()
                answer = await holds()
                if answer:
                    return answer
                await self._news.wait()


@asynccontextmanager
async def following(make_loops: Callable[[Watcher], Sequence[Coroutine[Any, Any, None]]]):
    """Runs the loops that are made for a watcher while the block runs; one has told something."""
    watcher = Watcher()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop) for loop in make_loops(watcher)]
        try:

            async def connected():
                return watcher.told

            await watcher.until(connected)
            yield watcher
        finally:
            for task in tasks:
                task.cancel()
