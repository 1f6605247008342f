"""Who still uses a pod's volumes when somebody else started the containers.

A container keeps its own copies of the mounts it was given, in its own mount namespace: our unmount
would succeed and the container go on with volumes that nobody keeps any more. So, when a pod is
deleted with grace, its volumes are held until no other namespace shows them, or the grace is over.

One look serves all pods that ask meanwhile: it costs one reading of the mount table and one walk
over the processes, whatever the number of pods.
"""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from volagent.host.contract import Holder, Host, MountEntry, MountId
from volagent.host.errors import HostError
from volagent.node.actual import Actual
from volagent.objects.meta import PodUid
from volagent.observe.logs import get_logger

_log = get_logger("node")


@dataclass(slots=True)
class PulledMounts:
    """Finds foreign mount namespaces that show a pod's volumes."""

    host: Host
    actual: Actual
    start: Callable[[str, Coroutine[Any, Any, None]], object]
    _asked: dict[PodUid, list[asyncio.Future[Holder | None]]] = field(default_factory=dict)
    _looking: bool = False

    async def find_holder(self, uid: PodUid) -> Holder | None:
        """Somebody who still shows one of the pod's volumes, or None."""
        answer: asyncio.Future[Holder | None] = asyncio.get_running_loop().create_future()
        self._asked.setdefault(uid, []).append(answer)
        if not self._looking:
            self._looking = True
            self.start("look for holders", self._look())
        return await answer

    async def _look(self) -> None:
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                holders = await self._find(asked)
                for uid, answers in asked.items():
                    for answer in answers:
                        if not answer.done():
                            answer.set_result(holders.get(uid))
        finally:
            self._looking = False

    async def _find(self, uids: Iterable[PodUid]) -> dict[PodUid, Holder]:
        try:
            entries = self.host.mounts.read_table().entries
            owners: dict[MountId, PodUid] = {}
            shown: list[MountEntry] = []
            by_id = {entry.mount_id: entry for entry in entries}
            numbers = itertools.count(-1, -1)
            for uid in uids:
                for entry in self._mounts_of(uid, by_id, entries, numbers):
                    owners[entry.mount_id] = uid
                    shown.append(entry)
            holding = await self.host.holders.namespaces_holding(shown)
        except HostError as error:
            _log.warning("not known who uses the volumes", error=str(error))
            return {}
        return {owners[mount_id]: holder for mount_id, holder in holding.items()}

    def _mounts_of(
        self,
        uid: PodUid,
        by_id: dict[MountId, MountEntry],
        entries: tuple[MountEntry, ...],
        numbers: Iterator[int],
    ) -> Iterator[MountEntry]:
        """What a container of the pod would show; plain directories as if they were mounted."""
        for key in self.actual.keys_of(uid):
            record = self.actual.get(key)
            use = record.uses.get(uid) if record is not None else None
            if use is None or not use.mount.path:
                continue
            entry = by_id.get(MountId(use.mount.mount_id))
            if entry is not None:
                yield entry
            elif f"/pods/{uid}/" in use.mount.path:
                yield _as_if_mounted(use.mount.path, entries, MountId(next(numbers)))


def _as_if_mounted(path: str, entries: tuple[MountEntry, ...], mount_id: MountId) -> MountEntry:
    below = entries[0]
    for entry in entries:
        point = entry.mount_point.rstrip("/")
        if path.startswith(f"{point}/") and len(point) >= len(below.mount_point.rstrip("/")):
            below = entry
    inside = path[len(below.mount_point.rstrip("/")) :]
    root = f"{below.root.rstrip('/')}{inside}"
    return MountEntry(
        mount_id, below.mount_id, below.device, root, path, below.fs_type, below.source
    )
