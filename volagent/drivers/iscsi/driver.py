"""kubernetes.io/iscsi on the node: log in, find exactly one LUN, mount, grow, give it back.

A number of a target is only where a disk is looked for; what the disk says of itself (its WWID) is
who it is. It is recorded when the disk is attached and asked for again, from the storage itself,
before anything is formatted or mounted: storage shows another disk under the same number sooner or
later, and the kernel does not notice. What then stands is left as it is, and told.

Where that is wanted (`reserves`), the storage keeps other nodes out of an exclusive disk by a
persistent reservation (`host/iscsi/claims.py`), and a disk that does not know this node's key any
more was taken from it: it is not written to again, and taken away as it is.

Whenever the kernel shows anything of the LUN after a failure, the failure is `Uncertain`: it is
looked for again, and taken away when nobody wants it any more.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import msgspec

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
    Credentials,
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
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.failures import explain_busy
from volagent.drivers.iscsi.failures import explain, explain_changed, explain_fenced
from volagent.drivers.iscsi.options import IscsiOptions, name_disk, read_iscsi_options
from volagent.drivers.partitions import choose_part
from volagent.host.contract import BlockDevice, Host, MountId
from volagent.host.errors import Busy, HostError
from volagent.host.iscsi.contract import (
    Chap,
    Claim,
    Fenced,
    FoundLun,
    Initiator,
    LunChanged,
    LunHandle,
    LunWish,
    always,
)
from volagent.objects.reservation_keys import attachment_key, guard_key
from volagent.observe.logs import get_logger

ISCSI: Final = DriverName("kubernetes.io/iscsi")
_log = get_logger("iscsi")
_SESSION: Final = "node.session.auth"
_DISCOVERY: Final = "discovery.sendtargets.auth"


class _Handle(msgspec.Struct, frozen=True, omit_defaults=True):
    """What tear-down needs, as it is recorded."""

    iqn: str
    lun: int
    wwid: str
    interface: str
    portals: tuple[str, ...]
    key: int = 0
    guard: int = 0


@dataclass(frozen=True, slots=True)
class IscsiDriver:
    """Attaches and mounts LUNs."""

    host: Host
    initiator: Initiator
    name: DriverName = ISCSI

    @property
    def reserves(self) -> bool:
        """Whether the storage is to keep other nodes out of an exclusive disk."""
        return self.initiator.reserves

    def read_options(self, source: VolumeSource) -> Options:
        """Raises `Rejected` naming the field."""
        return read_iscsi_options(source)

    def phases(self, options: Options, mode: VolumeMode) -> tuple[Phase, ...]:
        """All of them; a raw device is neither formatted nor mounted."""
        if mode is VolumeMode.BLOCK:
            return (Phase.ATTACH, Phase.PUBLISH)
        return (Phase.ATTACH, Phase.PREPARE, Phase.STAGE, Phase.PUBLISH)

    def backend(self, options: Options) -> str:
        """The first portal."""
        assert isinstance(options, IscsiOptions)
        return f"iscsi:{options.portals[0]}"

    def identify(self, options: Options) -> str:
        """The target's name and the LUN, whichever portal it is reached by."""
        assert isinstance(options, IscsiOptions)
        return options.identity

    def find_secret(self, options: Options) -> SecretName | None:
        """The secret for CHAP."""
        assert isinstance(options, IscsiOptions)
        return options.secret

    # -- the device --------------------------------------------------------------------------

    async def anticipate(self, volume: VolumeSpec) -> None:
        """Ask the portals what they offer, which is no login and needs no disk."""
        options = _options_of(volume)
        if options.discovery_chap:
            return  # no credentials are used before they are needed
        wish = LunWish(
            options.iqn, options.lun, options.portals, options.interface, options.initiator_name
        )
        with suppress(HostError):
            await self.initiator.anticipate(wish)

    async def attach(self, volume: VolumeSpec) -> Attached:
        """Log in to all portals that answer, and find the disk."""
        options = _options_of(volume)
        claim = _make_claim(volume) if self.reserves else None
        wish = make_wish(options, volume.credentials, read_only=volume.read_only, claim=claim)
        try:
            found = await self.initiator.attach(wish)
        except HostError as error:
            raise explain(error, wish, left=self.initiator.is_present(wish)) from error
        if found.remarks:
            _log.info("disk attached, and something was not as it should be",
                      volume=volume.key, disk=found.handle.wwid, remarks=found.remarks)  # fmt: skip
        device = await self._choose_part(found, options)
        return Attached(_describe(found, device), _hold(device, found.handle, options.portals))

    async def _choose_part(self, found: FoundLun, options: IscsiOptions) -> BlockDevice:
        """A disk without the partition is given back, unless somebody uses another one of it."""
        try:
            return await choose_part(self.host, found.device, options.partition, options.identity)
        except Transient as error:
            try:
                await self.initiator.detach(found.handle, found.device)
            except HostError as left:
                text = f"{error}; and it could not be given back: {left}"
                raise Uncertain(text, remedy=error.remedy) from error
            raise

    async def detach(self, name: str, device: HeldDevice) -> Done:
        """Write out, take exactly this disk away, log out when it was the target's last."""
        return await self._give_back(device, write_out=True)

    async def _give_back(self, device: HeldDevice, *, write_out: bool) -> Done:
        handle = _read_handle(device)
        try:
            said = await self.initiator.detach(handle, as_device(device), write_out=write_out)
        except Busy as error:
            raise await explain_busy(self.host, error, device.path) from error
        except HostError as error:
            raise Uncertain(
                f"{device.path} ({handle.wwid}) could not be given back: {error}",
                remedy="see the kernel's log and the target's portals; when the target is gone for"
                f" good, `iscsiadm -m node -T {handle.iqn} --logout`",
            ) from error
        return Done("; ".join(said) or f"{handle.wwid} was gone already")

    def list_attached(self) -> dict[str, HeldDevice]:
        """The disks of sessions that were made here, and sessions without a disk."""
        try:
            found = self.initiator.list_attached()
        except HostError as error:
            raise Uncertain(f"what is attached cannot be read: {error}") from error
        return {
            name_disk(each.handle.iqn, each.handle.lun): _hold(each.device, each.handle, each.paths)
            for each in found
        }

    async def is_fenced(self, device: HeldDevice) -> bool:
        """Whether this node's key is gone, of a disk that it registered one for."""
        handle = _read_handle(device)
        return bool(handle.key) and await self.initiator.is_fenced(handle)

    async def cut(self, device: HeldDevice) -> Done:
        """Set every path of the disk offline, under whatever is mounted or open."""
        handle = _read_handle(device)
        try:
            paths = await self.initiator.cut(handle)
        except HostError as error:
            raise Uncertain(
                f"{device.path} ({handle.wwid}) could not be cut off: {error}",
                remedy="see the kernel's log; the storage refuses what this node writes",
            ) from error
        return Done(f"offline: {', '.join(paths)}" if paths else f"{handle.wwid} was gone already")

    async def discard(self, name: str, device: HeldDevice) -> Done:
        """Take exactly this disk away unwritten, log out when it was the target's last."""
        return await self._give_back(device, write_out=False)

    @contextmanager
    def _explained(self, device: HeldDevice) -> Iterator[None]:
        try:
            yield
        except LunChanged as error:
            raise explain_changed(error) from error
        except Fenced as error:
            raise explain_fenced(error) from error
        except HostError as error:
            raise Uncertain(
                f"{device.path} cannot be asked who it is: {error}",
                remedy="see `iscsiadm -m session -P 3` and the target's portals",
            ) from error

    async def _check(self, device: HeldDevice) -> None:
        """That the disk is the one that was attached. Raises `Uncertain`."""
        with self._explained(device):
            await self.initiator.check(_read_handle(device))

    # -- mounting ----------------------------------------------------------------------------

    async def prepare(self, volume: VolumeSpec, device: HeldDevice) -> Done:
        """Format if blank, else check."""
        await self._check(device)
        fs_type = _options_of(volume).fs_type
        return await prepare_device(
            self.host, volume, device, device.path, fs_type=fs_type, formats=fs_type in FORMATS
        )

    async def stage(self, volume: VolumeSpec, device: HeldDevice, target: str) -> Mounted:
        """Mount it, and let it fill its device."""
        await self._check(device)
        return await stage_device(self.host, volume, device, target, _options_of(volume).fs_type)

    async def unstage(self, staged: HeldMount) -> Done:
        """Unmount it, which writes everything out as long as a path to the disk is up."""
        stands = self.host.mounts.find_mount(MountId(staged.mount_id)) is not None
        fenced = stands and await self._drop_if_fenced(staged)
        done = await unstage_device(self.host, staged)
        if fenced:
            return Done("unmounted unwritten: its storage does not know this node's key any more")
        if stands and not self.initiator.is_up(staged.device):
            text = "unmounted while no path to the disk was up: what was not written yet is lost"
            return Done(text)
        return done

    async def _drop_if_fenced(self, staged: HeldMount) -> bool:
        """A storage that does not answer is no reason to keep a mount."""
        try:
            return await self.initiator.drop_if_fenced(staged.device)
        except HostError:
            return False

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
            await self._check(device)
            return link_device(self.host, use, device)
        assert staged is not None
        read_only = use.read_only or volume.read_only
        return await bind_into_pod(self.host, staged.path, use, read_only=read_only)

    async def unpublish(self, published: HeldMount) -> Done:
        """Unmount, or remove the link."""
        return await unbind_from_pod(self.host, published)

    async def expand(self, volume: VolumeSpec, device: HeldDevice, staged: HeldMount) -> Done:
        """Have the kernel see the disk's new size, then its map, then the file system."""
        with self._explained(device):
            found = await self.initiator.rescan(_read_handle(device))
        options = _options_of(volume)
        part = await choose_part(self.host, found.device, options.partition, options.identity)
        size_bytes = part.size_bytes
        wanted = 0 if options.partition else volume.capacity_bytes or 0
        if size_bytes < wanted:
            raise Transient(
                f"{device.path} has {size_bytes >> 20} MiB, and not yet {wanted >> 20}",
                remedy="make the LUN larger on the storage",
            )
        grown = msgspec.structs.replace(device, size_bytes=size_bytes)
        return await expand_device(self.host, grown, staged, options.fs_type)


def make_wish(
    options: IscsiOptions,
    credentials: Credentials | None,
    *,
    read_only: bool,
    claim: Claim | None = None,
) -> LunWish:
    """What the initiator is asked for. Raises `Rejected` for a secret that lacks something."""
    return LunWish(
        options.iqn,
        options.lun,
        options.portals,
        options.interface,
        options.initiator_name,
        _read_chap(_SESSION, options, credentials) if options.session_chap else None,
        _read_chap(_DISCOVERY, options, credentials) if options.discovery_chap else None,
        read_only,
        claim,
    )


def _make_claim(volume: VolumeSpec) -> Claim | None:
    """What the disk's storage is to know of this node."""
    permission = volume.permission
    if permission is None:
        return None
    key = attachment_key(permission.attachment_uid, permission.node)
    exclusive = permission.exclusive and not volume.read_only
    confirm = permission.confirm or always
    return Claim(key, guard_key(permission.node), exclusive=exclusive, confirm=confirm)


def _read_chap(prefix: str, options: IscsiOptions, credentials: Credentials | None) -> Chap:
    """The keys are those of Kubernetes' secrets of the type `kubernetes.io/iscsi-chap`."""
    name = options.secret.name if options.secret is not None else ""
    if credentials is None:
        raise Transient(f"the secret {name} is needed for CHAP, and is not there")
    chap = Chap(
        *(
            credentials.text(f"{prefix}.{key}")
            for key in ("username", "password", "username_in", "password_in")
        )
    )
    if not chap.username or not chap.password:
        raise Rejected(
            f"the secret {name} lacks {prefix}.username or {prefix}.password",
            remedy="correct the secret",
        )
    return chap


def _describe(found: FoundLun, device: BlockDevice) -> str:
    how = f", {len(found.paths)} paths as {found.multipath}" if found.multipath else ""
    by = ", ".join(found.paths)
    text = f"{found.handle.wwid} at {device.path} by {by}{how}"
    return "; ".join((text, *found.remarks))


def _hold(device: BlockDevice, found: LunHandle, portals: tuple[str, ...]) -> HeldDevice:
    """A disk, or a partition of one, as it is recorded."""
    handle = _Handle(
        found.iqn, found.lun, found.wwid, found.interface, portals, found.key, found.guard
    )
    text = msgspec.json.encode(handle).decode()
    return msgspec.structs.replace(hold_device(device), handle=text)


def _read_handle(device: HeldDevice) -> LunHandle:
    recorded = msgspec.json.decode(device.handle, type=_Handle)
    return LunHandle(
        recorded.iqn, recorded.lun, recorded.wwid, recorded.interface, recorded.key, recorded.guard
    )


def _options_of(volume: VolumeSpec) -> IscsiOptions:
    assert isinstance(volume.options, IscsiOptions)
    return volume.options
