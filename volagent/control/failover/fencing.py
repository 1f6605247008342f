"""Makes, replaces, proves and clears away Fencings; each write safe to repeat or to lose.

A Fencing that has to be another one is deleted by its uid and made anew: whoever executes the old
one writes into nothing then. One that is proven stays as long as its attachment exists.
"""

from collections.abc import Sequence

import msgspec

from volagent.aio.clock import Clock, format_time
from volagent.client.contract import (
    FENCINGS,
    LEASES,
    NODES,
    VOLUME_ATTACHMENTS,
    Client,
    NotFound,
)
from volagent.client.events import EventRecorder, subject_of
from volagent.control.attach.decide import is_in_use
from volagent.control.failover.decide import Prove, Start
from volagent.control.failover.documents import fencing_document, status_proven
from volagent.control.failover.means import Fencers
from volagent.control.failover.withhold import end_withholding, withhold
from volagent.control.failover.world import Stranded
from volagent.control.nodes.silence import LEASE_NAMESPACE, SilenceWatch
from volagent.objects.fencing import Fencing, is_withheld
from volagent.objects.storage import Node
from volagent.observe.logs import get_logger

_log = get_logger("failover")


class FencingWriter:
    """Carries out what was decided about Fencings. Everything raises `ApiError`."""

    def __init__(
        self,
        client: Client,
        events: EventRecorder,
        clock: Clock,
        silence: SilenceWatch,
        fencers: Fencers,
    ) -> None:
        self._client = client
        self._events = events
        self._clock = clock
        self._silence = silence
        self._fencers = fencers

    async def start(self, node: Node, begun: Sequence[tuple[Stranded, Start]]) -> None:
        """Withhold the disks from their node, then have it kept out. Raises `NotLost`."""
        boot_id = node.status.node_info.boot_id
        for _, step in begun:
            if step.instead is not None:
                await self.delete(step.instead)
        volumes = [stranded.volume for stranded, _ in begun]
        seals = await withhold(self._client, node.metadata.name, boot_id, volumes)
        for stranded, step in begun:
            document = fencing_document(stranded, step, boot_id, seals[stranded.volume])
            await self._client.create(FENCINGS, document)
            way = step.way
            by = f" by {way.executor}" if way.executor else ""
            text = f"{stranded.volume}: it is to be kept out ({way.method}{by})"
            self._events.normal(subject_of("Node", node.metadata), "Fencing", text)
            _log.info(
                "fencing", node=node.metadata.name, volume=stranded.volume, method=way.method,
                executor=way.executor, tried=len(step.tried),
            )  # fmt: skip

    async def prove(self, node: Node, step: Prove) -> bool:
        """The watchdog's time is over: look once more whether the node was silent all the time.

        A renewal that we have not heard of yet is in the Lease already; without a Lease nobody
        knows.
        """
        name = node.metadata.name
        lease = await self._client.get(LEASES, name, LEASE_NAMESPACE)
        now = msgspec.convert(await self._client.get(NODES, name), Node)
        silent_s = self._silence.silent_s(name)
        if silent_s is None or lease["metadata"]["resourceVersion"] != self._silence.version(name):
            return False
        watchdog = self._fencers.find_watchdog(now, silent_s)
        boot_id = step.fencing.spec.boot_id
        if watchdog is None or watchdog.left_s > 0 or now.status.node_info.boot_id != boot_id:
            return False
        evidence = f"{watchdog.describe()}; it has been silent for {silent_s:.1f} s"
        change = status_proven(step.fencing, evidence, format_time(self._clock.wall()))
        await self._client.patch(FENCINGS, step.fencing.metadata.name, change, subresource="status")
        return True

    async def is_sound(self, fencing: Fencing) -> bool:
        """Whether the node has got no permission for the disk since it was decided on, in truth:
        copies of different kinds may be apart by a moment."""
        node = msgspec.convert(await self._client.get(NODES, fencing.spec.node_name), Node)
        return is_withheld(node, fencing)

    async def cancel(self, fencing: Fencing) -> None:
        """The node is heard of again before there was a proof: it keeps the disk."""
        metadata = fencing.metadata
        await self._client.delete(
            FENCINGS, metadata.name, uid=metadata.uid, resource_version=metadata.resource_version
        )
        _log.info("fencing cancelled", node=fencing.spec.node_name, volume=fencing.spec.volume)

    async def delete(self, fencing: Fencing) -> None:
        """Have it replaced by another one."""
        try:
            await self._client.delete(
                FENCINGS, fencing.metadata.name, uid=fencing.metadata.uid,
                resource_version=fencing.metadata.resource_version,
            )  # fmt: skip
        except NotFound:
            return

    async def clear(self, fencing: Fencing) -> bool:
        """Remove one whose attachment is gone, when its node has given the disk up, too.

        False while it has not.
        """
        spec = fencing.spec
        try:
            found = await self._client.get(VOLUME_ATTACHMENTS, spec.attachment.name)
        except NotFound:
            found = None
        if found is not None and found["metadata"]["uid"] == spec.attachment.uid:
            return False
        try:
            node = msgspec.convert(await self._client.get(NODES, spec.node_name), Node)
        except NotFound:
            node = None
        if fencing.proven and node is not None and is_in_use(node, spec.volume):
            return False
        if node is not None:
            await end_withholding(self._client, spec.node_name, spec.volume)
        await self.delete(fencing)
        _log.info("fencing cleared", node=spec.node_name, volume=spec.volume)
        return True
