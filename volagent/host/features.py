"""What this kernel and machine can do: for `volagent doctor` and the log line at start.

Looks only, changes nothing: no mount, no module load, no file. A capability is asked for by making
the call in a way that must fail with another error than "no such call" or "no such flag". Takes a
few milliseconds. What a missing feature costs is said in its `detail`, what to do in its `remedy`.
"""

import errno
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from volagent.host import libc
from volagent.host.mountinfo import MountinfoReader
from volagent.host.mounttable import has_mount_events
from volagent.host.statmount import statmount_is_complete

_BAD_FD: Final = -1
_CAP_SYS_ADMIN: Final = 21
_FILE_SYSTEMS: Final = ("tmpfs", "ext4", "xfs", "btrfs", "nfs", "hugetlbfs")
_OLDEST: Final = (5, 15)
_UPGRADE: Final = "a newer kernel has it"


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing that volagent uses where it is there."""

    name: str
    available: bool
    detail: str
    """What it is for, or what was found."""
    remedy: str = ""
    """What to do when it is missing; empty when nothing needs to be done."""
    required: bool = False
    """volagent does not work without it."""


def detect_features() -> tuple[Feature, ...]:
    """All features of this machine, the required ones first."""
    return (
        _detect_release(),
        _detect_capability(),
        *_detect_calls(),
        *_detect_mount_tables(),
        _detect_no_swap(),
        *(_detect_file_system(name) for name in _FILE_SYSTEMS),
        _detect_loop_control(),
        _detect_cgroups(),
        _detect_propagation(),
    )


def _detect_release() -> Feature:
    release = platform.release()
    numbers = release.split("-", 1)[0].split(".")
    try:
        version = (int(numbers[0]), int(numbers[1]))
    except (ValueError, IndexError):
        version = (0, 0)
    return Feature(
        "kernel",
        version >= _OLDEST,
        f"Linux {release}",
        "Linux 5.15 is the oldest that volagent is made for",
        required=True,
    )


def _detect_capability() -> Feature:
    effective = 0
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("CapEff:"):
                effective = int(line.split()[1], 16)
    return Feature(
        "CAP_SYS_ADMIN",
        bool(effective >> _CAP_SYS_ADMIN & 1),
        "mounting needs it",
        "run the daemon as root, in the host's namespaces",
        required=True,
    )


def _knows(call: Callable[[], object]) -> bool:
    """Whether the kernel knows a call that was made with a descriptor that cannot be right."""
    try:
        call()
    except OSError as error:
        return error.errno in (errno.EBADF, errno.EPERM, errno.ENOENT)
    return True


def _detect_calls() -> tuple[Feature, ...]:
    how = libc.OpenHow(flags=os.O_PATH, resolve=libc.RESOLVE_NO_SYMLINKS | libc.RESOLVE_NO_XDEV)
    attr = libc.MountAttr(propagation=libc.MS_PRIVATE)
    return (
        Feature(
            "openat2",
            _knows(lambda: libc.openat2(_BAD_FD, b".", how)),
            "paths that cannot be led astray by links",
            "Linux 5.6; a seccomp filter may forbid it too",
            required=True,
        ),
        Feature(
            "new mount API",
            _knows(lambda: libc.open_tree(_BAD_FD, b".", 0)),
            "mounts by descriptor: open_tree, move_mount, fsopen",
            "Linux 5.2; a seccomp filter may forbid it too",
            required=True,
        ),
        Feature(
            "mount_setattr",
            _knows(lambda: libc.mount_setattr(_BAD_FD, 0, attr)),
            "binds that are read-only from their first moment, recursive read-only",
            "Linux 5.12; a seccomp filter may forbid it too",
            required=True,
        ),
        Feature(
            "id-mapped mounts",
            # They came with mount_setattr itself; asking further would need a user namespace.
            _knows(lambda: libc.mount_setattr(_BAD_FD, 0, attr)),
            "ownership can be shifted per mount; each file system must support it",
            f"Linux 5.12: {_UPGRADE}",
        ),
    )


def _detect_mount_tables() -> tuple[Feature, ...]:
    unique = libc.statx(libc.AT_FDCWD, b"/", 0, libc.STATX_MNT_ID_UNIQUE)
    has_unique = bool(unique.mask & libc.STATX_MNT_ID_UNIQUE)
    return (
        Feature(
            "unique mount ids",
            has_unique,
            "mounts are told apart for as long as the kernel runs"
            if has_unique
            else "mount ids are given out again; mounts are told apart by their place as well",
            "" if has_unique else f"Linux 6.8: {_UPGRADE}",
        ),
        Feature(
            "statmount",
            statmount_is_complete(),
            "one mount is looked up in microseconds among thousands; else /proc/self/mountinfo",
            f"Linux 6.13: {_UPGRADE}",
        ),
        Feature(
            "mount events",
            has_mount_events(),
            "fanotify says which mount came or went; else the whole table is read at each change",
            f"Linux 6.15: {_UPGRADE}",
        ),
    )


def _detect_no_swap() -> Feature:
    return Feature(
        "tmpfs noswap",
        _takes_no_swap(),
        "secrets in memory are kept out of swap",
        "Linux 6.4; before, turn swap off or encrypt it where secrets matter",
    )


def _takes_no_swap() -> bool:
    try:
        context = libc.fsopen(b"tmpfs")
    except OSError:
        return False
    try:
        libc.fsconfig(context, libc.FSCONFIG_SET_FLAG, b"noswap", None)
    except OSError:
        return False
    finally:
        os.close(context)
    return True


def _detect_file_system(name: str) -> Feature:
    with open("/proc/filesystems") as file:
        known = {line.split()[-1] for line in file}
    if name in known:
        return Feature(f"file system {name}", True, "in the kernel")
    if has_module(name):
        return Feature(f"file system {name}", True, "as a module, loaded at the first mount")
    detail = f"volumes of type {name} cannot be mounted"
    return Feature(
        f"file system {name}",
        False,
        detail,
        f"install a kernel, or its extra modules package, with {name}",
    )


def has_module(name: str) -> bool:
    """Whether modprobe would find a module, from the index that it reads itself."""
    index = f"/lib/modules/{platform.release()}/modules.dep"
    file_names = tuple(f"/{name}.ko{packed}:" for packed in ("", ".xz", ".zst", ".gz"))
    alias = f"alias fs-{name} "
    try:
        with open(index) as file:
            if any(part in line for line in file for part in file_names):
                return True
        with open(index.replace("modules.dep", "modules.alias")) as file:
            return any(line.startswith(alias) for line in file)
    except OSError:
        return False


def _detect_loop_control() -> Feature:
    return Feature(
        "loop devices",
        os.access("/dev/loop-control", os.R_OK | os.W_OK),
        "image files as volumes (image.volagent.dev)",
        "modprobe loop; in a container, pass /dev/loop-control and the loop devices in",
    )


def _detect_cgroups() -> Feature:
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    return Feature(
        "cgroup v2",
        unified,
        "containers run under the unified hierarchy"
        if unified
        else "the older or the hybrid hierarchy: crun refuses the hybrid one",
        "boot with systemd.unified_cgroup_hierarchy=1, or let podman use runc",
    )


def _detect_propagation() -> Feature:
    root = MountinfoReader().find_newest("/")
    shared = root is not None and root.propagation == "shared"
    return Feature(
        "shared root",
        shared,
        "mounts reach other namespaces, so mountPropagation works"
        if shared
        else "mounts made later do not reach running containers (mountPropagation)",
        "mount --make-rshared /",
    )
