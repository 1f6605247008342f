"""image.volagent.dev: an image file of this VM for each claim, with a file system or raw.

Each volume is a directory of its own with one file, `disk.img`, so that owner marker, trash and
restore are those of directories (`export.py`). The size is enforced by nature; the file is
sparse, so what it may take is checked when it is made or grown, against what is free then.

Copies (`dataSource`, snapshots) share blocks where the file system below can (btrfs, xfs). A volume
that is in use is copied only so, with its file system held still for that moment; elsewhere it has
to be out of use. A copy's file system gets an identity of its own where the kernel needs one to
mount both at once.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from volagent.drivers.contract import Done, VolumeMode
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.image import IMAGE
from volagent.drivers.provisioning.contract import (
    Grown,
    OutOfSpace,
    ProvisionedVolume,
    ReclaimRequest,
    SnapshotRequest,
    SnapshotTaken,
    TrashEntry,
    VolumeRequest,
)
from volagent.drivers.provisioning.export import Export, affinity_to
from volagent.drivers.provisioning.image_copies import ImageCopies
from volagent.host.contract import Host
from volagent.host.errors import Absent, HostError
from volagent.objects.meta import Document

FILE: Final = "disk.img"
DEFAULT_FS_TYPE: Final = "ext4"
FS_TYPES: Final = ("ext4", "xfs", "btrfs")
FS_TYPE_PARAMETERS: Final = ("csi.storage.k8s.io/fstype", "fsType")
_OWNERSHIP: Final = {"mode": 0o700, "uid": None, "gid": None}
_SHARED_MODES: Final = frozenset({"ReadOnlyMany", "ReadWriteMany"})


@dataclass(frozen=True, slots=True)
class ImageProvisioner:
    """Makes image files below the daemon's image directory."""

    export: Export
    host: Host
    copies: ImageCopies
    node: str
    hostname: str
    name: str = IMAGE

    def check(
        self, parameters: Mapping[str, str], mode: VolumeMode, access_modes: tuple[str, ...]
    ) -> None:
        """Raises `Rejected`."""
        for name in parameters:
            if name not in FS_TYPE_PARAMETERS:
                raise Rejected(
                    f"unknown parameter {name!r} for {IMAGE}",
                    remedy=f"parameters of {IMAGE}: {', '.join(FS_TYPE_PARAMETERS)}",
                )
        fs_type = fs_type_of(parameters)
        if fs_type not in FS_TYPES:
            raise Rejected(f"{IMAGE} does not make {fs_type!r}",
                           remedy=f"one of {', '.join(FS_TYPES)}")  # fmt: skip

    async def create(self, request: VolumeRequest) -> ProvisionedVolume:
        """Make the image, or find it made."""
        directory = await self._make_directory(request.name, request.owner, request)
        path = f"{directory}/{FILE}"
        evidence = "empty image"
        try:
            if request.origin is not None:
                evidence = await self._fill(request, path)
            await self.host.devices.create_image(path, size_bytes=request.capacity_bytes)
            await self.host.devices.grow_image(path, size_bytes=request.capacity_bytes)
        except HostError as error:
            raise explain_image(error, path) from error
        fs_type = fs_type_of(request.parameters)
        source: dict[str, Any] = {
            "driver": IMAGE,
            "volumeHandle": request.name,
            "volumeAttributes": {"path": f"{request.name}/{FILE}", "create": "false"},
        }
        if request.mode is VolumeMode.FILESYSTEM:
            source["fsType"] = await self._kept_fs_type(request, path) or fs_type
        return ProvisionedVolume(
            source={"csi": source},
            capacity_bytes=request.capacity_bytes,
            node_affinity=affinity_to(self.hostname),
            evidence=evidence,
        )

    async def _make_directory(self, name: str, owner: str, request: VolumeRequest | None) -> str:
        claim = f"{request.claim_namespace}/{request.claim_name}" if request is not None else ""
        size_bytes = request.capacity_bytes if request is not None else 0
        return await self.export.make(
            name=name, owner=owner, directory=name, claim=claim, capacity_bytes=size_bytes,
            room_bytes=size_bytes, ownership=_OWNERSHIP,
        )  # fmt: skip

    async def _fill(self, request: VolumeRequest, path: str) -> str:
        origin = request.origin
        assert origin is not None
        source = self._image_of(origin.source) if origin.source else self._snapshot(origin.snapshot)
        size_bytes = _size_of(source)
        if size_bytes > request.capacity_bytes:
            raise Rejected(
                f"the copy needs {size_bytes >> 20} MiB, {request.capacity_bytes >> 20} MiB are"
                " asked for",
                remedy="ask for at least the size of what is copied",
            )
        shared = await self.copies.copy(source, path, fresh_identity=True)
        return "shares its blocks with the original" if shared else "copied"

    async def _kept_fs_type(self, request: VolumeRequest, path: str) -> str:
        """A copy has the file system of its original, whatever the class says."""
        if request.origin is None:
            return ""
        try:
            signature = await self.host.devices.probe(path)
        except HostError as error:
            raise explain_image(error, path) from error
        return signature.fs_type

    async def reclaim(self, request: ReclaimRequest) -> Done:
        """Into the trash, or away; not while a loop device still shows the image."""
        image = self._image_of(request.source)
        self._refuse_used(image)
        return await self.export.reclaim(
            name=request.name, owner=request.owner, directory=request.name,
            manifest=request.manifest, keep_s=request.keep_s,
        )  # fmt: skip

    async def discard(self, request: VolumeRequest) -> Done:
        """Remove what `create` may have left; its claim never had it."""
        done = await self.export.discard(request.name, request.owner)
        if done.evidence == "content":  # the image itself
            return await self.export.purge(request.name)
        return done

    async def grow(
        self, source: dict[str, Any], annotations: Mapping[str, str], capacity_bytes: int
    ) -> Grown:
        """Make the file larger; the node takes the device and the file system after it."""
        path = self._image_of(source)
        name = os.path.basename(os.path.dirname(path))
        await self.export.ask(
            "grow", name=name, owner=annotations.get("volagent.dev/owner", ""),
            capacity_bytes=capacity_bytes, check_room=True,
        )  # fmt: skip
        try:
            await self.host.devices.grow_image(path, size_bytes=capacity_bytes)
        except HostError as error:
            raise explain_image(error, path) from error
        return Grown("image file made larger", capacity_bytes, node_half=True)

    async def snapshot(self, request: SnapshotRequest) -> SnapshotTaken:
        """Copy the image, or find it copied."""
        source = self._image_of(request.source)
        size_bytes = _size_of(source)
        directory = await self._make_directory(request.name, request.owner, None)
        path = f"{directory}/{FILE}"
        if not os.path.exists(path):
            await self.copies.copy(source, path, fresh_identity=False)
        created_ns = os.stat(path).st_ctime_ns
        return SnapshotTaken("image copied", request.name, size_bytes, min(created_ns,
                             time.time_ns()))  # fmt: skip

    async def drop_snapshot(self, handle: str, owner: str) -> Done:
        """Delete a copy; gone is a success."""
        answer = await self.export.discard(handle, owner)
        if answer.evidence == "content":
            return await self.export.purge(handle)
        return answer

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

    def _image_of(self, source: Mapping[str, Any]) -> str:
        """The image of a volume that this provisioner made. Raises `Rejected`."""
        csi = source.get("csi") or {}
        path = str((csi.get("volumeAttributes") or {}).get("path", ""))
        name, _, file = path.partition("/")
        if csi.get("driver") != IMAGE or file != FILE or name in ("", ".", ".."):
            raise Rejected(
                f"{csi.get('volumeHandle')!r} is no image that {IMAGE} has made",
                remedy="an image declared by hand is dealt with by hand",
            )
        return f"{self.export.path}/{path}"

    def _snapshot(self, handle: str) -> str:
        if not handle.startswith("snapshot-") or "/" in handle:
            raise Rejected(f"{handle!r} is no snapshot of {IMAGE}", remedy="correct the source")
        return f"{self.export.path}/{handle}/{FILE}"

    def _refuse_used(self, image: str) -> None:
        device = self.copies.find_device(image)
        if device:
            raise Transient(
                f"{image} is still attached at {device}",
                remedy=f"see who uses it: `volagent doctor`, losetup -j {image}",
            )


def fs_type_of(parameters: Mapping[str, str]) -> str:
    """The file system that a class asks for."""
    for name in FS_TYPE_PARAMETERS:
        if parameters.get(name):
            return parameters[name]
    return DEFAULT_FS_TYPE


def _size_of(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError as error:
        raise Rejected(
            f"{path} does not exist on this node",
            remedy="a copy is made on the node where its original is",
        ) from error


def explain_image(error: HostError, path: str) -> Exception:
    """What a failed call about an image means for its volume."""
    if isinstance(error, Absent):
        return Rejected(f"{path}: {error}", remedy="was it removed by hand?")
    if "ENOSPC" in str(error) or "EDQUOT" in str(error) or "EFBIG" in str(error):
        return OutOfSpace(str(error), remedy="ask for less, or free space")
    return Uncertain(str(error), remedy=f"look at {path} on this node")
