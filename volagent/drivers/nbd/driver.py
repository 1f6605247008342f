"""nbd.volagent.dev on the node: connect an export, find it again, mount it, grow it, disconnect it.

A device is known by its export (`<server>:<port>/<export>`), which the kernel keeps with it, and
this is looked at before every step, so two exports are never taken for each other. An export has
one device on a machine, also when the daemon was killed between connecting and noting it.

A server that goes away: I/O waits, for up to a day, and goes on when it is back; a process per
device sees to that (`host/nbd_keeper.py`), whether the daemon runs or not. A server does not keep
two nodes apart: that is the cluster's work, by attachments (`Networked`).

Detaching writes out and disconnects exactly the recorded export, and nothing that anybody has open.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from volagent.drivers.binding import bind_into_pod, unbind_from_pod
from volagent.drivers.block import (
    check_identity,
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
    SecretName,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Transient, Uncertain
from volagent.drivers.failures import explain_busy
from volagent.drivers.nbd.failures import explain_nbd_failure
from volagent.drivers.nbd.options import NBD, NbdOptions, read_nbd_options, read_tls_material
from volagent.drivers.partitions import choose_part
from volagent.host.contract import BlockDevice, Host
from volagent.host.errors import Busy, HostError
from volagent.host.nbd import NbdLinks, NbdRequest
from volagent.host.nbd_link import Target

IDENTITY_PREFIX: Final = "nbd:"
"""Of the identity of a block device that the kernel's NBD has."""


@dataclass(frozen=True, slots=True)
class NbdDriver:
    """Connects, mounts and grows exports of NBD servers."""

    host: Host
    links: NbdLinks
    name: DriverName = NBD

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` naming the field or attribute."""
        return read_nbd_options(source)

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """All of them; a raw device is neither formatted nor mounted."""
        if mode is VolumeMode.BLOCK:
            return (Phase.ATTACH, Phase.PUBLISH)
        return (Phase.ATTACH, Phase.PREPARE, Phase.STAGE, Phase.PUBLISH)

    def backend(self, options: Options) -> str:
        """The server."""
        assert isinstance(options, NbdOptions)
        return options.backend

    def identify(self, options: Options) -> str:
        """`<server>:<port>/<export>`."""
        assert isinstance(options, NbdOptions)
        return options.identity

    def find_secret(self, options: Options) -> SecretName | None:
        """The TLS material, when TLS is asked for."""
        assert isinstance(options, NbdOptions)
        return options.secret

    async def attach(self, volume: VolumeSpec) -> Attached:
        """Find the export's device, or connect one. A raw device takes on its export's size."""
        options = _options_of(volume)
        request = _request_of(volume)
        known = self.links.find(options.identity)
        try:
            device = await self.links.connect(request)
            if known is not None and volume.mode is VolumeMode.BLOCK and _is_short(volume, device):
                await self.links.grow(request)
                device = self.host.devices.identify(device.path)
        except HostError as error:
            raise explain_nbd_failure(error, options) from error
        if device.identity != f"{IDENTITY_PREFIX}{options.identity}":
            raise Uncertain(f"{device.path} is {device.identity}, not {options.identity}")
        part = await self._choose_part(device, options)
        held = msgspec.structs.replace(hold_device(part), handle=options.identity)
        how = "found" if known is not None else "connected"
        return Attached(f"{options.identity} {how} at {part.path}", held)

    async def _choose_part(self, device: BlockDevice, options: NbdOptions) -> BlockDevice:
        """An export without the partition is disconnected, unless somebody uses another one."""
        try:
            return await choose_part(self.host, device, options.partition, options.identity)
        except Transient as error:
            try:
                await self.links.disconnect(device, options.identity)
            except HostError as left:
                text = f"{error}; and it could not be disconnected: {left}"
                raise Uncertain(text, remedy=error.remedy) from error
            raise

    async def detach(self, name: str, device: HeldDevice) -> Done:
        """Write everything out, and disconnect this export's device."""
        found = self.links.find(device.handle)
        if found is None:
            return Done(f"{device.handle} is not connected")
        try:
            await self.links.disconnect(found, device.handle)
        except Busy as error:
            raise await explain_busy(self.host, error, found.path) from error
        except HostError as error:
            raise Uncertain(
                f"{device.handle} may be connected still: {error}",
                remedy="see whether its server answers; what it has not stored is not given up."
                f" To lose it, `nbd-client -d {found.path}`",
            ) from error
        return Done(f"{device.handle} disconnected from {found.path}")

    def list_attached(self) -> dict[str, HeldDevice]:
        """The connected devices that bear the name of an export."""
        return {
            identity: msgspec.structs.replace(hold_device(device), handle=identity)
            for identity, device in self.links.list_connected().items()
        }

    async def cut(self, device: HeldDevice) -> Done:
        """Disconnect the export's device, under whatever is mounted or open."""
        found = self.links.find(device.handle)
        if found is None:
            return Done(f"{device.handle} is not connected")
        try:
            await self.links.cut(found, device.handle)
        except HostError as error:
            raise Uncertain(
                f"{device.handle} could not be cut off: {error}",
                remedy=f"`nbd-client -d {found.path}`",
            ) from error
        return Done(f"{device.handle} disconnected from {found.path} unwritten")

    async def discard(self, name: str, device: HeldDevice) -> Done:
        """It is disconnected; the kernel forgets it with its last user."""
        await self.cut(device)
        if self.links.find(device.handle) is not None:
            raise Transient(
                f"{device.path} is still in use", remedy="see who has it open: `fuser -v`"
            )
        return Done(f"{device.handle} given up unwritten")

    async def prepare(self, volume: VolumeSpec, device: HeldDevice) -> Done:
        """Format if blank, else check."""
        options = _options_of(volume)
        return await prepare_device(
            self.host, volume, device, device.path, fs_type=options.fs_type, formats=True
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
        """Take on the export's new size by a new connection, then let the file system fill it."""
        options = _options_of(volume)
        check_identity(self.host, device)
        try:
            size_bytes = await self.links.grow(_request_of(volume))
        except HostError as error:
            raise explain_nbd_failure(error, options) from error
        if options.partition:
            size_bytes = self.host.devices.identify(device.path).size_bytes
        elif size_bytes < (volume.capacity_bytes or 0):
            raise Transient(
                f"{options.identity} has {size_bytes >> 20} MiB, and its volume"
                f" {(volume.capacity_bytes or 0) >> 20} MiB",
                remedy="make the export larger on its server; it is looked at again",
            )
        grown = msgspec.structs.replace(device, size_bytes=size_bytes)
        return await expand_device(self.host, grown, staged, options.fs_type)


def _options_of(volume: VolumeSpec) -> NbdOptions:
    assert isinstance(volume.options, NbdOptions)
    return volume.options


def _request_of(volume: VolumeSpec) -> NbdRequest:
    """What the host shall do; without the secret's data nothing new is connected by TLS."""
    options = _options_of(volume)
    tls = None
    if options.tls and volume.credentials is not None:
        tls = read_tls_material(options, volume.credentials)
    target = Target(options.server, options.port, options.export, tls)
    return NbdRequest(target, options.tls, volume.read_only, options.backend)


def _is_short(volume: VolumeSpec, device: BlockDevice) -> bool:
    """A partition stays as it is, whatever the export's size."""
    whole = not _options_of(volume).partition
    return whole and device.size_bytes < (volume.capacity_bytes or 0)
