"""Whole lists of a kind, made once for all who ask for one at the same time, and sent in slices.

Every agent that starts reads all claims and volumes. A list of 60,000 volumes is 38 MiB: made for
each agent by itself, those of agents that start together hold up the server and fill its memory.

A list that began before a request came may lack what was acknowledged in between, so nobody is
answered by it: who comes while one is made waits for its end, and one of those who wait makes the
next for all of them. What fails, fails for all of them.

Only for answers that are the same for everybody who may have them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from aiohttp import web

from volagent.api.responses import JSON

SLICE_BYTES: Final = 2**18
"""A longer text is sent by and by, as fast as its reader takes it: it is not copied for each."""

Make = Callable[[], Awaitable[bytes]]


class WholeLists:
    """The lists that are being made, by what they are of."""

    def __init__(self) -> None:
        self._turns: dict[Hashable, asyncio.Lock] = {}
        self._next: dict[Hashable, asyncio.Future[bytes | None]] = {}
        """Where one waits for its turn: what comes of it; None when it went away."""

    async def share(self, of: Hashable, make: Make) -> bytes:
        """A list that began after this call. Raises what `make` raises."""
        while True:
            coming = self._next.get(of)
            if coming is None:
                return await self._make_next(of, make)
            text = await asyncio.shield(coming)
            if text is not None:
                return text

    async def _make_next(self, of: Hashable, make: Make) -> bytes:
        coming = self._next[of] = asyncio.get_running_loop().create_future()
        try:
            async with self._turns.setdefault(of, asyncio.Lock()):
                del self._next[of]  # who comes from now on waits for another
                text = await make()
                coming.set_result(text)
                return text
        except Exception as error:
            coming.set_exception(error)
            coming.exception()  # perhaps nobody waits
            raise
        finally:
            if self._next.get(of) is coming:
                del self._next[of]
            if not coming.done():  # this one goes away: another of them makes it
                coming.set_result(None)


async def send_text(request: web.BaseRequest, text: bytes) -> web.StreamResponse:
    """Answer with a JSON text, however long."""
    if len(text) <= SLICE_BYTES:
        return web.Response(body=text, headers={"Content-Type": JSON})
    response = web.StreamResponse(headers={"Content-Type": JSON})
    response.content_length = len(text)
    await response.prepare(request)
    rest = memoryview(text)
    while rest:
        await response.write(rest[:SLICE_BYTES])
        rest = rest[SLICE_BYTES:]
    await response.write_eof()
    return response
