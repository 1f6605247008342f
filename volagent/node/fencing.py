"""This node as the executor of Fencings: it keeps lost nodes out of disks that it can reach.

Nothing is decided here. What names this node is tried by the fence of the disk's driver, whose
evidence becomes the status. The disk's PersistentVolume and the secret to log in with are read from
a server each time: they may have been corrected since the last attempt.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from volagent.aio.clock import Clock
from volagent.client.contract import (
    FENCINGS,
    PERSISTENT_VOLUMES,
    SECRETS,
    ApiError,
    Client,
    NotFound,
    Selection,
)
from volagent.client.fencings import FencingWorker, Outcome, Start
from volagent.client.informer import Informer
from volagent.drivers import choose_driver
from volagent.drivers.contract import (
    Credentials,
    DriverName,
    DriverTable,
    LogsIn,
    VolumeSource,
)
from volagent.drivers.errors import Rejected, Transient
from volagent.drivers.fencing.attempt import try_fence
from volagent.drivers.fencing.contract import FenceOrder, FenceTable
from volagent.drivers.fencing.unable import explain_unable
from volagent.objects.fencing import PENDING, STORAGE, Fencing
from volagent.objects.meta import Document
from volagent.objects.storage import PersistentVolume, Secret

FENCE_TIMEOUT_S: Final = 90.0
"""Of one attempt; what it has begun on the storage may be done all the same."""
_KINDS: Final = ("iscsi", "csi", "awsElasticBlockStore")


@dataclass(frozen=True, slots=True)
class _Disk:
    """A disk as a VolumeAttachment's source names it."""

    source: VolumeSource
    namespace: str
    """Where its secrets are, when they name none: that of its claim."""


class NodeFencing:
    """Carries out the Fencings that name this node."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        node: str,
        *,
        drivers: DriverTable,
        fences: FenceTable,
        start: Start,
    ) -> None:
        self._client = client
        self._clock = clock
        self._node = node
        self._drivers = drivers
        self._fences = fences
        self._start = start

    async def run(self) -> None:
        """Follow them and carry them out, for ever."""
        worker = FencingWorker(self._client, self._clock, self._node, self.attempt, self._start)
        informer = Informer(
            self._client,
            FENCINGS,
            Selection(field_selector=f"spec.executor={self._node}"),
            lambda document: msgspec.convert(document, Fencing),
            worker.saw,
        )
        try:
            await informer.run()
        finally:
            worker.stop()

    async def attempt(self, fencing: Fencing) -> Outcome | None:
        """Have one disk's storage keep its old node out."""
        if fencing.spec.method != STORAGE:
            return None
        return Outcome(*await try_fence(self._fence(fencing)))

    async def _fence(self, fencing: Fencing) -> str:
        spec = fencing.spec
        try:
            async with asyncio.timeout(FENCE_TIMEOUT_S):
                disk = await self._find_disk(fencing)
                driver = choose_driver(disk.source.kind, disk.source.body)
                fence = self._fences.get(driver)
                if fence is None:
                    raise explain_unable(driver)
                credentials = await self._fetch_credentials(driver, disk)
                order = FenceOrder(
                    disk.source, spec.volume, spec.node_name, spec.attachment.uid, credentials,
                    lambda: self._confirm(fencing),
                )  # fmt: skip
                return await fence.fence(order)
        except ApiError as error:
            raise Transient(f"no server tells about {spec.volume}: {error.message}") from error
        except TimeoutError:
            raise Transient(
                f"{spec.volume}: no outcome within {FENCE_TIMEOUT_S:g} s",
                remedy="see whether its storage answers this node",
            ) from None

    async def _confirm(self, fencing: Fencing) -> str:
        """Whether it is still wanted; an order that is old must not hit the disk's next node."""
        metadata = fencing.metadata
        try:
            now = msgspec.convert(await self._client.get(FENCINGS, metadata.name), Fencing)
        except ApiError as error:
            return f"the order may be old: {error.message}"
        same = now.metadata.uid == metadata.uid and now.status.phase == PENDING
        return "" if same else "it is not wanted any more"

    async def _find_disk(self, fencing: Fencing) -> _Disk:
        named = fencing.spec.source
        if named.inline_volume_spec is not None:
            return _Disk(_choose_source(named.inline_volume_spec, persistent=False), "")
        name = named.persistent_volume_name or ""
        try:
            document = await self._client.get(PERSISTENT_VOLUMES, name)
        except NotFound:
            raise Transient(
                f"PersistentVolume {name} is gone, so nobody knows where its disk is",
                remedy="declare it again, or say that the node is off: `volagent node confirm-off`",
            ) from None
        volume = msgspec.convert(document, PersistentVolume)
        claim = volume.spec.claim_ref
        source = _choose_source(document["spec"], persistent=True)
        return _Disk(source, claim.namespace if claim is not None else "")

    async def _fetch_credentials(self, driver: DriverName, disk: _Disk) -> Credentials | None:
        found = self._drivers.get(driver)
        if not isinstance(found, LogsIn):
            return None
        name = found.find_secret(cast("Any", found).read_options(disk.source))
        if name is None:
            return None
        where = name.namespace or disk.namespace
        try:
            document = await self._client.get(SECRETS, name.name, where)
        except NotFound:
            raise Transient(
                f"secret {where}/{name.name} not found", remedy=f"create the secret {name.name}"
            ) from None
        return Credentials(msgspec.convert(document, Secret).data or {})


def _choose_source(spec: Document, *, persistent: bool) -> VolumeSource:
    for kind in _KINDS:
        body = spec.get(kind)
        if isinstance(body, dict):
            return VolumeSource(kind, body, persistent=persistent)
    raise Rejected("the volume has no source whose storage could keep a node out")
