"""awsElasticBlockStore: a disk of Amazon's block store, attached to this instance through EC2.

The device is found by the volume's id, never by the name that was asked for: an NVMe disk says the
id as its serial number, and udev makes a link of it; where there is no such link the name that EC2
confirms is taken, if it is there. A volume that another instance has is waited for, not taken away.
Written out by the unmount; given back when nobody here has it mounted.
"""

import asyncio
import os
import string
from dataclasses import dataclass
from typing import Final

from volagent.aio.clock import Clock
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
from volagent.drivers.ebs.api import EBS, Attachment, Ec2, Volume, read_volume_id
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.failures import explain_failure
from volagent.drivers.options import decode_options
from volagent.host.contract import BlockDevice, Host
from volagent.host.errors import Absent, HostError

DEFAULT_FS_TYPE: Final = "ext4"
LINK: Final = "nvme-Amazon_Elastic_Block_Store_"
"""What udev's link is called, before the id without its dash."""
ATTACH_TIMEOUT_S: Final = 120.0
LOOK_AGAIN_S: Final = 0.5
_NAMES: Final = tuple(f"/dev/xvd{a}{b}" for a in "bc" for b in string.ascii_lowercase)
"""What AWS advises for volumes that come and go. An instance has fewer slots than that."""


class _Source(Options, frozen=True):
    volumeID: str  # the field's name
    fsType: str | None = None
    partition: int | None = None
    readOnly: bool | None = None


class EbsOptions(Options, frozen=True):
    """Which volume, and what is to be on it."""

    id: str
    fs_type: str = DEFAULT_FS_TYPE
    partition: int = 0


@dataclass(frozen=True, slots=True)
class EbsDriver:
    """Attaches, formats, mounts and grows EBS volumes."""

    host: Host
    ec2: Ec2
    clock: Clock
    links: str
    """The directory with udev's links by id."""
    name: DriverName = EBS

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` naming the field."""
        declared = decode_options(source, _Source)
        fs_type = declared.fsType or DEFAULT_FS_TYPE
        if fs_type not in FORMATS:
            raise Rejected(
                f"awsElasticBlockStore.fsType: {fs_type!r} is not offered",
                remedy=f"one of {', '.join(FORMATS)}",
            )
        return EbsOptions(
            id=read_volume_id(declared.volumeID), fs_type=fs_type,
            partition=declared.partition or 0,
        )  # fmt: skip

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """All of them; a raw device is neither formatted nor mounted."""
        if mode is VolumeMode.BLOCK:
            return (Phase.ATTACH, Phase.PUBLISH)
        return (Phase.ATTACH, Phase.PREPARE, Phase.STAGE, Phase.PUBLISH)

    def backend(self, options: Options) -> str:
        """EC2's API answers for all of them."""
        return "ec2"

    async def attach(self, volume: VolumeSpec) -> Attached:
        """Have it attached to this instance, and find its device."""
        options = _options_of(volume)
        instance = await self.ec2.read_instance()
        attachment = await self._ensure_attached(options.id, instance)
        device = self._find_device(options, attachment)
        return Attached(f"{options.id} at {device.path}", hold_device(device))

    async def _ensure_attached(self, id: str, instance: str) -> Attachment:
        end_s, asked = self.clock.monotonic() + ATTACH_TIMEOUT_S, False
        while True:
            found = _attachment_of(await self._describe(id), instance)
            if found is not None and found.state == "attached":
                return found
            if found is None and not asked:
                await self._begin_to_attach(id, instance)
                asked = True
            if self.clock.monotonic() > end_s:
                state = found.state if found is not None else "not attached"
                raise Uncertain(f"{id} is still {state} after {ATTACH_TIMEOUT_S:.0f} s",
                                remedy="see the volume in the EC2 console")  # fmt: skip
            await asyncio.sleep(LOOK_AGAIN_S)

    async def _begin_to_attach(self, id: str, instance: str) -> None:
        taken = await self.ec2.list_devices(instance)
        free = next((name for name in _NAMES if name not in taken), None)
        if free is None:
            raise Transient(f"{instance} has no device name left",
                            remedy="let pods with other volumes go to another VM")  # fmt: skip
        await self.ec2.attach(id, instance, free)

    async def _describe(self, id: str) -> Volume:
        volume = await self.ec2.find_volume(id)
        if volume is None:
            raise Rejected(f"there is no volume {id} in {self.ec2.region}",
                           remedy="was it deleted by hand?")  # fmt: skip
        return volume

    def _find_device(self, options: EbsOptions, attachment: Attachment) -> BlockDevice:
        link = f"{self.links}/{LINK}{options.id.replace('-', '')}"
        path = link if os.path.lexists(link) else attachment.device
        if options.partition:
            path = _partition_of(os.path.realpath(path), options.partition)
        try:
            return self.host.devices.identify(path)
        except Absent as error:
            raise Transient(
                f"{options.id} is attached, its device has not appeared yet (neither {link} nor"
                f" {attachment.device})",
                remedy="is udev running? `udevadm trigger`; the kernel's log tells of new disks",
            ) from error
        except HostError as error:
            raise explain_failure(error, path) from error

    async def detach(self, name: str, device: HeldDevice) -> Done:
        """Have it detached, and wait until EC2 says that it is."""
        instance = await self.ec2.read_instance()
        id = self._find_id(device)
        if not id:
            return Done(f"{device.path} is gone already")
        end_s, asked = self.clock.monotonic() + ATTACH_TIMEOUT_S, False
        while True:
            volume = await self.ec2.find_volume(id)
            found = _attachment_of(volume, instance, ours=True) if volume is not None else None
            if found is None or found.state == "detached":
                return Done(f"{id} detached")
            if not asked:
                await self.ec2.detach(id, instance)
                asked = True
            if self.clock.monotonic() > end_s:
                raise Uncertain(f"{id} is still {found.state} after {ATTACH_TIMEOUT_S:.0f} s",
                                remedy="see the volume in the EC2 console")  # fmt: skip
            await asyncio.sleep(LOOK_AGAIN_S)

    def _find_id(self, device: HeldDevice) -> str:
        """The volume behind a device that was attached: by its link, which names it."""
        try:
            names = os.listdir(self.links)
        except OSError:
            names = []
        for name in names:
            if not name.startswith(LINK):
                continue
            try:
                found = self.host.devices.identify(f"{self.links}/{name}")
            except HostError:
                continue
            if (found.number, found.identity) == (device.number, device.identity):
                return f"vol-{name.removeprefix(LINK + 'vol').partition('-')[0]}"
        serial = device.identity.partition(":")[2].partition("-part")[0]
        return f"vol-{serial.removeprefix('vol')}" if serial.startswith("vol") else ""

    async def prepare(self, volume: VolumeSpec, device: HeldDevice) -> Done:
        """Format if blank, else check; a partition is never made."""
        options = _options_of(volume)
        return await prepare_device(
            self.host, volume, device, options.id, fs_type=options.fs_type, formats=True
        )

    async def stage(self, volume: VolumeSpec, device: HeldDevice, target: str) -> Mounted:
        """Mount it, and let it fill its device."""
        return await stage_device(self.host, volume, device, target, _options_of(volume).fs_type)

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
        """The kernel knows the new size by itself; the file system follows."""
        return await expand_device(self.host, device, staged, _options_of(volume).fs_type)


def _options_of(volume: VolumeSpec) -> EbsOptions:
    assert isinstance(volume.options, EbsOptions)
    return volume.options


def _attachment_of(volume: Volume, instance: str, *, ours: bool = False) -> Attachment | None:
    """The attachment to this instance. Raises `Transient` when another one has the volume."""
    for each in volume.attachments:
        if each.instance == instance:
            return each
        if each.state != "detached" and not ours:
            raise Transient(
                f"Multi-Attach error for volume {volume.id}: it is {each.state} to"
                f" {each.instance} as {each.device}",
                remedy=f"stop what uses it there; is {each.instance} off, detach it in EC2",
                reason="FailedAttachVolume",
            )
    return None


def _partition_of(disk: str, number: int) -> str:
    return f"{disk}p{number}" if disk[-1:].isdigit() else f"{disk}{number}"
