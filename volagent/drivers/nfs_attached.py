"""nfs.volagent.dev on the node: an export of a storage node, which has to be attached here first.

The mount is that of any NFS export (`nfs.py`); what is attached is the right to it: the storage
node shows the directory to this node's addresses only while the cluster says so.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from volagent.drivers.contract import (
    Attached,
    Done,
    DriverName,
    HeldDevice,
    HeldMount,
    Mounted,
    Options,
    Phase,
    Publication,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected
from volagent.drivers.nfs import NfsDriver
from volagent.drivers.options import decode_options
from volagent.objects.storage_nodes import NFS_PROVISIONER

NFS_ATTACHED: Final = DriverName(NFS_PROVISIONER)


class _Attributes(Options, frozen=True):
    server: str
    path: str


class _Source(Options, frozen=True, rename="camel"):
    """`csi` of a PersistentVolume."""

    driver: str
    volume_handle: str
    volume_attributes: _Attributes
    read_only: bool | None = None
    fs_type: str | None = None


class AttachedNfsOptions(Options, frozen=True):
    """What the mount needs, and what the storage node calls the volume."""

    handle: str
    nfs: Options


@dataclass(frozen=True, slots=True)
class AttachedNfsDriver:
    """Mounts exports of storage nodes."""

    nfs: NfsDriver
    name: DriverName = NFS_ATTACHED

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` naming the field."""
        handle, body = _read(source)
        return AttachedNfsOptions(handle, self.nfs.read_options(VolumeSource("nfs", body)))

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """Attached, which is the permission alone, and published."""
        if mode is VolumeMode.BLOCK:
            raise Rejected(
                f"volumeMode Block is not possible with {self.name}", remedy="use Filesystem"
            )
        return (Phase.ATTACH, Phase.PUBLISH)

    def backend(self, options: Options) -> str:
        """The storage node's address."""
        return self.nfs.backend(_inner(options))

    def identify(self, options: Options) -> str:
        """The volume's name."""
        assert isinstance(options, AttachedNfsOptions)
        return options.handle

    async def attach(self, volume: VolumeSpec) -> Attached:
        """There is no device: what the cluster has given is all."""
        assert isinstance(volume.options, AttachedNfsOptions)
        handle = volume.options.handle
        return Attached(f"{handle} is shown to this node", HeldDevice("", "", "", handle=handle))

    async def detach(self, name: str, device: HeldDevice) -> Done:
        """Nothing of it is mounted any more."""
        return Done("nothing is mounted")

    async def publish(
        self,
        volume: VolumeSpec,
        use: Publication,
        *,
        staged: HeldMount | None,
        device: HeldDevice | None,
    ) -> Mounted:
        """Mount the export at the pod's directory."""
        plain = msgspec.structs.replace(volume, options=_inner(volume.options))
        return await self.nfs.publish(plain, use, staged=None, device=None)

    async def unpublish(self, published: HeldMount) -> Done:
        """Unmount, by force if the storage node is dead."""
        return await self.nfs.unpublish(published)


def read_handle(source: VolumeSource) -> str:
    """What the storage node calls a volume. Raises `Rejected`."""
    return _read(source)[0]


def _read(source: VolumeSource) -> tuple[str, dict[str, object]]:
    found = decode_options(source, _Source)
    attributes = found.volume_attributes
    body: dict[str, object] = {"server": attributes.server, "path": attributes.path}
    if found.read_only:
        body["readOnly"] = True
    return found.volume_handle, body


def _inner(options: Options) -> Options:
    assert isinstance(options, AttachedNfsOptions)
    return options.nfs
