"""The node's half of a growth: tells the claim once the file system has followed its volume.

That the file system is made larger is the plan's work (`Expand`, or staging, which fills the
device); here it is only looked whether it was done, and written. Runs for one volume at a time.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from volagent.client.contract import CLAIMS, ApiError, Client, Conflict, NotFound
from volagent.client.events import EventRecorder, subject_of
from volagent.client.informer import Key, Listener
from volagent.drivers.contract import VolumeKey, VolumeMode
from volagent.node.actual import Actual
from volagent.node.index import DesiredIndex
from volagent.node.plan import Wanted
from volagent.node.records import Held, VolumeRecord
from volagent.node.world import NodeWorld
from volagent.objects.growth import awaits_node, size_of, status_settled
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim
from volagent.observe.logs import get_logger

_SHARED = "pv/"
"""The beginning of the keys of persistent volumes that have a device here."""

_log = get_logger("node")


def has_followed(wanted: Wanted, found: VolumeRecord, capacity_bytes: int) -> bool:
    """Whether what is mounted here has the size that its volume is declared with."""
    if (wanted.spec.capacity_bytes or 0) < capacity_bytes:
        return False  # the declaration on this node is older
    ready = found.attached if wanted.spec.mode is VolumeMode.BLOCK else found.staged
    if ready is not Held.YES:
        return False
    size = found.device.size_bytes if found.device is not None else 0
    return size == 0 or size >= capacity_bytes


class GrowthReporter:
    """Finishes growths whose file systems are on this node."""

    def __init__(
        self,
        client: Client,
        events: EventRecorder,
        world: NodeWorld,
        index: DesiredIndex,
        actual: Actual,
        start: Callable[[str, Coroutine[Any, Any, None]], object],
    ) -> None:
        self._client = client
        self._events = events
        self._world = world
        self._index = index
        self._actual = actual
        self._start = start

    def look(self, key: VolumeKey) -> None:
        """Something was done for a volume: maybe what its claim's growth waits for."""
        if key.startswith(_SHARED):
            self._look(key, key.removeprefix(_SHARED))

    def listen(self, listener: Listener[PersistentVolumeClaim]) -> Listener[PersistentVolumeClaim]:
        """A listener for claims that looks at their growth after it has told `listener`."""

        def changed(
            key: Key, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
        ) -> None:
            listener(key, old, new)
            if new is not None and awaits_node(new):
                self._look(VolumeKey(f"{_SHARED}{new.spec.volume_name}"), new.spec.volume_name)

        return changed

    def _look(self, key: VolumeKey, name: str) -> None:
        wanted, found = self._index.wanted(key), self._actual.get(key)
        if wanted is None or found is None:
            return
        volume = self._world.volumes.get("", name)
        claim = self._claim_of(volume)
        if volume is None or claim is None or not awaits_node(claim):
            return
        if has_followed(wanted, found, size_of(volume.spec.capacity)):
            self._start(f"growth of {name}", self._finish(name))

    async def _finish(self, name: str) -> None:
        """Write the claim's new capacity. A lost race is left to the change that won."""
        volume = self._world.volumes.get("", name)
        claim = self._claim_of(volume)
        if volume is None or claim is None or not awaits_node(claim):
            return
        metadata = claim.metadata
        body = {
            "metadata": {"resourceVersion": metadata.resource_version},
            "status": status_settled(claim, volume),
        }
        try:
            await self._client.patch(
                CLAIMS, metadata.name, body, metadata.namespace, subresource="status"
            )
        except (Conflict, NotFound):
            return
        except ApiError as error:
            _log.warning("growth not reported", volume=name, error=error.message)
            return
        text = f'MountVolume.NodeExpandVolume succeeded for volume "{name}"'
        subject = subject_of("PersistentVolumeClaim", metadata)
        self._events.normal(subject, "FileSystemResizeSuccessful", text)

    def _claim_of(self, volume: PersistentVolume | None) -> PersistentVolumeClaim | None:
        reference = volume.spec.claim_ref if volume is not None else None
        if reference is None:
            return None
        claim = self._world.claims.get(reference.namespace, reference.name)
        return claim if claim is not None and claim.metadata.uid == reference.uid else None
