"""What all volumes on a block device share: prepare, stage, grow, link. Functions, no state.

A device is looked at before anything is done to it, and its identity is checked before and after
it is mounted: a mounted device cannot be exchanged, so the second look is the proof. What may be
formatted is decided here by the declaration; whether it is blank, by the host, once more.

Read-only volumes: the device is attached read-only, so not even a journal is replayed. A file
system that needs a replay is then refused by the kernel, and so by us, with the choice that the
user has: mount it writable once, or say `noload` (ext4) or `norecovery` (xfs) in mountOptions and
read it as it is. That choice is never made here, because it shows stale or broken files.
"""

import errno
from typing import Final

from volagent.drivers.binding import explain_contents, refuse_cover, reject_option
from volagent.drivers.contract import (
    Done,
    HeldDevice,
    HeldMount,
    Mounted,
    Publication,
    VolumeSpec,
)
from volagent.drivers.errors import DriverError, Rejected, Transient, Uncertain
from volagent.drivers.failures import explain_busy, explain_failure
from volagent.host.contract import BlockDevice, Host, MountEntry, MountId
from volagent.host.errors import Absent, Busy, HostError, NotEmpty, TimedOut, Unsupported

FORMATS: Final = ("ext4", "xfs", "btrfs")
"""What a blank device may be given."""
STAGE_MODE: Final = 0o750
LOCAL: Final = "local"
"""The backend of what this machine's own kernel answers for: it does not hang."""
UNMOUNT_TIMEOUT_S: Final = 300.0
"""How long writing out may take before the next try; the kernel goes on writing meanwhile."""
MISMATCH_REASON: Final = "FailedMountOnFilesystemMismatch"
_REPAIRS: Final = {
    "ext4": "e2fsck -f",
    "ext3": "e2fsck -f",
    "ext2": "e2fsck -f",
    "xfs": "xfs_repair",
    "btrfs": "btrfs check",
}
_DAMAGED: Final = (errno.EUCLEAN, errno.EBADMSG, errno.EIO)
_WORDS_OF_BAD_OPTIONS: Final = ("nknown parameter", "nrecognized mount option", "Bad value for")


def hold_device(device: BlockDevice) -> HeldDevice:
    """A device as it is recorded."""
    return HeldDevice(
        device.path, device.number, device.identity, device.size_bytes, device.read_only
    )


def as_device(held: HeldDevice) -> BlockDevice:
    """A recorded device as the host knows it."""
    return BlockDevice(held.path, held.number, held.identity, held.size_bytes, held.read_only)


async def prepare_device(
    host: Host, volume: VolumeSpec, device: HeldDevice, subject: str, *, fs_type: str, formats: bool
) -> Done:
    """Make a device mountable: look, format what is blank if `formats`, check.

    `subject` is what people call it (the image's path). Without `fs_type`, any file system will do.
    """
    check_identity(host, device)
    try:
        found = await host.devices.probe(device.path)
    except HostError as error:
        raise _explain_unreadable(error, subject) from error
    if found.blank:
        return await _format(host, volume, device, subject, fs_type if formats else "")
    if not found.fs_type:
        raise Rejected(
            f"{subject} holds {found.found}, and no file system: it is left as it is",
            remedy=f"use another one; or, if nothing on it is needed, `wipefs -a {subject}`"
            " and declare the pod again",
        )
    if fs_type and found.fs_type != fs_type:
        raise Rejected(
            f"{subject} holds {found.fs_type}, but fsType is {fs_type}: it is left as it is",
            remedy=f"set fsType to {found.fs_type}, or use another one",
            reason=MISMATCH_REASON,
        )
    if volume.read_only:
        return Done(f"{found.fs_type}, not checked: the volume is read-only")
    return await _check(host, device, subject, found.fs_type)


async def _format(
    host: Host, volume: VolumeSpec, device: HeldDevice, subject: str, fs_type: str
) -> Done:
    if volume.read_only:
        raise Rejected(
            f"{subject} is blank, and is not formatted because the volume is read-only",
            remedy="declare it writable once, so that it is formatted and filled",
        )
    if not fs_type:
        raise Rejected(
            f"{subject} is blank, and is not formatted because nothing says what with",
            remedy=f"set fsType to one of {', '.join(FORMATS)} to have it formatted",
        )
    try:
        await host.devices.make_filesystem(as_device(device), fs_type=fs_type)
    except Busy as error:
        raise Transient(str(error), remedy="see who uses or formats the device") from error
    except Unsupported as error:
        raise Transient(str(error), remedy=error.detail) from error
    except HostError as error:
        if error.errno == errno.ENOSPC:
            raise Rejected(
                f"{subject} is too small: {error.detail or error}", remedy="declare a larger one"
            ) from error
        raise Uncertain(
            f"cannot format {subject}: {error}",
            remedy="see the kernel's log; an image cannot be written when its disk is full",
        ) from error
    return Done(f"was blank, formatted as {fs_type}")


async def _check(host: Host, device: HeldDevice, subject: str, fs_type: str) -> Done:
    try:
        report = await host.devices.check_filesystem(as_device(device), fs_type=fs_type)
    except Busy as error:
        if any(_shows(entry, device) for entry in host.mounts.read_table().entries):
            return Done(f"{fs_type}, mounted already")
        raise Transient(str(error), remedy="see who uses the device") from error
    except Unsupported as error:
        raise Transient(str(error), remedy=error.detail) from error
    except HostError as error:
        raise explain_failure(error, subject) from error
    if not report.clean:
        message = f"{fs_type} on {subject} is damaged: {report.detail}"
        raise _explain_damage(message, fs_type, subject)
    words = (fs_type, "repaired" if report.repaired else "", report.detail)
    return Done(", ".join(word for word in words if word))


def _explain_unreadable(error: HostError, subject: str) -> Transient:
    if isinstance(error, Unsupported):
        return Transient(str(error), remedy=error.detail)
    return Transient(
        f"cannot read {subject}: {error}",
        remedy="see the kernel's log; what cannot be read is neither mounted nor formatted",
    )


def _explain_damage(message: str, fs_type: str, subject: str) -> Transient:
    tool = _REPAIRS.get(fs_type, f"fsck.{fs_type}")
    return Transient(message, remedy=f"copy it first, then repair it: `{tool} {subject}`")


async def stage_device(
    host: Host, volume: VolumeSpec, device: HeldDevice, target: str, fs_type: str
) -> Mounted:
    """Mount a prepared device at its global path, and let the file system fill the device."""
    check_identity(host, device)
    try:
        mount_id = await _ensure_mount(host, volume, device, target, fs_type)
    except HostError as error:
        failure = _explain_mount(error, volume, target, fs_type, device.path)
        if not isinstance(failure, Uncertain):
            _remove_quietly(host, target)
        raise failure from error
    check_identity(host, device)
    evidence = f"{fs_type} from {device.path}{', read-only' if volume.read_only else ''}"
    if not volume.read_only:
        evidence += await _fill_device(host, device, target, fs_type)
    return Mounted(evidence, HeldMount(target, mount_id, device=device.number))


async def _fill_device(host: Host, device: HeldDevice, mounted_at: str, fs_type: str) -> str:
    """Grow what was made smaller than its device is now; what was done, in words.

    A failure leaves a file system that is good in its old size, so it is only told.
    """
    try:
        grew = await host.devices.grow(as_device(device), fs_type=fs_type, mounted_at=mounted_at)
    except HostError as error:
        return f", in its old size: {error}"
    return ", grown to its device" if grew else ""


async def _ensure_mount(
    host: Host, volume: VolumeSpec, device: HeldDevice, target: str, fs_type: str
) -> MountId:
    if not host.trees.ensure_dir(target, mode=STAGE_MODE):
        standing = host.mounts.find_mount_at(target)
        if standing is not None:
            if not _shows(standing, device):
                raise refuse_cover(standing)
            return standing.mount_id
    return await host.mounts.mount_device(
        device.path,
        target,
        fs_type=fs_type,
        options=volume.mount_options,
        read_only=volume.read_only,
        backend="" if volume.backend == LOCAL else f"device:{device.path}",
    )


def _shows(standing: MountEntry, device: HeldDevice) -> bool:
    """Whether a mount is of a device; btrfs has numbers of its own, so there the path counts."""
    return standing.device == device.number or standing.source == device.path


def check_identity(host: Host, device: HeldDevice) -> None:
    """Raises `Uncertain` when a path no longer leads to the device that was attached."""
    try:
        found = host.devices.identify(device.path)
    except Absent as error:
        raise Uncertain(f"the device is gone: {error}") from error
    except HostError as error:
        raise explain_failure(error, device.path) from error
    if (found.number, found.identity) != (device.number, device.identity):
        raise Uncertain(
            f"{device.path} is {found.identity} now, and was {device.identity}",
            remedy="see who exchanged the device; delete the pod and declare it again",
        )


def _explain_mount(
    error: HostError, volume: VolumeSpec, target: str, fs_type: str, device: str
) -> DriverError:
    if isinstance(error, Unsupported):
        return Transient(str(error), remedy=f"a kernel, or a module, with {fs_type} is needed")
    if error.errno == errno.EROFS and volume.read_only:
        return Rejected(
            f"{error}; {fs_type} was not unmounted cleanly and cannot be repaired read-only",
            remedy="mount it writable once; or read it as it is, with mountOptions noload (ext4)"
            " or norecovery (xfs)",
        )
    if any(words in error.detail for words in _WORDS_OF_BAD_OPTIONS):
        return reject_option(error, volume.mount_options)
    if error.errno in _DAMAGED:
        return _explain_damage(str(error), fs_type, device)
    if error.errno == errno.EINVAL:
        return Transient(
            str(error),
            remedy="see the kernel's log; a copy of another mounted xfs needs mountOptions nouuid",
        )
    return explain_failure(error, target)


async def expand_device(host: Host, device: HeldDevice, staged: HeldMount, fs_type: str) -> Done:
    """Let a mounted file system fill its grown device."""
    try:
        grew = await host.devices.grow(as_device(device), fs_type=fs_type, mounted_at=staged.path)
    except Unsupported as error:
        raise Transient(str(error), remedy=error.detail) from error
    except HostError as error:
        raise Uncertain(
            f"cannot grow {fs_type} on {device.path}: {error}",
            remedy="see the kernel's log; ext4 grows while mounted only with CAP_SYS_RESOURCE",
        ) from error
    return Done("grown to its device" if grew else "fills its device already")


async def unstage_device(host: Host, staged: HeldMount) -> Done:
    """Unmount the global mount, which writes everything out, and remove its directory."""
    path = staged.path
    try:
        if staged.mount_id:
            await _unmount(host, staged)
        host.trees.remove_dir(path)
    except Busy as error:
        raise await explain_busy(host, error, path) from error
    except NotEmpty as error:
        raise explain_contents(error, path) from error
    except TimedOut as error:
        raise Uncertain(
            f"{path} is still being written out, or its disk does not answer: {error}",
            remedy="see the kernel's log; nothing was detached",
        ) from error
    return Done("written out and unmounted" if staged.mount_id else "removed")


async def _unmount(host: Host, staged: HeldMount) -> None:
    standing = host.mounts.find_mount(MountId(staged.mount_id))
    if standing is None or standing.mount_point != staged.path:
        return
    try:
        await host.mounts.unmount_slowly(
            staged.path,
            backend=f"device:{standing.device}",
            timeout_s=UNMOUNT_TIMEOUT_S,
            force=False,
            lazy=False,
        )
    except Absent:
        return


def link_device(host: Host, use: Publication, device: HeldDevice) -> Mounted:
    """Show a raw device to a pod, as a link to its node."""
    check_identity(host, device)
    try:
        host.trees.ensure_link(use.target, device.path)
    except HostError as error:
        raise explain_failure(error, use.target) from error
    return Mounted(f"link to {device.path}", HeldMount(use.target, device=device.number))


def _remove_quietly(host: Host, path: str) -> None:
    try:
        host.trees.remove_dir(path)
    except HostError:
        return
