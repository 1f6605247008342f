"""Waiting for something that somebody else may decide is not worth waiting for any more."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Breakable:
    """One wait at a time."""

    def __init__(self) -> None:
        self._bound: asyncio.Timeout | None = None

    async def wait(self, call: Awaitable[T]) -> T:
        """The call's answer. Raises `TimeoutError` when it was broken off."""
        try:
            async with asyncio.timeout(None) as self._bound:
                return await call
        finally:
            self._bound = None

    def break_off(self) -> None:
        """End the wait, if there is one."""
        bound, self._bound = self._bound, None
        if bound is not None:
            bound.reschedule(asyncio.get_running_loop().time())
