"""image.volagent.dev: an image file as a disk of its own, declared as a CSI volume.

    csi: {driver: image.volagent.dev, volumeHandle: db, fsType: ext4,
          volumeAttributes: {path: db.img, size: 1Gi, create: "true"}}

The file is made when it is missing (unless `create` is "false"), attached as a loop device,
formatted if it is provably blank, checked, mounted, and made larger when the volume's capacity
grows; never smaller. A relative path lies in the daemon's image directory; an absolute one is
taken as it is, for whoever may declare a PersistentVolume runs the machine. Pods cannot declare
such a volume inline: that would let their authors name, and fill, files of the machine.

What detach gives back is the device; the file stays whatever happens.
"""

from dataclasses import dataclass
from typing import Any, Final

from volagent.drivers.binding import bind_into_pod, unbind_from_pod
from volagent.drivers.block import (
    FORMATS,
    as_device,
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
from volagent.drivers.errors import Rejected, Transient
from volagent.drivers.failures import explain_busy, explain_failure
from volagent.drivers.options import decode_options
from volagent.host.contract import Host
from volagent.host.errors import Absent, Busy, HostError
from volagent.objects.quantity import QuantityError, parse_bytes

IMAGE: Final = DriverName("image.volagent.dev")
DEFAULT_FS_TYPE: Final = "ext4"
OWN_DIRECTORY_MODE: Final = 0o700
_ATTRIBUTES: Final = ("path", "size", "create")
# Provisioners and Kubernetes itself add attributes under these prefixes.
_FOREIGN_ATTRIBUTES: Final = ("storage.kubernetes.io/", "csi.storage.k8s.io/")


class _Source(Options, frozen=True, rename="camel"):
    """`csi` of a PersistentVolume. The secrets that it may name are of no use to a file."""

    driver: str
    volume_handle: str = ""
    read_only: bool | None = None
    fs_type: str | None = None
    volume_attributes: dict[str, str] | None = None
    controller_publish_secret_ref: dict[str, Any] | None = None
    node_stage_secret_ref: dict[str, Any] | None = None
    node_publish_secret_ref: dict[str, Any] | None = None
    node_expand_secret_ref: dict[str, Any] | None = None


class ImageOptions(Options, frozen=True):
    """Which file, and what it should be."""

    path: str
    fs_type: str = DEFAULT_FS_TYPE
    size_bytes: int | None = None
    create: bool = True
    """Make the file when it is missing, and larger when the volume grows."""


@dataclass(frozen=True, slots=True)
class ImageDriver:
    """Attaches, formats, mounts and grows image files."""

    host: Host
    image_dir: str
    """Where relative paths lead."""
    name: DriverName = IMAGE

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` naming the field or attribute."""
        if not source.persistent:
            raise Rejected(
                f"{IMAGE} is not offered inline in a pod: it would let the pod name any file",
                remedy="declare a PersistentVolume and a claim, or use an emptyDir",
            )
        declared = decode_options(source, _Source)
        attributes = declared.volume_attributes or {}
        for key in attributes:
            if key not in _ATTRIBUTES and not key.startswith(_FOREIGN_ATTRIBUTES):
                raise Rejected(
                    f"csi.volumeAttributes: unknown attribute {key!r} for {IMAGE}",
                    remedy=f"attributes of {IMAGE}: {', '.join(_ATTRIBUTES)}",
                )
        fs_type = declared.fs_type or DEFAULT_FS_TYPE
        if fs_type not in FORMATS:
            raise Rejected(
                f"csi.fsType: {fs_type!r} is not offered by {IMAGE}",
                remedy=f"one of {', '.join(FORMATS)}",
            )
        return ImageOptions(
            path=self._read_path(attributes.get("path"), declared.volume_handle),
            fs_type=fs_type,
            size_bytes=_read_size(attributes.get("size"), source.capacity_bytes),
            create=_read_flag(attributes.get("create", "true")),
        )

    def _read_path(self, path: str | None, handle: str) -> str:
        if path is None:
            if not handle or handle.startswith(".") or "/" in handle or "\0" in handle:
                raise Rejected(
                    f"csi.volumeHandle: {handle!r} cannot name an image file",
                    remedy="set volumeAttributes.path",
                )
            return f"{self.image_dir}/{handle}.img"
        parts = path.split("/")
        if "\0" in path or ".." in parts or parts[-1] in ("", "."):
            raise Rejected(
                f"csi.volumeAttributes.path: {path!r} is not the path of a file, without '..'",
                remedy=f"an absolute path, or one relative to {self.image_dir}",
            )
        clean = "/".join(part for part in parts if part not in ("", "."))
        return f"/{clean}" if path.startswith("/") else f"{self.image_dir}/{clean}"

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """All of them; a raw device is neither formatted nor mounted."""
        if mode is VolumeMode.BLOCK:
            return (Phase.ATTACH, Phase.PUBLISH)
        return (Phase.ATTACH, Phase.PREPARE, Phase.STAGE, Phase.PUBLISH)

    def backend(self, options: Options) -> str:
        """This node."""
        return "local"

    async def attach(self, volume: VolumeSpec) -> Attached:
        """Make the file if need be, and give it a loop device."""
        options = _options_of(volume)
        try:
            made = await self._ensure_image(volume, options)
            device = await self.host.devices.attach_loop(options.path, read_only=volume.read_only)
        except Absent as error:
            raise _explain_missing(error, options) from error
        except Busy as error:
            remedy = f"see who uses it: losetup -j {options.path}"
            raise Transient(str(error), remedy=remedy) from error
        except HostError as error:
            raise explain_failure(error, options.path) from error
        return Attached(f"{options.path} at {device.path}{made}", hold_device(device))

    async def _ensure_image(self, volume: VolumeSpec, options: ImageOptions) -> str:
        """Make the file when it is missing and may be; what was done, in words."""
        size_bytes = _allowed_size(volume, options)
        if size_bytes is None:
            return ""
        parent = options.path.rpartition("/")[0]
        if parent.startswith(f"{self.image_dir}/"):
            self.host.trees.ensure_dir(parent, mode=OWN_DIRECTORY_MODE)
        if await self.host.devices.create_image(options.path, size_bytes=size_bytes):
            return ", made now"
        # A file system is looked at first, and only then made larger with its image.
        if volume.mode is VolumeMode.BLOCK:
            await self.host.devices.grow_image(options.path, size_bytes=size_bytes)
        return ""

    async def detach(self, name: str, device: HeldDevice) -> Done:
        """Give the loop device back; the file stays."""
        try:
            await self.host.devices.detach_loop(as_device(device))
        except Busy as error:
            raise await explain_busy(self.host, error, device.path) from error
        return Done(f"{device.path} given back")

    async def prepare(self, volume: VolumeSpec, device: HeldDevice) -> Done:
        """Format if blank, else check."""
        options = _options_of(volume)
        return await prepare_device(
            self.host, volume, device, options.path, fs_type=options.fs_type, formats=True
        )

    async def stage(self, volume: VolumeSpec, device: HeldDevice, target: str) -> Mounted:
        """Mount it, and let it fill its device."""
        options = _options_of(volume)
        await self._grow_image(volume, options)
        return await stage_device(self.host, volume, device, target, options.fs_type)

    async def unstage(self, staged: HeldMount) -> Done:
        """Unmount it."""
        return await unstage_device(self.host, staged)

    async def publish(
        self,
        volume: VolumeSpec,
        use: Publication,
        *,
        staged: HeldMount | None,
        device: HeldDevice | None,
    ) -> Mounted:
        """Bind the mount into the pod's directory, or link the raw device there."""
        if volume.mode is VolumeMode.BLOCK:
            assert device is not None
            return link_device(self.host, use, device)
        assert staged is not None
        read_only = use.read_only or volume.read_only
        return await bind_into_pod(self.host, staged.path, use, read_only=read_only)

    async def unpublish(self, published: HeldMount) -> Done:
        """Unmount, or remove the link."""
        return await unbind_from_pod(self.host, published)

    async def expand(self, volume: VolumeSpec, device: HeldDevice, staged: HeldMount) -> Done:
        """Make the file larger, then its device, then the file system, all while in use."""
        options = _options_of(volume)
        await self._grow_image(volume, options)
        return await expand_device(self.host, device, staged, options.fs_type)

    async def _grow_image(self, volume: VolumeSpec, options: ImageOptions) -> None:
        size_bytes = _allowed_size(volume, options)
        if size_bytes is None:
            return
        try:
            await self.host.devices.grow_image(options.path, size_bytes=size_bytes)
        except HostError as error:
            raise explain_failure(error, options.path) from error


def _options_of(volume: VolumeSpec) -> ImageOptions:
    assert isinstance(volume.options, ImageOptions)
    return volume.options


def _allowed_size(volume: VolumeSpec, options: ImageOptions) -> int | None:
    """The size that the file should have, or None when it is not ours to make or change.

    The attribute is fixed with the volume's source; the capacity may be raised later.
    """
    if not options.create or volume.read_only:
        return None
    sizes = [size for size in (options.size_bytes, volume.capacity_bytes) if size is not None]
    return max(sizes, default=None)


def _read_size(text: str | None, capacity_bytes: int | None) -> int | None:
    if text is None:
        return capacity_bytes
    try:
        size_bytes = parse_bytes(text)
    except QuantityError as error:
        raise Rejected(f"csi.volumeAttributes.size: {error}", remedy="such as 10Gi") from error
    if size_bytes <= 0:
        raise Rejected("csi.volumeAttributes.size: must be greater than 0")
    return size_bytes


def _read_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise Rejected(
            f"csi.volumeAttributes.create: {text!r} is neither", remedy='"true" or "false", quoted'
        )
    return text == "true"


def _explain_missing(error: Absent, options: ImageOptions) -> Transient:
    if error.subject != options.path:
        return Transient(str(error), remedy=f"make the directory {error.subject} on this node")
    return Transient(
        f"the image {options.path} does not exist, and is not made here",
        remedy='put it there; or give a size, create "true" and write access, so that it is made',
    )
