"""Takes disks from lost nodes: the fail-over controller.

One node at a time, nodes side by side. Everything is derived from stored objects and from how long
this process itself has not seen a node's lease change; so another process can go on from between
any two writes, after it has waited a whole lease time.

(1) A node is lost when its Node says so *and* its lease has stood still for the whole time here.
(2) When more nodes are silent at once than may be, nothing is begun, for any of them.
(3) The node's permission for its exclusive disks is withheld, (4) a Fencing is made for each, and
another one instead when it gives no proof, (5) until each is proven; the attach/detach controller
does the rest. (6) A Fencing without proof goes when its node is heard of again; a proven one, when
its attachment is gone and the node does not count the disk among those it uses.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from volagent.aio.clock import Clock
from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import AlreadyExists, ApiError, Client, Conflict, NotFound
from volagent.client.events import EventRecorder
from volagent.client.shared import SharedCopies
from volagent.control.failover.decide import (
    Means,
    Prove,
    Start,
    Stay,
    Step,
    Wait,
    decide_fencing,
)
from volagent.control.failover.fencing import FencingWriter
from volagent.control.failover.lost import LostNodes
from volagent.control.failover.means import Fencers
from volagent.control.failover.telling import Teller
from volagent.control.failover.timing import FailoverTimes
from volagent.control.failover.withhold import NotLost
from volagent.control.failover.world import Stranded, find_wanting
from volagent.control.nodes.decide import is_lost
from volagent.objects.attachments import is_out_of_service
from volagent.objects.fencing import is_withheld
from volagent.objects.storage import Node
from volagent.observe.logs import get_logger
from volagent.settings_failover import FailoverSettings

WORKERS: Final = 16
RETRY_S: Final = 1.0
BRAKE_AGAIN_S: Final = 2.0

_log = get_logger("failover")


class FailoverController:
    """Has the disks of lost nodes proved free."""

    def __init__(
        self,
        copies: SharedCopies,
        client: Client,
        events: EventRecorder,
        clock: Clock,
        *,
        lost: LostNodes,
        settings: FailoverSettings,
        fencers: Fencers,
    ) -> None:
        """Before `copies.run`."""
        self._copies = copies
        self._lost = lost
        self._world = lost.world
        self._settings = settings
        self._fencers = fencers
        self._queue: KeyedQueue[str] | None = None
        self._writer = FencingWriter(client, events, clock, lost.silence, fencers)
        self._teller = Teller(client, events, clock)
        self._times = FailoverTimes(lost.world, clock, lost.lost_for_s)
        lost.listeners.append(self._mark)

    async def run(self) -> None:
        """Fail over, for ever."""
        await self._lost.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue("failover", self._work, tasks.start, width=WORKERS)
            for name in sorted(self._world.nodes()):
                queue.mark(name)
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    def _mark(self, node: str) -> None:
        if self._queue is not None:
            self._queue.mark(node)

    # -- what is known -----------------------------------------------------------------------

    def _find_held(self, node: Node) -> str:
        """Why nothing is begun for a node; "": it may be."""
        if not self._settings.enabled:
            return "failover.enabled is false"
        return self._lost.find_held(node)

    def _decide(
        self, node: Node, disks: Sequence[Stranded], means: Mapping[str, Means]
    ) -> list[tuple[Stranded, Step]]:
        ready = self._world.ready_nodes(node.metadata.name)
        return [
            (
                disk,
                decide_fencing(
                    disk.fencing, means[disk.volume], ready, self._times.age_s(disk.fencing)
                ),
            )
            for disk in disks
        ]

    def _find_means(self, node: Node, disks: Sequence[Stranded]) -> dict[str, Means]:
        name = node.metadata.name
        sources = (disk.attachment.spec.source.persistent_volume_name for disk in disks)
        begun = {source for source in sources if source}
        wanting = find_wanting(self._copies, begun)
        silent_s = self._lost.find_lease_silent_s(name)
        ready = self._world.ready_nodes(name)
        return self._fencers.find_means(node, silent_s, disks, ready, wanting)

    # -- work --------------------------------------------------------------------------------

    async def _work(self, name: str) -> float | None:
        try:
            return await self._look_after(name)
        except (Conflict, NotFound, AlreadyExists, NotLost):
            return RETRY_S  # it changed meanwhile; the change may have been seen already
        except ApiError as error:
            _log.warning("fail-over interrupted", node=name, error=error.message)
            return RETRY_S

    async def _look_after(self, name: str) -> float | None:
        node = self._copies.nodes.get("", name)
        again_s = await self._clear(name)
        if node is None:
            return again_s
        lost, for_s = is_lost(node), self._lost.lost_for_s(name)
        if not lost:
            await self._end(node, for_s)
            return again_s
        if for_s <= 0.0 or is_out_of_service(node):
            return None if is_out_of_service(node) else 0.01 - for_s
        disks = self._world.stranded(node)  # (1)
        left = [disk for disk in disks if not disk.free]
        if not left:
            await self._teller.tell_progress(node, disks, {}, "")
            return again_s
        held = self._find_held(node)  # (2)
        if held:
            await self._teller.tell_progress(node, disks, {}, held)
            return BRAKE_AGAIN_S
        return await self._go_on(node, disks)

    async def _go_on(self, node: Node, disks: Sequence[Stranded]) -> float | None:
        for disk in disks:
            if disk.fencing is not None and not disk.sound:
                if await self._writer.is_sound(disk.fencing):
                    return RETRY_S  # the copies will show it
                await self._writer.delete(disk.fencing)
                return 0.0
        steps = self._decide(node, disks, self._find_means(node, disks))
        begun = [(disk, step) for disk, step in steps if isinstance(step, Start)]
        stays = {disk.volume: step.reason for disk, step in steps if isinstance(step, Stay)}
        await self._teller.tell_progress(node, disks, stays, "")
        if begun:
            await self._writer.start(node, begun)  # (3), (4)
        again_s = [
            step.again_s
            for _, step in steps
            if isinstance(step, Wait | Stay) and step.again_s is not None
        ]
        for _, step in steps:
            if isinstance(step, Prove) and not await self._writer.prove(node, step):  # (5)
                again_s.append(RETRY_S)
        return max(0.01, min(again_s)) if again_s else None

    async def _clear(self, name: str) -> float | None:
        """(6) Fencings that nobody needs any more."""
        for fencing in self._world.fencings_of(name):
            if not self._world.is_there(fencing):
                await self._writer.clear(fencing)
        return None

    async def _end(self, node: Node, for_s: float) -> None:
        """(6) A node is heard of: what is not proven is not sought any more."""
        if for_s > 0.0:
            return  # it is about to be told that it is lost
        fencings = self._world.fencings_of(node.metadata.name)
        for fencing in fencings:
            if not self._world.is_there(fencing):
                continue
            if not fencing.proven:
                await self._writer.cancel(fencing)
            elif not is_withheld(node, fencing) and not await self._writer.is_sound(fencing):
                await self._writer.delete(fencing)  # it proves nothing, and would last for ever
        await self._teller.tell_back(node, [each for each in fencings if each.proven])

    # -- questions ---------------------------------------------------------------------------

    def explain(self, name: str, volume: str) -> tuple[str, str]:
        """What keeps a disk with a lost node, and what helps; both "" when nothing does."""
        node = self._copies.nodes.get("", name)
        if node is None or is_out_of_service(node):
            return "", ""
        disks = [disk for disk in self._world.stranded(node) if disk.volume == volume]
        if not disks or disks[0].free:
            return "", ""
        if not is_lost(node):
            unheard = self._lost.silence.find(name) is None
            return self._teller.explain_unheard(node) if unheard else ("", "")
        held = self._find_held(node)
        (_, step), *_ = self._decide(node, disks, self._find_means(node, disks))
        return self._teller.explain(node, disks[0], step, held)
