"""Takes and deletes snapshots through the provisioners that made the volumes.

One controller for both kinds of object: a change of either marks both. A node-local provisioner's
snapshots are taken by the controller of its node. A backend is asked only after the server itself
has been asked whether the content still is what it was.
"""

import asyncio
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from volagent.aio.backoff import BackOff
from volagent.aio.clock import Clock, format_time
from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import (
    PERSISTENT_VOLUMES,
    SNAPSHOT_CONTENTS,
    SNAPSHOTS,
    AlreadyExists,
    ApiError,
    Client,
    Conflict,
    NotFound,
    Resource,
)
from volagent.client.events import EventRecorder, Subject, subject_of
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.snapshot.decide import (
    CONTENT_PROTECTION,
    Adopt,
    BindContent,
    DeleteContent,
    Drop,
    MakeContent,
    Protect,
    SetStatus,
    Take,
    Unprotect,
    Wait,
    content_name,
    decide_content,
    decide_snapshot,
)
from volagent.control.snapshot.world import SnapshotWorld
from volagent.drivers.errors import DriverError, Rejected
from volagent.drivers.provisioning.contract import (
    Provisioner,
    ProvisionerTable,
    SnapshotRequest,
    Snapshots,
    SnapshotTaken,
)
from volagent.objects.meta import Document, ObjectMeta
from volagent.objects.snapshot import VolumeSnapshot, VolumeSnapshotContent
from volagent.objects.storage import PersistentVolumeClaim
from volagent.objects.volumes import PV_SOURCES
from volagent.observe.logs import get_logger

WORKERS = 4
RETRY_S = 2.0
BACKEND_RETRY = BackOff(first_s=1.0, max_s=300.0)
_SNAPSHOT, _CONTENT = "snapshot", "content"
_API = "snapshot.storage.k8s.io/v1"
_Item = tuple[str, str, str]

_log = get_logger("snapshots")


class SnapshotController:
    """Looks after VolumeSnapshots and their contents."""

    def __init__(
        self,
        copies: SharedCopies,
        client: Client,
        events: EventRecorder,
        provisioners: ProvisionerTable,
        clock: Clock,
    ) -> None:
        self._copies = copies
        self._client = client
        self._events = events
        self._provisioners: Mapping[str, Provisioner] = provisioners
        self._clock = clock
        self._world = world = SnapshotWorld(copies)
        self._snapshots = world.snapshots
        self._contents = world.contents
        self._failures: dict[str, int] = {}
        self._queue: KeyedQueue[_Item] | None = None
        self._snapshots.listen(self._snapshot_changed)
        self._contents.listen(self._content_changed)
        world.classes.listen(lambda _key, _old, _new: self._mark_waiting())
        copies.claims.listen(self._claim_changed)

    async def run(self) -> None:
        """Take and delete snapshots, for ever."""
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue("snapshot", self._work, tasks.start, width=WORKERS)
            for snapshot in self._snapshots.values():
                queue.mark((_SNAPSHOT, snapshot.metadata.namespace, snapshot.metadata.name))
            for content in self._contents.values():
                queue.mark((_CONTENT, "", content.metadata.name))
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    # -- what a change concerns --------------------------------------------------------------

    def _snapshot_changed(
        self, key: Key, old: VolumeSnapshot | None, new: VolumeSnapshot | None
    ) -> None:
        known = new or old
        if self._queue is None or known is None:
            return
        self._queue.mark((_SNAPSHOT, *key))
        self._queue.mark((_CONTENT, "", _content_of(known)))

    def _content_changed(
        self, key: Key, old: VolumeSnapshotContent | None, new: VolumeSnapshotContent | None
    ) -> None:
        known = new or old
        if self._queue is None or known is None:
            return
        self._queue.mark((_CONTENT, *key))
        reference = known.spec.volume_snapshot_ref
        self._queue.mark((_SNAPSHOT, reference.namespace, reference.name))

    def _claim_changed(
        self, _key: Key, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
    ) -> None:
        before = old.status.phase if old is not None else None
        if new is None or new.status.phase != before:
            self._mark_waiting()

    def _mark_waiting(self) -> None:
        if self._queue is None:
            return
        for snapshot in self._snapshots.values():
            if not snapshot.status.ready_to_use or snapshot.metadata.deletion_timestamp:
                self._queue.mark((_SNAPSHOT, snapshot.metadata.namespace, snapshot.metadata.name))

    # -- work --------------------------------------------------------------------------------

    async def _work(self, item: _Item) -> float | None:
        kind, namespace, name = item
        try:
            if kind == _SNAPSHOT:
                await self._work_on_snapshot(namespace, name)
                return None
            return await self._work_on_content(name)
        except (Conflict, NotFound, AlreadyExists):
            return None  # it changed meanwhile: that change marks it again
        except ApiError as error:
            _log.warning("snapshot interrupted", kind=kind, name=name, error=error.message)
            return RETRY_S

    async def _work_on_snapshot(self, namespace: str, name: str) -> None:
        snapshot = self._snapshots.get(namespace, name)
        if snapshot is None:
            return
        content = self._contents.get("", _content_of(snapshot))
        step = decide_snapshot(
            snapshot, content, self._world.source_of(snapshot), self._world.class_of(snapshot),
            is_source=self._world.is_source(snapshot),
        )  # fmt: skip
        match step:
            case Protect() | Unprotect():
                await self._set_finalizer(SNAPSHOTS, step)
            case MakeContent(document):
                await self._client.create(SNAPSHOT_CONTENTS, document)
                text = f"Waiting for a snapshot {namespace}/{name} to be created by the driver."
                self._events.normal(_subject("VolumeSnapshot", snapshot.metadata),
                                    "CreatingSnapshot", text)  # fmt: skip
            case BindContent():
                metadata = step.content.metadata
                reference = {"volumeSnapshotRef": {"uid": snapshot.metadata.uid}}
                await self._client.patch(
                    SNAPSHOT_CONTENTS, metadata.name,
                    {"metadata": _version(metadata), "spec": reference},
                )  # fmt: skip
            case SetStatus(_, status):
                await self._set_snapshot_status(snapshot, content, status)
            case DeleteContent(gone):
                metadata = gone.metadata
                await self._client.delete(SNAPSHOT_CONTENTS, metadata.name, uid=metadata.uid)
            case Wait(reason, message):
                subject = _subject("VolumeSnapshot", snapshot.metadata)
                self._events.warning(subject, reason, message)
            case None:
                return

    async def _set_snapshot_status(
        self,
        snapshot: VolumeSnapshot,
        content: VolumeSnapshotContent | None,
        status: Mapping[str, Any],
    ) -> None:
        created_ns = content.status.creation_time if content is not None else None
        created = _format_ns(created_ns) if created_ns else None
        metadata = snapshot.metadata
        body = {
            "metadata": _version(metadata),
            "status": {**status, "creationTime": created},
        }
        await self._client.patch(
            SNAPSHOTS, metadata.name, body, metadata.namespace, subresource="status"
        )
        if status["readyToUse"]:
            text = f"Snapshot {metadata.namespace}/{metadata.name} is ready to use."
            self._events.normal(_subject("VolumeSnapshot", metadata), "SnapshotReady", text)

    async def _work_on_content(self, name: str) -> float | None:
        content = self._contents.get("", name)
        if content is None:
            return None
        provisioner = self._provisioners.get(content.spec.driver)
        if not isinstance(provisioner, Snapshots) or not self._world.is_here(provisioner, content):
            return None
        reference = content.spec.volume_snapshot_ref
        snapshot = self._snapshots.get(reference.namespace, reference.name)
        exists = snapshot is not None and snapshot.metadata.uid == reference.uid
        step = decide_content(content, snapshot_exists=exists)
        match step:
            case Protect() | Unprotect():
                await self._set_finalizer(SNAPSHOT_CONTENTS, step)
            case Adopt(_, handle):
                await self._set_content_status(
                    content, {"snapshotHandle": handle, "readyToUse": True, "error": None}
                )
            case Take():
                return await self._ask(provisioner, content, self._take)
            case Drop():
                return await self._ask(provisioner, content, self._drop)
            case Wait(reason, message):
                subject = _subject("VolumeSnapshotContent", content.metadata)
                self._events.normal(subject, reason, message)
            case None:
                return None
        return None

    async def _ask(
        self, provisioner: Snapshots, content: VolumeSnapshotContent, call: Any
    ) -> float | None:
        """Ask the backend; a failure is told and, unless it is final, tried again."""
        name = content.metadata.name
        try:
            await call(provisioner, content)
        except DriverError as error:
            failures = self._failures[name] = self._failures.get(name, 0) + 1
            remedy = f"; {error.remedy}" if error.remedy else ""
            text = f"Failed to take snapshot of the volume {content.spec.source.volume_handle}: "
            message = f"{text}{error}{remedy}"
            subject = _subject("VolumeSnapshotContent", content.metadata)
            self._events.warning(subject, "SnapshotCreationFailed", message)
            if content.status.error is None or content.status.error.message != message:
                now = format_time(self._clock.wall())
                status = {"readyToUse": False, "error": {"time": now, "message": message}}
                await self._set_content_status(content, status)
            if isinstance(error, Rejected) and failures > 1:
                return None
            return BACKEND_RETRY.delay_s(failures, random.random())
        self._failures.pop(name, None)
        return None

    async def _take(self, provisioner: Snapshots, content: VolumeSnapshotContent) -> None:
        live = await self._client.get(SNAPSHOT_CONTENTS, content.metadata.name)
        if "deletionTimestamp" in live["metadata"]:
            return
        volume = self._world.volume_of(content)
        if volume is None:
            raise Rejected(
                f"the volume {content.spec.source.volume_handle} has no PersistentVolume here",
                remedy="delete the VolumeSnapshot",
            )
        document = await self._client.get(PERSISTENT_VOLUMES, volume.metadata.name)
        taken: SnapshotTaken = await provisioner.snapshot(
            SnapshotRequest(
                name=f"snapshot-{content.spec.volume_snapshot_ref.uid}",
                owner=content.metadata.uid,
                volume_name=volume.metadata.name,
                source={k: v for k, v in document["spec"].items() if k in PV_SOURCES},
                in_use=self._world.is_in_use(volume),
            )
        )
        _log.info("snapshot taken", content=content.metadata.name, evidence=taken.evidence)
        await self._set_content_status(content, {
            "snapshotHandle": taken.handle, "creationTime": taken.created_ns,
            "restoreSize": taken.size_bytes, "readyToUse": True, "error": None,
        })  # fmt: skip

    async def _drop(self, provisioner: Snapshots, content: VolumeSnapshotContent) -> None:
        live = await self._client.get(SNAPSHOT_CONTENTS, content.metadata.name)
        if live["spec"].get("deletionPolicy") != "Delete":
            return
        status = live.get("status") or {}
        handle = status.get("snapshotHandle") or content.spec.source.snapshot_handle
        if not handle:
            # Nothing was reported, yet something may have been taken: it has a name of its own.
            handle = f"snapshot-{content.spec.volume_snapshot_ref.uid}"
        await provisioner.drop_snapshot(handle, content.metadata.uid)
        await self._set_finalizer(
            SNAPSHOT_CONTENTS, Unprotect(content.metadata, CONTENT_PROTECTION)
        )

    async def _set_content_status(
        self, content: VolumeSnapshotContent, status: Mapping[str, Any]
    ) -> None:
        await self._client.patch(
            SNAPSHOT_CONTENTS, content.metadata.name, {"status": dict(status)}, subresource="status"
        )

    async def _set_finalizer(self, resource: Resource, step: Protect | Unprotect) -> None:
        metadata = step.metadata
        held = [one for one in metadata.finalizers or () if one != step.finalizer]
        wanted = [*held, step.finalizer] if isinstance(step, Protect) else held
        change: Document = {**_version(metadata), "finalizers": wanted or None}
        await self._client.patch(resource, metadata.name, {"metadata": change}, metadata.namespace)


def _content_of(snapshot: VolumeSnapshot) -> str:
    named = snapshot.spec.source.volume_snapshot_content_name
    return named or content_name(snapshot.metadata)


def _version(metadata: ObjectMeta) -> Document:
    return {"resourceVersion": metadata.resource_version}


def _subject(kind: str, metadata: ObjectMeta) -> Subject:
    return subject_of(kind, metadata, _API)


def _format_ns(created_ns: int) -> str:
    return format_time(datetime.fromtimestamp(created_ns / 1e9, UTC))
