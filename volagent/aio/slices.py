"""Long work on the loop's thread, in slices: everybody else gets a turn in between.

A server that reads 60,000 objects in one piece stands still for seconds; the leader of several
would be ended for it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

SLICE: Final = 256
"""Items between two turns of others; a list that is shorter is gone through in one piece."""


async def in_slices(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, with a turn for everybody else now and then. They must not change meanwhile."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % SLICE == 0:
            await asyncio.sleep(0)
