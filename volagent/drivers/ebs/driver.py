"""kubernetes.io/aws-ebs on the node: attach, find, mount, grow, detach a disk of the block store.

A disk is asked for by the volume's id and recognised by it: the serial number that an NVMe disk
says of itself, udev's link of that name, or, on a Xen instance, the device name that the API
confirms. The name that is asked for in AttachVolume never leads to an NVMe disk.

Attaching is several calls. Whenever the API does not say that the volume is not attached here, the
failure is `Uncertain`: what may be attached is looked for again, and detached when nobody wants it
any more. Nothing is detached that anybody still holds here; what was written is written out first.
One attachment is begun at a time, since the names of devices are chosen here.
"""

import asyncio
from dataclasses import dataclass, field
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
from volagent.drivers.ebs import kept
from volagent.drivers.ebs.api import Ec2Error, explain, explained
from volagent.drivers.ebs.cloud import Cloud, Place
from volagent.drivers.ebs.names import (
    choose_device_name,
    link_of,
    parse_volume_name,
    serial_of,
    xen_name,
)
from volagent.drivers.ebs.parameters import DEFAULT_FS_TYPE
from volagent.drivers.ebs.provisioner import EBS
from volagent.drivers.ebs.volumes import Attachment, EbsVolume, EbsVolumes
from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain
from volagent.drivers.failures import explain_busy, explain_failure
from volagent.drivers.options import decode_options
from volagent.host.contract import BlockDevice, Host
from volagent.host.errors import Absent, Busy, HostError

BACKEND: Final = "aws-ebs"
ATTACH_TIMEOUT_S: Final = 120.0
DETACH_TIMEOUT_S: Final = 120.0
DEVICE_TIMEOUT_S: Final = 15.0
"""How long the kernel may take to show what is attached; after that its events are waited for."""
_XEN_MAJOR: Final = "202:"
_NAME_TAKEN: Final = ("already in use", "nvalid value")


class _Source(Options, frozen=True, rename="camel"):
    """`awsElasticBlockStore` of a pod's volume or a PersistentVolume."""

    volume_id: str = msgspec.field(name="volumeID")
    fs_type: str | None = None
    partition: int | None = None
    read_only: bool | None = None


class EbsOptions(Options, frozen=True):
    """Which disk, which part of it, and what is on it."""

    volume_id: str
    fs_type: str = DEFAULT_FS_TYPE
    partition: int = 0
    """0: the whole disk."""


@dataclass(frozen=True, slots=True)
class EbsDriver:
    """Attaches and mounts EBS volumes."""

    host: Host
    cloud: Cloud
    volumes: EbsVolumes
    poll_s: float = 1.0
    name: DriverName = EBS
    _refused: set[str] = field(default_factory=set)
    """Device names that the API did not accept though nothing was known to have them."""
    _naming: asyncio.Lock = field(default_factory=asyncio.Lock)

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` naming the field."""
        declared = decode_options(source, _Source)
        partition = declared.partition or 0
        if not 0 <= partition <= 255:
            raise Rejected(f"awsElasticBlockStore.partition: {partition} is not within 0 to 255")
        volume_id = parse_volume_name(declared.volume_id).id
        return EbsOptions(volume_id, declared.fs_type or DEFAULT_FS_TYPE, partition)

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """All of them; a raw device is neither formatted nor mounted."""
        if mode is VolumeMode.BLOCK:
            return (Phase.ATTACH, Phase.PUBLISH)
        return (Phase.ATTACH, Phase.PREPARE, Phase.STAGE, Phase.PUBLISH)

    def backend(self, options: Options) -> str:
        """The API: one that is slow holds no other volume back."""
        return BACKEND

    # -- attaching ---------------------------------------------------------------------------

    async def attach(self, volume: VolumeSpec) -> Attached:
        """Have the volume attached to this instance, and find its disk."""
        options = _options_of(volume)
        place = await self._fetch_place(options.volume_id)
        with explained():
            attachment = await self._ensure_attached(options.volume_id, place)
        disk = await self._await_disk(options.volume_id, attachment.device)
        device = self._part_of(disk, options)
        held = msgspec.structs.replace(hold_device(device), handle=options.volume_id)
        return Attached(f"{options.volume_id} at {device.path}", held)

    async def _ensure_attached(self, volume_id: str, place: Place) -> Attachment:
        begun = False
        try:
            async with asyncio.timeout(ATTACH_TIMEOUT_S):
                while True:
                    found = await self._look(volume_id)
                    mine = found.attachment_to(place.instance_id) if found is not None else None
                    if mine is not None and mine.state == "attached":
                        return mine
                    if mine is None and not begun:
                        _refuse_unattachable(volume_id, found, place)
                        begun = await self._begin(volume_id, place)
                        continue
                    begun = True
                    await asyncio.sleep(self.poll_s)
        except TimeoutError as error:
            raise Uncertain(
                f"{volume_id} is still being attached after {ATTACH_TIMEOUT_S:.0f} s",
                remedy="see the volume's attachment state; it is looked at again",
            ) from error

    async def _fetch_place(self, volume_id: str) -> Place:
        try:
            return await self.cloud.fetch_place()
        except Transient as error:
            raise _explain_blindness(volume_id, error) from error

    async def _look(self, volume_id: str) -> EbsVolume | None:
        try:
            return await self.volumes.find(volume_id)
        except Transient as error:
            raise _explain_blindness(volume_id, error) from error
        except Ec2Error as error:
            failure = explain(error)
            if isinstance(failure, Transient):
                raise _explain_blindness(volume_id, failure) from error
            raise

    async def _begin(self, volume_id: str, place: Place) -> bool:
        """Ask for the attachment, under a name that is free."""
        async with self._naming:
            used = await self.volumes.used_names(place.instance_id)
            name = choose_device_name(used | self._refused)
            if name is None:
                self._refused.clear()
                raise Transient(
                    f"no device name is free on {place.instance_id}",
                    remedy="see what is attached to it; an instance has few places for disks",
                )
            try:
                await self.volumes.attach(volume_id, place.instance_id, name)
            except Ec2Error as error:
                named = error.code == "InvalidParameterValue" and name in error.message
                if named and any(words in error.message for words in _NAME_TAKEN):
                    self._refused.add(name)
                    raise Transient(f"{error}: another name is tried") from error
                raise
        return True

    async def _await_disk(self, volume_id: str, name: str) -> BlockDevice:
        try:
            async with asyncio.timeout(DEVICE_TIMEOUT_S):
                while True:
                    disk = self._find_disk(volume_id, name)
                    if disk is not None:
                        return disk
                    await asyncio.sleep(min(self.poll_s, 0.25))
        except TimeoutError as error:
            raise Uncertain(
                f"{volume_id} is attached as {name}, but no disk of this machine is it",
                remedy=f"see `lsblk -o NAME,SERIAL` and {self.cloud.config.device_links}; is"
                " instance_id under [aws] this machine's?",
            ) from error

    def _find_disk(self, volume_id: str, name: str) -> BlockDevice | None:
        """By serial number, by udev's link, by the name on a Xen instance."""
        devices = self.host.devices
        try:
            found = devices.find_disk(serial_of(volume_id))
            if found is not None:
                return found
            try:
                return devices.identify(f"{self.cloud.config.device_links}/{link_of(volume_id)}")
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

    def _part_of(self, disk: BlockDevice, options: EbsOptions) -> BlockDevice:
        if not options.partition:
            return disk
        between = "p" if disk.path[-1:].isdigit() else ""
        path = f"{disk.path}{between}{options.partition}"
        try:
            return self.host.devices.identify(path)
        except Absent as error:
            raise Uncertain(
                f"{options.volume_id} has no partition {options.partition} ({path})",
                remedy="leave partition out, or partition the volume",
            ) from error
        except HostError as error:
            raise explain_failure(error, path) from error

    async def detach(self, name: str, device: HeldDevice) -> Done:
        """Write everything out, then have exactly this volume detached from this instance."""
        volume_id = device.handle
        place = await self.cloud.fetch_place()
        disk = self._find_disk(volume_id, "") or self._still(device)
        if disk is not None:
            await self._flush(disk)
        asked = False
        with explained():
            try:
                async with asyncio.timeout(DETACH_TIMEOUT_S):
                    while True:
                        found = await self.volumes.find(volume_id)
                        mine = found.attachment_to(place.instance_id) if found else None
                        if mine is None:
                            return Done(f"{volume_id} detached")
                        if not asked and mine.state != "detaching":
                            asked = await self._ask_to_detach(volume_id, place)
                            continue
                        await asyncio.sleep(self.poll_s)
            except TimeoutError as error:
                raise Uncertain(
                    f"{volume_id} is still being detached after {DETACH_TIMEOUT_S:.0f} s",
                    remedy="see the instance's console; a forced detach can lose data",
                ) from error

    async def _ask_to_detach(self, volume_id: str, place: Place) -> bool:
        try:
            await self.volumes.detach(volume_id, place.instance_id)
        except Ec2Error as error:
            if error.code not in ("InvalidAttachment.NotFound", "IncorrectState"):
                raise
        return True

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
                    await asyncio.sleep(min(self.poll_s, 0.25))
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


def _explain_blindness(volume_id: str, error: Transient) -> Uncertain:
    """Nobody says whether a volume is attached: it may be, by an attempt before."""
    return Uncertain(f"{volume_id} may be attached or not: {error}", remedy=error.remedy)


def _refuse_unattachable(volume_id: str, found: EbsVolume | None, place: Place) -> None:
    """Raises what keeps a volume from being attached here."""
    problem: DriverError | None = None
    if found is None:
        problem = Transient(
            f"{volume_id} does not exist",
            remedy="see its id, and the region and account that are used",
        )
    elif kept.is_trashed(found.tags):
        problem = Rejected(
            f"{volume_id} is in the trash until {found.tags[kept.EXPIRES]}",
            remedy="have it back with `volagent trash restore`",
        )
    elif found.attachments:
        where = found.attachments[0]
        problem = Transient(
            f"Multi-Attach error: {volume_id} is attached to {where.instance_id}"
            f" ({where.state}), and can be attached to one machine only",
            remedy="stop what uses it there, and have it detached",
            reason="FailedAttachVolume",
        )
    elif found.zone != place.zone:
        problem = Rejected(
            f"{volume_id} is in {found.zone}, and this machine in {place.zone}",
            remedy="declare the pod on a machine of that zone, or copy the volume by a snapshot",
        )
    if problem is not None:
        raise problem
