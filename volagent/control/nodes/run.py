"""Tells which nodes are lost, by how long they have been silent (`silence.py`)."""

import asyncio

from volagent.aio.clock import Clock, format_time
from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    NODES,
    WITH_STATUS,
    ApiError,
    Client,
    Conflict,
    NotFound,
)
from volagent.client.events import EventRecorder, subject_of
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.nodes.decide import Lose, Step, decide_node, patch_of
from volagent.control.nodes.silence import SilenceWatch
from volagent.objects.storage import Node
from volagent.observe.logs import get_logger

WORKERS = 16
RETRY_S = 1.0

_log = get_logger("nodes")


class NodeLife:
    """Judges nodes by their silence."""

    def __init__(
        self,
        copies: SharedCopies,
        client: Client,
        events: EventRecorder,
        clock: Clock,
        timeout_s: float,
        *,
        own_node: str = "",
    ) -> None:
        """`own_node`: the one whose agent is in this process, if any. Before `copies.run`."""
        self._copies = copies
        self._client = client
        self._events = events
        self._clock = clock
        self._timeout_s = timeout_s
        self._queue: KeyedQueue[str] | None = None
        self._silence = SilenceWatch(
            copies, clock, lambda name, _silent_s: self._mark(name), own_node=own_node
        )
        copies.nodes.listen(self._node_changed)

    async def run(self) -> None:
        """Judge, for ever."""
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            self._silence.start()
            queue = self._queue = KeyedQueue("node", self._work, tasks.start, width=WORKERS)
            for node in self._copies.nodes.values():
                queue.mark(node.metadata.name)
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    def _node_changed(self, key: Key, _old: Node | None, new: Node | None) -> None:
        if new is not None:
            self._mark(key[1])

    def _mark(self, name: str) -> None:
        if self._queue is not None:
            self._queue.mark(name)

    async def _work(self, name: str) -> float | None:
        node, silence = self._copies.nodes.get("", name), self._silence.find(name)
        if node is None or silence is None:
            return None
        step = decide_node(node, silence, self._timeout_s)
        if step is not None:
            try:
                await self._carry_out(node, step)
            except (Conflict, NotFound):
                return RETRY_S
            except ApiError as error:
                _log.warning("node not judged", node=name, error=error.message)
                return RETRY_S
        left_s = self._timeout_s - silence.silent_s
        return left_s + 0.01 if left_s > 0 else None

    async def _carry_out(self, node: Node, step: Step) -> None:
        document = await self._client.get(NODES, node.metadata.name)
        change = patch_of(step, document, format_time(self._clock.wall()))
        await self._client.patch(NODES, node.metadata.name, change, subresource=WITH_STATUS)
        subject, text = subject_of("Node", node.metadata), step.describe()
        if isinstance(step, Lose):
            self._events.warning(subject, "NodeNotReady", text)
            _log.warning("node lost", node=node.metadata.name, silent_s=round(step.silent_s, 1))
        else:
            self._events.normal(subject, "NodeReady", text)
            _log.info("node is back", node=node.metadata.name)
