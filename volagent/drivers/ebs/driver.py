"""kubernetes.io/aws-ebs on the node: find, mount, grow and give up a disk of the block store.

The server has it attached and detached (`attacher`); nothing is asked of the API here, so an agent
needs no credentials. A disk is recognised by the volume's id: the serial number that an NVMe disk
says of itself, udev's link of that name, or, on a Xen instance, the device name under which the API
has it attached. That name never leads to an NVMe disk.

Nothing is given up that anybody still holds here; what was written is written out first.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec

from volagent.drivers.binding import bind_into_pod, unbind_from_pod
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
from volagent.drivers.ebs.cloud import BY_ID
from volagent.drivers.ebs.names import link_of, serial_of, xen_name
from volagent.drivers.ebs.options import EbsOptions, read_ebs_options
from volagent.drivers.ebs.provisioner import EBS
from volagent.drivers.errors import Transient, Uncertain
from volagent.drivers.failures import explain_busy, explain_failure
from volagent.drivers.partitions import choose_part
from volagent.host.contract import BlockDevice, Host
from volagent.host.errors import Absent, Busy, HostError

BACKEND: Final = "aws-ebs"
DEVICE_TIMEOUT_S: Final = 15.0
"""How long the kernel may take to show what is attached; after that its events are waited for."""
_XEN_MAJOR: Final = "202:"


@dataclass(frozen=True, slots=True)
class EbsDriver:
    """Finds and mounts EBS volumes."""

    host: Host
    device_links: str = BY_ID
    """Where udev puts a link per volume id."""
    poll_s: float = 0.25
    name: DriverName = EBS

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` naming the field."""
        return read_ebs_options(source)

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """All of them; a raw device is neither formatted nor mounted."""
        if mode is VolumeMode.BLOCK:
            return (Phase.ATTACH, Phase.PUBLISH)
        return (Phase.ATTACH, Phase.PREPARE, Phase.STAGE, Phase.PUBLISH)

    def backend(self, options: Options) -> str:
        """The API: one that is slow holds no other volume back."""
        return BACKEND

    def identify(self, options: Options) -> str:
        """`vol-...`."""
        assert isinstance(options, EbsOptions)
        return options.volume_id

    # -- the device --------------------------------------------------------------------------

    async def attach(self, volume: VolumeSpec) -> Attached:
        """Find the disk, which the server has had attached."""
        options = _options_of(volume)
        disk = await self._await_disk(options.volume_id, volume.device_path)
        device = await choose_part(self.host, disk, options.partition, options.volume_id)
        held = msgspec.structs.replace(hold_device(device), handle=options.volume_id)
        return Attached(f"{options.volume_id} at {device.path}", held)

    async def _await_disk(self, volume_id: str, name: str) -> BlockDevice:
        try:
            async with asyncio.timeout(DEVICE_TIMEOUT_S):
                while True:
                    disk = self._find_disk(volume_id, name)
                    if disk is not None:
                        return disk
                    await asyncio.sleep(self.poll_s)
        except TimeoutError as error:
            raise Uncertain(
                f"{volume_id} is attached as {name}, but no disk of this machine is it",
                remedy=f"see `lsblk -o NAME,SERIAL` and {self.device_links}; is instance_id under"
                " [aws] this machine's?",
            ) from error

    def _find_disk(self, volume_id: str, name: str) -> BlockDevice | None:
        """By serial number, by udev's link, by the name on a Xen instance."""
        devices = self.host.devices
        try:
            found = devices.find_disk(serial_of(volume_id))
            if found is not None:
                return found
            try:
                return devices.identify(f"{self.device_links}/{link_of(volume_id)}")
            except Absent:
                pass
            if not name:
                return None
            try:
                disk = devices.identify(f"/dev/{xen_name(name)}")
            except Absent:
                return None
        except HostError as error:
            raise explain_failure(error, volume_id) from error
        return disk if disk.number.startswith(_XEN_MAJOR) else None

    async def detach(self, name: str, device: HeldDevice) -> Done:
        """Write everything out; then the server may have it detached."""
        volume_id = device.handle
        disk = self._find_disk(volume_id, "") or self._still(device)
        if disk is None:
            return Done(f"{volume_id} is not there any more")
        await self._flush(disk)
        return Done(f"{volume_id} is written out, and may be detached")

    def _still(self, device: HeldDevice) -> BlockDevice | None:
        """The recorded device if it is there and still the same."""
        try:
            found = self.host.devices.identify(device.path)
        except HostError:
            return None
        return found if found.identity == device.identity else None

    async def _flush(self, disk: BlockDevice) -> None:
        try:
            await self.host.devices.flush(disk)
        except Absent:
            return
        except Busy as error:
            raise await explain_busy(self.host, error, disk.path) from error
        except HostError as error:
            raise Uncertain(
                f"{disk.path} could not be written out, and stays attached: {error}",
                remedy="see the kernel's log",
            ) from error

    # -- mounting ----------------------------------------------------------------------------

    async def prepare(self, volume: VolumeSpec, device: HeldDevice) -> Done:
        """Format if blank, else check."""
        fs_type = _options_of(volume).fs_type
        return await prepare_device(
            self.host, volume, device, device.path, fs_type=fs_type, formats=fs_type in FORMATS
        )

    async def stage(self, volume: VolumeSpec, device: HeldDevice, target: str) -> Mounted:
        """Mount it, and let it fill its device."""
        return await stage_device(self.host, volume, device, target, _options_of(volume).fs_type)

    async def unstage(self, staged: HeldMount) -> Done:
        """Unmount it, which writes everything out."""
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
        """Let the file system fill the disk, once the kernel has seen that it is larger."""
        options = _options_of(volume)
        size_bytes = await self._await_size(device, volume, options)
        grown = msgspec.structs.replace(device, size_bytes=size_bytes)
        return await expand_device(self.host, grown, staged, options.fs_type)

    async def _await_size(self, device: HeldDevice, volume: VolumeSpec, options: EbsOptions) -> int:
        wanted = 0 if options.partition else volume.capacity_bytes or 0
        try:
            async with asyncio.timeout(DEVICE_TIMEOUT_S):
                while True:
                    size_bytes = self.host.devices.identify(device.path).size_bytes
                    if size_bytes >= wanted:
                        return size_bytes
                    await asyncio.sleep(self.poll_s)
        except HostError as error:
            raise explain_failure(error, device.path) from error
        except TimeoutError as error:
            raise Transient(
                f"{device.path} has not its new size of {wanted >> 30} GiB yet",
                remedy="see the state of the volume's modification",
            ) from error


def _options_of(volume: VolumeSpec) -> EbsOptions:
    assert isinstance(volume.options, EbsOptions)
    return volume.options
