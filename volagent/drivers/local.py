"""local: a directory or a block device of this VM, declared as a PersistentVolume.

Which of the two it is shows only on the VM, when the volume is attached: a directory is bound into
the pod as it is (attach, prepare and stage have nothing to do), a block device is checked, mounted
once at a global path and bound from there, and a raw one is linked. A blank device is formatted
only when `fsType` says what with. Nothing of a directory is ever made, changed (but for `fsGroup`)
or removed here.
"""

from dataclasses import dataclass
from typing import Final

from volagent.drivers.binding import bind_into_pod, reject_option, unbind_from_pod
from volagent.drivers.block import (
    FORMATS,
    expand_device,
    hold_device,
    link_device,
    prepare_device,
    stage_device,
    unstage_device,
)
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
from volagent.drivers.errors import DriverError, Rejected, Transient
from volagent.drivers.failures import explain_failure
from volagent.drivers.options import decode_options
from volagent.host.contract import FileKind, Host
from volagent.host.errors import HostError
from volagent.host.mount_options import parse_bind_options

LOCAL: Final = DriverName("kubernetes.io/local-volume")
DIRECTORY_IDENTITY: Final = "directory"
"""What is recorded instead of a device's identity."""
INSPECT_TIMEOUT_S: Final = 10.0


class LocalOptions(Options, frozen=True, rename="camel"):
    """Where it is, and for a block device, what it holds or shall be formatted with."""

    path: str
    fs_type: str | None = None


@dataclass(frozen=True, slots=True)
class LocalDriver:
    """Binds directories and mounts block devices of this VM."""

    host: Host
    name: DriverName = LOCAL

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` for a path that is not absolute or has `..`."""
        options = decode_options(source, LocalOptions)
        parts = options.path.split("/")
        if not options.path.startswith("/") or "\0" in options.path or ".." in parts:
            raise Rejected(
                f"local.path: {options.path!r} is not an absolute path without '..'",
                remedy="name the directory or device by its absolute path",
            )
        clean = "/" + "/".join(part for part in parts if part not in ("", "."))
        return LocalOptions(clean, options.fs_type or None)

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """Those of a device, since only the VM knows what is there."""
        if mode is VolumeMode.BLOCK:
            return (Phase.ATTACH, Phase.PUBLISH)
        return (Phase.ATTACH, Phase.PREPARE, Phase.STAGE, Phase.PUBLISH)

    def backend(self, options: Options) -> str:
        """This node."""
        return "local"

    async def attach(self, volume: VolumeSpec) -> Attached:
        """Look what is there."""
        path, is_block = _path_of(volume), volume.mode is VolumeMode.BLOCK
        try:
            kind = await self.host.trees.inspect_slowly(
                path, backend=f"local:{path}", timeout_s=INSPECT_TIMEOUT_S
            )
            if kind is FileKind.BLOCK_DEVICE:
                device = hold_device(self.host.devices.identify(path))
                return Attached(f"block device {device.identity}", device)
        except HostError as error:
            raise explain_failure(error, path) from error
        if kind is FileKind.DIRECTORY and not is_block:
            return Attached("directory", HeldDevice(path, "", DIRECTORY_IDENTITY))
        raise _explain_wrong_kind(path, kind, is_block=is_block)

    async def detach(self, name: str, device: HeldDevice) -> Done:
        """Nothing: it belongs to the VM."""
        return Done("left where it is")

    async def prepare(self, volume: VolumeSpec, device: HeldDevice) -> Done:
        """Check a block device; format it if it is blank and `fsType` is given."""
        if device.identity == DIRECTORY_IDENTITY:
            return Done("directory")
        fs_type = _fs_type_of(volume)
        return await prepare_device(
            self.host, volume, device, _path_of(volume),
            fs_type=fs_type, formats=fs_type in FORMATS,
        )  # fmt: skip

    async def stage(self, volume: VolumeSpec, device: HeldDevice, target: str) -> Mounted:
        """Mount a block device; of a directory only the place is noted where it would be."""
        if device.identity == DIRECTORY_IDENTITY:
            return Mounted("directory", HeldMount(target))
        fs_type = _fs_type_of(volume) or await self._find_fs_type(device)
        return await stage_device(self.host, volume, device, target, fs_type)

    async def _find_fs_type(self, device: HeldDevice) -> str:
        try:
            found = await self.host.devices.probe(device.path)
        except HostError as error:
            raise explain_failure(error, device.path) from error
        if not found.fs_type:
            raise Transient(f"{device.path} holds no file system any more")
        return found.fs_type

    async def unstage(self, staged: HeldMount) -> Done:
        """Unmount what was mounted; a directory was not."""
        return await unstage_device(self.host, staged)

    async def publish(
        self,
        volume: VolumeSpec,
        use: Publication,
        *,
        staged: HeldMount | None,
        device: HeldDevice | None,
    ) -> Mounted:
        """Bind the directory or the mounted device; link a raw device."""
        assert device is not None
        if volume.mode is VolumeMode.BLOCK:
            return link_device(self.host, use, device)
        read_only = use.read_only or volume.read_only
        if device.identity != DIRECTORY_IDENTITY:
            assert staged is not None
            return await bind_into_pod(self.host, staged.path, use, read_only=read_only)
        try:
            parse_bind_options(volume.mount_options, device.path)
        except HostError as error:
            raise reject_option(error, volume.mount_options) from error
        return await bind_into_pod(
            self.host, device.path, use, read_only=read_only, options=volume.mount_options
        )

    async def unpublish(self, published: HeldMount) -> Done:
        """Unmount, or remove the link."""
        return await unbind_from_pod(self.host, published)

    async def expand(self, volume: VolumeSpec, device: HeldDevice, staged: HeldMount) -> Done:
        """Let the file system fill a device that somebody has made larger."""
        if device.identity == DIRECTORY_IDENTITY:
            return Done("directory")
        fs_type = _fs_type_of(volume) or await self._find_fs_type(device)
        return await expand_device(self.host, device, staged, fs_type)


def _path_of(volume: VolumeSpec) -> str:
    assert isinstance(volume.options, LocalOptions)
    return volume.options.path


def _fs_type_of(volume: VolumeSpec) -> str:
    assert isinstance(volume.options, LocalOptions)
    return volume.options.fs_type or ""


def _explain_wrong_kind(path: str, kind: FileKind | None, *, is_block: bool) -> DriverError:
    wanted = "block device" if is_block else "directory or block device"
    if kind is None:
        return Transient(
            f'path "{path}" does not exist',
            remedy=f"make the {wanted} at {path} on this node, or mount its disk there",
        )
    return Transient(
        f'path "{path}" is a {kind.value}, not a {wanted}',
        remedy="name a block device for volumeMode Block"
        if kind is FileKind.DIRECTORY
        else "name a directory or a block device",
    )
