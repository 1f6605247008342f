"""Directories on an NFS export: the nfs-client provisioner's work, done inside.

Its classes apply unchanged: `pathPattern`, `onDelete` (delete, retain), `archiveOnDelete` ("false"
deletes; anything else, and nothing, archives). What differs is meant to: a directory is recorded
exactly, with its owner; two claims never share one unawares; nothing outside is ever entered; what
is deleted can be had back from the trash; directories have mode 0770 (or `mode`, `uid`, `gid`), not
0777. A size is a promise that no NFS client can enforce, and the volume says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from volagent.aio.clock import Clock
from volagent.drivers.contract import Done, VolumeMode
from volagent.drivers.errors import Rejected
from volagent.drivers.provisioning.contract import (
    Grown,
    ProvisionedVolume,
    ReclaimRequest,
    TrashEntry,
    VolumeRequest,
)
from volagent.drivers.provisioning.directory import CAPACITY_ENFORCED, read_ownership
from volagent.drivers.provisioning.export import Export
from volagent.drivers.provisioning.nfs_mount import NfsMount
from volagent.drivers.provisioning.nfs_paths import choose_directory
from volagent.objects.annotations import VOLUME_OWNER
from volagent.objects.meta import Document

DIRECTORY_OF: Final = "volagent.dev/nfs-directory"
"""Volume: its directory below the export's root, exactly as it was made."""
_OWN: Final = ("pathPattern", "onDelete", "archiveOnDelete")
_OWNERSHIP: Final = ("mode", "uid", "gid")


@dataclass(frozen=True, slots=True)
class NfsSubdirProvisioner:
    """Makes directories on one export, for classes that name it."""

    name: str
    mount: NfsMount
    clock: Clock
    node: str = ""

    @property
    def export(self) -> Export:
        """The export's volumes."""
        return Export(
            self.mount.perform, self.clock, self.mount.target, self.name, known_as=self.mount.source
        )

    def check(
        self, parameters: Mapping[str, str], mode: VolumeMode, access_modes: tuple[str, ...]
    ) -> None:
        """Raises `Rejected`."""
        check_parameters(self.name, parameters, mode)

    async def create(self, request: VolumeRequest) -> ProvisionedVolume:
        """Make the directory, or find it made."""
        if request.origin is not None:
            raise Rejected(f"{self.name} cannot copy volumes", remedy="copy the files")
        directory = choose_directory(request, request.parameters.get("pathPattern"))
        made = await self.export.make(
            name=request.name,
            owner=request.owner,
            directory=directory,
            claim=f"{request.claim_namespace}/{request.claim_name}",
            capacity_bytes=request.capacity_bytes,
            room_bytes=request.capacity_bytes,
            ownership=_ownership_of(request.parameters),
            on_delete=_read_on_delete(request.parameters),
        )
        directory = made.removeprefix(f"{self.mount.target}/")
        path = f"{self.mount.path.rstrip('/')}/{directory}"
        return ProvisionedVolume(
            source={"nfs": {"server": self.mount.server, "path": path}},
            capacity_bytes=request.capacity_bytes,
            annotations={DIRECTORY_OF: directory, CAPACITY_ENFORCED: "false"},
            evidence=f"{self.mount.server}:{path}, its size is not enforced",
        )

    async def reclaim(self, request: ReclaimRequest) -> Done:
        """Delete (through the trash), archive or retain, as the class said when it was made."""
        directory = request.annotations.get(DIRECTORY_OF, "")
        if not directory:
            raise Rejected(
                f"{request.name} does not say which directory of the export it is",
                remedy=f"set its annotation {DIRECTORY_OF}, or its policy to Retain",
            )
        return await self.export.reclaim(
            name=request.name, owner=request.owner, directory=directory,
            manifest=request.manifest, keep_s=request.keep_s, how="",
        )  # fmt: skip

    async def discard(self, request: VolumeRequest) -> Done:
        """Remove what `create` may have left."""
        return await self.export.discard(request.name, request.owner)

    async def grow(
        self, source: dict[str, Any], annotations: Mapping[str, str], capacity_bytes: int
    ) -> Grown:
        """Promise more, if the export has it."""
        owner = annotations.get(VOLUME_OWNER, "")
        await self.export.ask(
            "grow", name=f"pvc-{owner}", owner=owner, capacity_bytes=capacity_bytes,
            check_room=True,
        )  # fmt: skip
        return Grown("promised, not enforced", capacity_bytes, node_half=False)

    async def list_trash(self) -> list[TrashEntry]:
        """What can be had back."""
        return await self.export.list_trash()

    async def restore(self, id: str) -> Document:
        """Put an entry back."""
        return await self.export.restore(id)

    async def purge(self, id: str) -> Done:
        """Delete an entry for good."""
        return await self.export.purge(id.rpartition("/")[2])

    async def sweep(self) -> float | None:
        """Delete what has expired."""
        return await self.export.sweep()


def check_parameters(
    provisioner: str, parameters: Mapping[str, str], mode: VolumeMode, more: tuple[str, ...] = ()
) -> None:
    """What classes may say, and `more`. Raises `Rejected`."""
    if mode is VolumeMode.BLOCK:
        raise Rejected("NFS has no block devices", remedy="use volumeMode Filesystem")
    known = (*more, *_OWN, *_OWNERSHIP)
    for name in parameters:
        if name not in known:
            raise Rejected(
                f"unknown parameter {name!r} for {provisioner}",
                remedy=f"parameters: {', '.join(known)}",
            )
    _read_on_delete(parameters)
    _ownership_of(parameters)


def _read_on_delete(parameters: Mapping[str, str]) -> str:
    """`delete`, `retain` or `archive`. Raises `Rejected`."""
    chosen = parameters.get("onDelete", "")
    if chosen in ("delete", "retain"):
        return chosen
    if chosen:
        raise Rejected(f"onDelete: {chosen!r} is neither delete nor retain")
    return "delete" if parameters.get("archiveOnDelete", "").lower() == "false" else "archive"


def _ownership_of(parameters: Mapping[str, str]) -> dict[str, Any]:
    return read_ownership({name: parameters[name] for name in _OWNERSHIP if name in parameters})
