"""Keeps the PersistentVolumes of this VM's discovery directories in step with what is there.

Looks again when an entry of a directory, the mount table or one of the volumes changed, and once in
a while for what tells nobody (a disk that changed its size). Cleaning may take long and is done
beside the looking, one operation per volume; a volume is deleted only after its data is gone.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    CLAIMS,
    PERSISTENT_VOLUMES,
    AlreadyExists,
    ApiError,
    Client,
    Conflict,
    NotFound,
)
from volagent.client.events import EventRecorder, subject_of
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.discover.decide import (
    Clean,
    Doubt,
    Found,
    LetGo,
    Offer,
    Rule,
    Step,
    decide,
    maker_name,
)
from volagent.host.contract import Closeable, MountChanges
from volagent.host.errors import Absent, Busy, HostError
from volagent.host.local_storage import Place, Unusable
from volagent.objects.annotations import PROVISIONED_BY, RECLAIM_PROTECTION
from volagent.objects.storage import PersistentVolume
from volagent.observe.logs import get_logger

LOOK_AGAIN_S = 300.0
"""A safety net for what no event tells."""
SETTLE_S = 0.05
"""A disk that is mounted makes several changes; they are looked at together."""
RETRY_S = 5.0

_log = get_logger("discovery")


class Storage(Protocol):
    """What there is on this VM, and how it is emptied (`host/local_storage.py`)."""

    async def scan(
        self, directory: str, *, plain_directories: bool
    ) -> tuple[list[Place], list[Unusable]]:
        """What is in a directory."""

    async def empty(self, place: Place) -> int:
        """Remove everything in a file system or directory."""

    async def wipe(self, place: Place) -> None:
        """Zero a whole disk."""


class Watches(Protocol):
    """How changes of the VM are heard of."""

    def watch_mounts(self, on_change: Callable[[MountChanges], None]) -> Closeable:
        """Call when mounts come and go."""

    def watch_directory(self, path: str, on_change: Callable[[], None]) -> Closeable:
        """Call when a directory's entries come and go. Raises `HostError`."""


class Discovery:
    """Offers what is found, cleans what is released."""

    def __init__(
        self,
        copies: SharedCopies,
        client: Client,
        events: EventRecorder,
        *,
        storage: Storage,
        watches: Watches,
        node_name: str,
        rules: Sequence[Rule],
    ) -> None:
        self._copies = copies
        self._client = client
        self._events = events
        self._storage = storage
        self._watches = watches
        self._node = node_name
        self._rules = tuple(rules)
        self._maker = maker_name(node_name)
        self._wake = asyncio.Event()
        self._cleaning: set[str] = set()
        self._cleaned: set[str] = set()
        self._told: dict[str, str] = {}
        """Path → what was last said of it, so that nothing is said twice."""
        self._mine: dict[str, PersistentVolume] = {}
        copies.volumes.listen(self._volume_changed)

    async def run(self) -> None:
        """Discover, for ever."""
        await self._copies.wait_synced()
        mounts = self._watches.watch_mounts(lambda _changes: self._wake.set())
        watched: dict[str, Closeable] = {}
        try:
            async with Supervisor() as tasks:
                while True:
                    self._watch_directories(watched)
                    self._wake.clear()
                    in_order = await self._look(tasks.start)
                    await self._pause(LOOK_AGAIN_S if in_order else RETRY_S)
        finally:
            mounts.close()
            for watch in watched.values():
                watch.close()

    async def _pause(self, at_most_s: float) -> None:
        try:
            async with asyncio.timeout(at_most_s):
                await self._wake.wait()
                await asyncio.sleep(SETTLE_S)
        except TimeoutError:
            return

    def _watch_directories(self, watched: dict[str, Closeable]) -> None:
        for rule in self._rules:
            if rule.directory in watched:
                continue
            try:
                watched[rule.directory] = self._watches.watch_directory(
                    rule.directory, self._wake.set
                )
            except HostError as error:
                self._tell(rule.directory, str(error))

    def _volume_changed(
        self, key: Key, old: PersistentVolume | None, new: PersistentVolume | None
    ) -> None:
        known = new or old
        assert known is not None
        if (known.metadata.annotations or {}).get(PROVISIONED_BY) != self._maker:
            return
        if new is None:
            self._mine.pop(key[1], None)
            self._cleaned.discard(known.metadata.uid)
        else:
            self._mine[key[1]] = new
        self._wake.set()

    async def _look(self, start: Callable[[str, Coroutine[Any, Any, None]], object]) -> bool:
        """Look at all directories and do what is to be done; False when something has to wait."""
        in_order = True
        for rule in self._rules:
            try:
                places, unusable = await self._storage.scan(
                    rule.directory, plain_directories=rule.plain_directories
                )
            except HostError as error:
                self._tell(rule.directory, str(error))
                in_order = False
                continue
            self._told.pop(rule.directory, None)
            for entry in unusable:
                self._tell(entry.path, entry.reason)
            found = [Found(p.path, p.kind, p.size_bytes, p.identity) for p in places]
            for step in decide(self._node, rule, found, self._mine, frozenset(self._cleaned)):
                in_order &= await self._carry_out(step, start)
        return in_order

    async def _carry_out(
        self, step: Step, start: Callable[[str, Coroutine[Any, Any, None]], object]
    ) -> bool:
        try:
            match step:
                case Offer(document):
                    await self._client.create(PERSISTENT_VOLUMES, document)
                    name = document["metadata"]["name"]
                    path = document["spec"]["local"]["path"]
                    _log.info("local volume offered", volume=name, path=path)
                case Clean(volume, found):
                    if volume.metadata.uid not in self._cleaning:
                        self._cleaning.add(volume.metadata.uid)
                        start(f"clean {found.path}", self._clean(volume, found))
                case LetGo(volume):
                    await self._let_go(volume)
                case Doubt(volume, message):
                    if self._told.get(volume.metadata.name) != message:
                        self._told[volume.metadata.name] = message
                        subject = subject_of("PersistentVolume", volume.metadata)
                        self._events.warning(subject, "LocalVolumeChanged", message)
                        _log.warning("local volume in doubt", volume=volume.metadata.name,
                                     detail=message)  # fmt: skip
        except (AlreadyExists, Conflict, NotFound):
            return True  # it changed meanwhile, and that change wakes us
        except ApiError as error:
            _log.warning("discovery interrupted", error=error.message)
            return False
        return True

    async def _clean(self, volume: PersistentVolume, found: Found) -> None:
        """Remove a released volume's data, then let its object go."""
        subject = subject_of("PersistentVolume", volume.metadata)
        place = Place(found.path, found.kind, found.size_bytes, found.identity)
        try:
            if not await self._is_given_up(volume):
                return
            if found.kind == "block":
                await self._storage.wipe(place)
            else:
                await self._storage.empty(place)
            self._cleaned.add(volume.metadata.uid)
            _log.info("local volume cleaned", volume=volume.metadata.name, path=found.path)
        except (Busy, Absent, HostError) as error:
            text = f"cannot clean {found.path}: {error}; it is tried again"
            self._events.warning(subject, "VolumeFailedDelete", text)
            _log.warning("local volume not cleaned", volume=volume.metadata.name, error=str(error))
            await asyncio.sleep(RETRY_S)
        except ApiError as error:
            _log.warning("discovery interrupted", error=error.message)
            await asyncio.sleep(RETRY_S)
        finally:
            self._cleaning.discard(volume.metadata.uid)
            self._wake.set()

    async def _is_given_up(self, volume: PersistentVolume) -> bool:
        """Whether the server, too, knows of nobody who has the volume: a copy may be old."""
        document = await self._client.get(PERSISTENT_VOLUMES, volume.metadata.name)
        spec = document["spec"]
        if document["metadata"]["uid"] != volume.metadata.uid:
            return False
        if spec.get("persistentVolumeReclaimPolicy") != "Delete":
            return False
        reference = spec.get("claimRef")
        if reference is None:
            return "deletionTimestamp" in document["metadata"]
        try:
            claim = await self._client.get(CLAIMS, reference["name"], reference["namespace"])
        except NotFound:
            return True
        return bool(claim["metadata"]["uid"] != reference.get("uid"))

    async def _let_go(self, volume: PersistentVolume) -> None:
        metadata = volume.metadata
        left = [one for one in metadata.finalizers or () if one != RECLAIM_PROTECTION]
        if len(left) != len(metadata.finalizers or ()):
            change = {"resourceVersion": metadata.resource_version, "finalizers": left or None}
            await self._client.patch(PERSISTENT_VOLUMES, metadata.name, {"metadata": change})
        if metadata.deletion_timestamp is None:
            await self._client.delete(PERSISTENT_VOLUMES, metadata.name, uid=metadata.uid)

    def _tell(self, path: str, reason: str) -> None:
        if self._told.get(path) != reason:
            self._told[path] = reason
            _log.warning("not offered as a volume", path=path, reason=reason)
