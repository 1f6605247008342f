"""iscsi.volagent.dev: a disk of a storage node for each claim, which nodes reach by iSCSI.

Each volume is a directory that holds, or leads to, its content (`disk_content.py`), so that owner
marker, trash and restore are those of directories (`export.py`). Making a volume shows it to
nobody: that comes with its attachment (`drivers/showing`). The PersistentVolume is a plain `iscsi`
one, with CHAP and an initiator's name that has to be let in, so the node's half is that of any
target.

Copies share blocks where the content can (thin volumes; files on xfs and btrfs); one of a volume
that is shown to a node is taken only so, and is what the disk held at that moment, as after a power
cut: a journal deals with that.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from volagent.drivers.contract import Done, VolumeMode
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.provisioning.contract import (
    Grown,
    Origin,
    OutOfSpace,
    ProvisionedVolume,
    ReclaimRequest,
    SnapshotRequest,
    SnapshotTaken,
    TrashEntry,
    VolumeRequest,
)
from volagent.drivers.provisioning.disk_content import DiskContent
from volagent.drivers.provisioning.export import Export
from volagent.drivers.provisioning.image import (
    FS_TYPE_PARAMETERS,
    FS_TYPES,
    explain_image,
    fs_type_of,
)
from volagent.drivers.showing.iscsi import IscsiShower
from volagent.host.contract import Host
from volagent.host.errors import HostError
from volagent.objects.annotations import VOLUME_OWNER
from volagent.objects.meta import Document
from volagent.objects.storage_nodes import (
    CHAP_NAMESPACE,
    ISCSI_PROVISIONER,
    STORAGE_NODE,
    chap_secret,
)

_OWNERSHIP: Final = {"mode": 0o700, "uid": None, "gid": None}


@dataclass(frozen=True, slots=True)
class IscsiProvisioner:
    """Makes disks in one directory of this machine."""

    export: Export
    content: DiskContent
    host: Host
    shower: IscsiShower
    storage_node: str
    iqn_base: str
    portals: Sequence[str]
    name: str = ISCSI_PROVISIONER
    node: str = ""
    _promising: asyncio.Lock = field(default_factory=asyncio.Lock)

    def check(
        self, parameters: Mapping[str, str], mode: VolumeMode, access_modes: tuple[str, ...]
    ) -> None:
        """Raises `Rejected`."""
        for name in parameters:
            if name not in FS_TYPE_PARAMETERS:
                raise Rejected(
                    f"unknown parameter {name!r} for {self.name}",
                    remedy=f"parameters of {self.name}: {', '.join(FS_TYPE_PARAMETERS)},"
                    f" {STORAGE_NODE}",
                )
        if fs_type_of(parameters) not in FS_TYPES:
            raise Rejected(
                f"{self.name} does not make {fs_type_of(parameters)!r}",
                remedy=f"one of {', '.join(FS_TYPES)}",
            )
        if "ReadWriteMany" in access_modes and mode is VolumeMode.FILESYSTEM:
            raise Rejected(
                "a disk's file system is destroyed when several nodes write to it",
                remedy="ask for ReadWriteOnce, for volumeMode Block, or a class of"
                " nfs.volagent.dev",
            )

    async def create(self, request: VolumeRequest) -> ProvisionedVolume:
        """Make the disk, or find it made."""
        name, content, evidence = request.name, self.content, "empty disk"
        async with self._promising:
            size_bytes = await content.round_up(request.capacity_bytes)
            if await content.size_of(name) is None:
                origin = self._find_origin(request.origin) if request.origin is not None else ""
                await content.refuse_overcommitment(size_bytes, origin)
            await self._make_directory(name, request.owner, request)
            if request.origin is not None:
                evidence = await self._fill(request, size_bytes)
            await content.make(name, request.owner, size_bytes)
        body: dict[str, Any] = {
            "targetPortal": self.portals[0],
            "iqn": f"{self.iqn_base}.{request.name}",
            "lun": 0,
            "chapAuthSession": True,
            "secretRef": {
                "name": chap_secret(request.name, self.storage_node),
                "namespace": CHAP_NAMESPACE,
            },
        }
        if len(self.portals) > 1:
            body["portals"] = list(self.portals[1:])
        if request.mode is VolumeMode.FILESYSTEM:
            body["fsType"] = await self._choose_fs_type(request)
        return ProvisionedVolume(
            source={"iscsi": body},
            capacity_bytes=size_bytes,
            annotations={STORAGE_NODE: self.storage_node},
            evidence=f"{evidence} on {self.storage_node}",
        )

    async def _make_directory(self, name: str, owner: str, request: VolumeRequest | None) -> None:
        claim = f"{request.claim_namespace}/{request.claim_name}" if request is not None else ""
        size_bytes = request.capacity_bytes if request is not None else 0
        await self.export.make(
            name=name, owner=owner, directory=name, claim=claim, capacity_bytes=size_bytes,
            room_bytes=self.content.room_for(size_bytes), ownership=_OWNERSHIP,
        )  # fmt: skip

    async def _fill(self, request: VolumeRequest, size_bytes: int) -> str:
        assert request.origin is not None
        name = self._find_origin(request.origin)
        held_bytes = await self.content.size_of(name) if name else None
        if held_bytes is None:
            raise OutOfSpace(
                f"what is to be copied is not on {self.storage_node}",
                remedy="a copy is made on the storage node where its original is",
            )
        if held_bytes > size_bytes:
            raise Rejected(
                "the copy would be smaller than what is copied",
                remedy="ask for at least the size of what is copied",
            )
        return await self._copy(name, request.name, request.owner, fresh_identity=True)

    def _find_origin(self, origin: Origin) -> str:
        """The volume or snapshot here that is to be copied, "" for one of another storage node."""
        if not origin.source:
            return self._snapshot_of(origin.snapshot)
        iqn = str((origin.source.get("iscsi") or {}).get("iqn", ""))
        return self._name_of(origin.source) if iqn.startswith(f"{self.iqn_base}.") else ""

    async def _copy(self, name: str, copy: str, owner: str, *, fresh_identity: bool) -> str:
        shown = name in await self.shower.list_shown()
        shared = await self.content.copy(
            name, copy, owner, fresh_identity=fresh_identity, in_use=shown
        )
        how = "shares its blocks with the original" if shared else "copied"
        return f"{how}, as after a power cut" if shown else how

    async def _choose_fs_type(self, request: VolumeRequest) -> str:
        """A copy has the file system of its original, whatever the class says."""
        if request.origin is not None:
            path = self.content.path(request.name)
            try:
                found = (await self.host.devices.probe(path)).fs_type
            except HostError as error:
                raise explain_image(error, path) from error
            if found:
                return found
        return fs_type_of(request.parameters)

    async def reclaim(self, request: ReclaimRequest) -> Done:
        """Into the trash, or away; not while it is shown to anybody."""
        name = self._name_of(request.source)
        nodes = (await self.shower.list_shown()).get(name, ())
        if nodes:
            raise Transient(
                f"{name} is still shown to {', '.join(nodes)}",
                remedy="it goes when it is detached there: see `kubectl get volumeattachments`",
            )
        return await self.export.reclaim(
            name=request.name, owner=request.owner, directory=name,
            manifest=request.manifest, keep_s=request.keep_s,
        )  # fmt: skip

    async def discard(self, request: VolumeRequest) -> Done:
        """Remove what `create` may have left; its claim never had it."""
        return await self._drop(request.name, request.owner)

    async def _drop(self, name: str, owner: str) -> Done:
        done = await self.export.discard(name, owner)
        if done.evidence == "content":  # the file or link itself
            return await self.export.purge(name)
        return done

    async def grow(
        self, source: dict[str, Any], annotations: Mapping[str, str], capacity_bytes: int
    ) -> Grown:
        """Make the disk larger where it is and as it is shown; the node takes its half after."""
        name = self._name_of(source)
        async with self._promising:
            wanted_bytes = await self.content.round_up(capacity_bytes)
            more_bytes = wanted_bytes - await self._size_of(name)
            if more_bytes > 0:
                await self.content.refuse_overcommitment(more_bytes, name)
            await self.export.ask(
                "grow", name=name, owner=annotations.get(VOLUME_OWNER, ""),
                capacity_bytes=wanted_bytes,
                check_room=self.content.room_for(capacity_bytes) > 0,
            )  # fmt: skip
            await self.content.grow(name, wanted_bytes)
        shown = await self.shower.resize(name)
        evidence = "made larger, where it is shown too" if shown else "made larger"
        return Grown(evidence, wanted_bytes, node_half=True)

    async def snapshot(self, request: SnapshotRequest) -> SnapshotTaken:
        """Copy the disk, or find it copied."""
        name, content = self._name_of(request.source), self.content
        async with self._promising:
            size_bytes = await self._size_of(name)
            evidence = "copied"
            if await content.size_of(request.name) is None:
                await content.refuse_overcommitment(size_bytes, name)
                await self._make_directory(request.name, request.owner, None)
                evidence = await self._copy(name, request.name, request.owner, fresh_identity=False)
        created_ns = await content.made_ns(request.name)
        handle = f"{self.storage_node}/{request.name}"
        return SnapshotTaken(evidence, handle, size_bytes, created_ns)

    async def _size_of(self, name: str) -> int:
        size_bytes = await self.content.size_of(name)
        if size_bytes is None:
            path = self.content.path(name)
            raise Uncertain(f"{path} has no content", remedy="is its disk there, and mounted?")
        return size_bytes

    async def drop_snapshot(self, handle: str, owner: str) -> Done:
        """Delete a copy; gone is a success."""
        return await self._drop(self._snapshot_of(handle), owner)

    async def list_trash(self) -> list[TrashEntry]:
        """What can be had back."""
        return await self.export.list_trash()

    async def restore(self, id: str) -> Document:
        """Put an entry back; it is shown when it is attached again."""
        return await self.export.restore(id)

    async def purge(self, id: str) -> Done:
        """Delete an entry for good."""
        return await self.export.purge_entry(id)

    async def sweep(self) -> float | None:
        """Delete what has expired."""
        return await self.export.sweep()

    def _name_of(self, source: Mapping[str, Any]) -> str:
        """The volume of a source that this storage node made. Raises `Rejected`."""
        iqn, prefix = str((source.get("iscsi") or {}).get("iqn", "")), f"{self.iqn_base}."
        name = iqn.removeprefix(prefix)
        if not iqn.startswith(prefix) or "/" in name or name in ("", ".", ".."):
            raise Rejected(
                f"{iqn or 'the volume'} is no disk that {self.storage_node} has made",
                remedy="a disk declared by hand is dealt with by hand; was storage.iqn changed?",
            )
        return name

    def _snapshot_of(self, handle: str) -> str:
        node, _, name = handle.partition("/")
        if not name.startswith("snapshot-") or "/" in name:
            raise Rejected(f"{handle!r} is no snapshot of {self.name}", remedy="correct the source")
        if node != self.storage_node:
            raise OutOfSpace(f"{name} is on {node}", remedy="a copy is made where its original is")
        return name
