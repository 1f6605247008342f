"""nfs.volagent.dev: a directory of a storage node for each claim, for many nodes at once.

Sizes are enforced by project quotas where the file system has them (ext4, xfs, mounted with
`prjquota`), and promised elsewhere; what is promised counts against the pool either way. Making a
volume shows it to nobody: that comes with its attachment (`drivers/showing`).
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from volagent.drivers.contract import Done, VolumeMode
from volagent.drivers.errors import Rejected, Transient
from volagent.drivers.provisioning.contract import (
    Grown,
    ProvisionedVolume,
    ReclaimRequest,
    TrashEntry,
    VolumeRequest,
)
from volagent.drivers.provisioning.directory import CAPACITY_ENFORCED, read_ownership
from volagent.drivers.provisioning.export import Export
from volagent.drivers.provisioning.storage_pool import StoragePool
from volagent.drivers.showing.contract import Shower
from volagent.objects.annotations import VOLUME_OWNER
from volagent.objects.meta import Document
from volagent.objects.storage_nodes import NFS_PROVISIONER, STORAGE_NODE


@dataclass(frozen=True, slots=True)
class SharedDirectoryProvisioner:
    """Makes directories that are shown by NFS."""

    export: Export
    pool: StoragePool
    shower: Shower
    storage_node: str
    server: str
    """Where nodes reach this machine."""
    name: str = NFS_PROVISIONER
    node: str = ""
    _promising: asyncio.Lock = field(default_factory=asyncio.Lock)

    def check(
        self, parameters: Mapping[str, str], mode: VolumeMode, access_modes: tuple[str, ...]
    ) -> None:
        """Raises `Rejected`."""
        if mode is VolumeMode.BLOCK:
            raise Rejected(
                f"{self.name} makes no block devices", remedy="use a class of iscsi.volagent.dev"
            )
        read_ownership(parameters)

    async def create(self, request: VolumeRequest) -> ProvisionedVolume:
        """Make the directory, or find it made."""
        if request.origin is not None:
            raise Rejected(
                f"{self.name} cannot copy volumes", remedy="use a class of iscsi.volagent.dev"
            )
        async with self._promising:
            if not os.path.exists(f"{self.export.path}/{request.name}"):
                self.pool.refuse_overcommitment(request.capacity_bytes)
            made = await self.export.make_limited(
                name=request.name, owner=request.owner,
                claim=f"{request.claim_namespace}/{request.claim_name}",
                capacity_bytes=request.capacity_bytes,
                ownership=read_ownership(request.parameters),
            )  # fmt: skip
        limited = f"project quota {made.project}"
        unlimited = f"capacity not enforced: {made.unlimited}"
        source: dict[str, Any] = {
            "driver": self.name,
            "volumeHandle": request.name,
            "volumeAttributes": {"server": self.server, "path": made.path},
        }
        return ProvisionedVolume(
            source={"csi": source},
            capacity_bytes=request.capacity_bytes,
            annotations={
                STORAGE_NODE: self.storage_node,
                CAPACITY_ENFORCED: "true" if made.project else "false",
            },
            evidence=f"directory on {self.storage_node}, {limited if made.project else unlimited}",
        )

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
        """Remove what `create` may have left."""
        return await self.export.discard(request.name, request.owner)

    async def grow(
        self, source: dict[str, Any], annotations: Mapping[str, str], capacity_bytes: int
    ) -> Grown:
        """Promise more, if there is as much; a quota is raised."""
        name = self._name_of(source)
        async with self._promising:
            more_bytes = capacity_bytes - self.pool.size_of(name)
            if more_bytes > 0:
                self.pool.refuse_overcommitment(more_bytes)
            answer = await self.export.ask(
                "grow", name=name, owner=annotations.get(VOLUME_OWNER, ""),
                capacity_bytes=capacity_bytes, check_room=self.pool.overcommit <= 1,
            )  # fmt: skip
        project = answer.get("record", {}).get("project", 0)
        evidence = f"project quota {project} raised" if project else "promised, not enforced"
        return Grown(evidence, capacity_bytes, node_half=False)

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
        """The volume of a source that this provisioner made. Raises `Rejected`."""
        csi = source.get("csi") or {}
        name = str(csi.get("volumeHandle", ""))
        path = str((csi.get("volumeAttributes") or {}).get("path", ""))
        if csi.get("driver") != self.name or path != f"{self.export.path}/{name}":
            raise Rejected(
                f"{name or 'the volume'} is no directory that {self.storage_node} has made",
                remedy="was storage.directory changed? A volume declared by hand is dealt with by"
                " hand",
            )
        return name
