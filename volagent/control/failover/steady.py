"""Keeps new pods away from nodes that are lost and back again and again.

What a node's losses were is told by its annotation `LOSSES`, one entry for each taint of being
lost; how long the node is avoided follows from that alone. Wall clock, since it must outlive this
process: nothing depends on it but where new pods go. When many nodes are unsteady, something else
is: no more are avoided than may be lost at once.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from volagent.aio.clock import Clock, format_time, parse_time
from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import NODES, ApiError, Client, Conflict, NotFound
from volagent.client.events import EventRecorder, subject_of
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.nodes.decide import UNREACHABLE
from volagent.objects.meta import Document
from volagent.objects.scheduling import NO_SCHEDULE
from volagent.objects.storage import Node
from volagent.observe.logs import get_logger
from volagent.settings_failover import FailoverSettings

LOSSES: Final = "volagent.dev/losses"
"""Annotation of a Node: when it was lost, RFC 3339, within the last hour; JSON."""
UNSTEADY: Final = "volagent.dev/unsteady"
"""Taint: the node was lost too often lately."""
WINDOW: Final = timedelta(hours=1)
RETRY_S: Final = 1.0

_log = get_logger("failover")


def find_hold_s(losses: Sequence[datetime], now: datetime, limit: int, first_s: float) -> float:
    """How long a node is to be avoided from now on; 0: not at all. Pure."""
    recent = [each for each in losses if now - each < WINDOW]
    if len(recent) < limit:
        return 0.0
    hold_s = min(first_s * 2.0 ** (len(recent) - limit), WINDOW.total_seconds())
    return max(0.0, hold_s - (now - max(recent)).total_seconds())


class SteadinessController:
    """Taints nodes that are unsteady."""

    def __init__(
        self,
        copies: SharedCopies,
        client: Client,
        events: EventRecorder,
        clock: Clock,
        settings: FailoverSettings,
    ) -> None:
        """Before `copies.run`."""
        self._copies = copies
        self._client = client
        self._events = events
        self._clock = clock
        self._settings = settings
        self._queue: KeyedQueue[str] | None = None
        copies.nodes.listen(self._node_changed)

    async def run(self) -> None:
        """Watch over nodes, for ever."""
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue("steady", self._work, tasks.start)
            for node in self._copies.nodes.values():
                queue.mark(node.metadata.name)
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    def _node_changed(self, key: Key, old: Node | None, new: Node | None) -> None:
        if self._queue is None or new is None:
            return
        if old is None or old.spec.taints != new.spec.taints:
            self._queue.mark(key[1])

    async def _work(self, name: str) -> float | None:
        node = self._copies.nodes.get("", name)
        if node is None:
            return None
        losses, now = read_losses(node), self._clock.wall()
        known = [each for each in losses if now - each < WINDOW]
        lost_at = _lost_at(node)
        if lost_at is not None and lost_at not in known and now - lost_at < WINDOW:
            known.append(lost_at)
        settings = self._settings
        hold_s = find_hold_s(known, now, settings.unsteady_losses, settings.unsteady_hold_s)
        tainted = _is_avoided(node)
        if hold_s > 0 and not tainted and not self._may_avoid_one_more():
            hold_s = 0.0
        if (lost_at in known and lost_at not in losses) or tainted != (hold_s > 0):
            try:
                await self._write(name, known, hold_s)
            except (Conflict, NotFound):
                return RETRY_S
            except ApiError as error:
                _log.warning("unsteady node not noted", node=name, error=error.message)
                return RETRY_S
            if hold_s > 0 and not tainted:
                text = (
                    f"lost {len(known)} times within an hour: no new pods for {hold_s:.0f} s"
                    f" (taint {UNSTEADY})"
                )
                self._events.warning(subject_of("Node", node.metadata), "NodeUnsteady", text)
                _log.warning("node unsteady", node=name, losses=len(known), hold_s=round(hold_s))
        return hold_s + 0.01 if hold_s > 0 else None

    def _may_avoid_one_more(self) -> bool:
        nodes = tuple(self._copies.nodes.values())
        limit = max(1, int(self._settings.lost_share_max * len(nodes)))
        return sum(map(_is_avoided, nodes)) < limit

    async def _write(self, name: str, losses: Sequence[datetime], hold_s: float) -> None:
        document = await self._client.get(NODES, name)
        text = msgspec.json.encode([format_time(each) for each in losses]).decode()
        change: Document = {
            "metadata": {
                "resourceVersion": document["metadata"]["resourceVersion"],
                "annotations": {LOSSES: text if losses else None},
            },
            "spec": {"taints": _with_taint(document, hold_s > 0) or None},
        }
        await self._client.patch(NODES, name, change)


def read_losses(node: Node) -> list[datetime]:
    """When a node was lost lately, as its annotation says."""
    text = (node.metadata.annotations or {}).get(LOSSES, "")
    try:
        return [parse_time(each) for each in msgspec.json.decode(text, type=list[str])]
    except (msgspec.MsgspecError, ValueError):
        return []


def _is_avoided(node: Node) -> bool:
    return any(taint.key == UNSTEADY for taint in node.spec.taints or ())


def _lost_at(node: Node) -> datetime | None:
    for taint in node.spec.taints or ():
        if taint.key == UNREACHABLE and taint.time_added:
            return parse_time(taint.time_added)
    return None


def _with_taint(document: Document, wanted: bool) -> list[Any]:
    held = (document.get("spec") or {}).get("taints") or []
    taints = [taint for taint in held if taint.get("key") != UNSTEADY]
    return [*taints, {"key": UNSTEADY, "effect": NO_SCHEDULE}] if wanted else taints
