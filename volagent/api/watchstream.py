"""A watch as a stream of JSON lines, for as long as its client, its timeout or the server wants.

A watch that cannot go on ends with one ERROR event that carries the `Status` (410 when the revision
was compacted), inside a 200 answer, as kube-apiserver does: clients look for it there.

Many watchers cost little more than one: they are served in step, on the ticks of one clock, so that
they read the same changes, which are then encoded once. The ticks are so far apart as the number of
watchers makes necessary; the first change after a pause waits for none.
"""

import asyncio
import traceback
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

import msgspec
from aiohttp import web

from volagent.api.connection import Connection
from volagent.api.query import Query
from volagent.api.resources import traits_of
from volagent.api.responses import JSON
from volagent.api.routes import Target
from volagent.api.selectors import compile_selection
from volagent.client.contract import ApiError, Client, Listing, WatchEvent
from volagent.observe.logs import get_logger

Shape = Callable[[Sequence[WatchEvent]], Sequence[Any]]
"""Turns a batch of events into what is sent, one value a line."""

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
FEW_WATCHES = 8
"""So many are served without waiting for a tick."""
TICK_PER_WATCH_S = 0.00025
"""What serving one watcher takes, roughly: a tick leaves time for all of them, and for the rest."""
LONGEST_TICK_S = 0.025
SHARED_TEXTS = 16
"""Encoded batches kept for watchers that read the same."""
_ENCODER = msgspec.json.Encoder()
_log = get_logger("api")


class WatchStreams:
    """The watches that are being served, so that a closing server can end them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._running: set[asyncio.Task[Any]] = set()
        self._closing = False
        self._texts: dict[int, tuple[Sequence[WatchEvent], bytes]] = {}
        """By the identity of a batch, which is kept beside its text so that it stays the same."""

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._running)

    def close(self) -> None:
        """End every watch, politely: clients see the end of the stream and come back."""
        self._closing = True
        for task in tuple(self._running):
            task.cancel()

    async def serve(
        self, request: web.BaseRequest, target: Target, query: Query, shape: Shape
    ) -> web.StreamResponse:
        """Answer one watch request. Raises `ApiError` only before anything was sent."""
        selection = query.select(target.namespace)
        compile_selection(traits_of(target.resource), selection)  # a bad one is a 400, not an event
        listing = None
        if query.resource_version in ("", "0") or query.send_initial_events:
            listing = await self._client.list(target.resource, selection)
        response = web.StreamResponse(headers={"Content-Type": JSON})
        connection = cast(Connection, request.protocol)
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        connection.on_lost = task.cancel
        self._running.add(task)
        lines = self._lines(target, query, shape, listing)
        limit = asyncio.timeout(query.timeout_s or None)
        try:
            await response.prepare(request)
            async with limit, aclosing(lines):
                async for line in lines:
                    await response.write(line)
        except TimeoutError:
            if not limit.expired():
                raise
        except asyncio.CancelledError:
            if not self._closing:
                raise
            task.uncancel()
        finally:
            self._running.discard(task)
            connection.on_lost = None
        await response.write_eof()
        return response

    async def _lines(
        self, target: Target, query: Query, shape: Shape, listing: Listing | None
    ) -> AsyncGenerator[bytes]:
        revision = query.resource_version
        if listing is not None:
            revision = listing.resource_version
            first = [WatchEvent("ADDED", item) for item in listing.items]
            if query.send_initial_events and query.bookmarks:
                first.append(_initial_bookmark(target, revision))
            if first:
                yield _ENCODER.encode_lines(shape(first))
        events = self._client.watch(
            target.resource,
            query.select(target.namespace),
            resource_version=revision,
            bookmarks=query.bookmarks,
        )
        try:
            async with aclosing(cast("Any", events)):
                async for batch in events:
                    yield self._encode(batch, shape)
                    await self._wait_for_tick()
        except ApiError as error:
            yield _error_line(error)
        except Exception as error:  # noqa: BLE001  # boundary: the answer has begun, so say it there
            _log.error(
                "watch failed",
                resource=target.resource.plural,
                error=repr(error),
                trace=traceback.format_exc(),
            )
            yield _error_line(ApiError("the watch failed inside the server; its log says why"))

    def _encode(self, batch: Sequence[WatchEvent], shape: Shape) -> bytes:
        if shape is not as_given:
            return _ENCODER.encode_lines(shape(batch))
        held = self._texts.get(id(batch))
        if held is not None:
            return held[1]
        text = _ENCODER.encode_lines(batch)
        self._texts[id(batch)] = (batch, text)
        if len(self._texts) > SHARED_TEXTS:
            del self._texts[next(iter(self._texts))]
        return text

    async def _wait_for_tick(self) -> None:
        count = len(self._running)
        if count <= FEW_WATCHES:
            return
        tick_s = min(LONGEST_TICK_S, count * TICK_PER_WATCH_S)
        await asyncio.sleep(tick_s - asyncio.get_running_loop().time() % tick_s)


def as_given(batch: Sequence[WatchEvent]) -> Sequence[WatchEvent]:
    """The `Shape` of events that are sent as they are."""
    return batch


def _initial_bookmark(target: Target, revision: str) -> WatchEvent:
    resource = target.resource
    metadata = {"resourceVersion": revision, "annotations": {INITIAL_EVENTS_END: "true"}}
    document = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
    return WatchEvent("BOOKMARK", document)


def _error_line(error: ApiError) -> bytes:
    return _ENCODER.encode({"type": "ERROR", "object": error.status}) + b"\n"
