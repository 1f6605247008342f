"""What `volagent doctor` says of a storage node: whether it can make volumes and show them.

Looks only: no module is loaded, no server asked.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from volagent.cli.checks import FAIL, OK, WARN, Finding, find_file_system
from volagent.host.contract import MountEntry
from volagent.objects.storage_nodes import NEARLY_FULL_PERCENT
from volagent.settings import Settings
from volagent.settings_storage import StorageSettings

if TYPE_CHECKING:
    from volagent.host.thin_pool import PoolState

_AREA = "storage"
_SHARES_BLOCKS = ("xfs", "btrfs")
_MODULES = ("target_core_mod", "target_core_file", "iscsi_target_mod")
_LOOK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class StorageFacts:
    """What was found on this machine."""

    directory: str
    exists: bool
    mount_point: str
    """Of the file system that the directory is on."""
    fs_type: str
    free_bytes: int
    modules_missing: tuple[str, ...]
    """Of the kernel's iSCSI target, neither loaded nor to be had."""
    login_is_stuck: bool
    nfs_server: bool
    """Whether the kernel's NFS server serves."""
    exportfs: bool
    pool: "PoolState | None" = None
    """The thin pool, if it is active."""
    pool_error: str = ""
    thin_check: bool = True


def look_at_storage(settings: Settings, mounts: Sequence[MountEntry]) -> StorageFacts:
    """Read them; takes a second when a login is waiting."""
    from volagent.host.features import has_module

    directory = settings.storage.directory or f"{settings.state_dir}/storage"
    under = find_file_system(os.path.realpath(directory), mounts)
    try:
        room = os.statvfs(directory)
        free_bytes = room.f_bavail * room.f_frsize
    except OSError:
        free_bytes = 0
    pool, pool_error = _look_at_pool(settings.storage.thin_pool)
    return StorageFacts(
        directory,
        os.path.isdir(directory),
        under.mount_point if under is not None else "",
        under.fs_type if under is not None else "",
        free_bytes,
        tuple(
            name
            for name in _MODULES
            if not os.path.isdir(f"/sys/module/{name}") and not has_module(name)
        ),
        _is_stuck(),
        _count_nfs_threads() > 0,
        _is_installed("exportfs"),
        pool,
        pool_error,
        _is_installed("thin_check"),
    )


def _is_installed(program: str) -> bool:
    return bool(shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"))


def _look_at_pool(name: str) -> "tuple[PoolState | None, str]":
    if not name:
        return None, ""
    from volagent.host.errors import HostError
    from volagent.host.process import Helpers
    from volagent.host.thin_pool import ThinPool

    async def look() -> "PoolState | None":
        helpers = Helpers()
        try:
            return await ThinPool(helpers, name, "").look()
        finally:
            await helpers.close()

    try:
        return asyncio.run(look()), ""
    except HostError as error:
        return None, str(error)


def check_storage(settings: StorageSettings, facts: StorageFacts) -> Iterator[Finding]:
    """Findings of a machine that is a storage node. Pure."""
    yield _check_directory(settings, facts)
    if "iscsi" in settings.kinds:
        if settings.thin_pool:
            yield _check_pool(settings.thin_pool, facts)
        yield _check_target(facts)
    if "nfs" in settings.kinds:
        yield _check_nfs(facts)


def _check_directory(settings: StorageSettings, facts: StorageFacts) -> Finding:
    where = facts.directory
    if not facts.exists and settings.directory:
        return Finding(_AREA, "directory", FAIL, f"{where}: none", "mount its disk, or correct"
                       " storage.directory")  # fmt: skip
    detail = f"{where} on {facts.fs_type} ({facts.free_bytes >> 30} GiB free)"
    if facts.mount_point == "/":
        return Finding(
            _AREA, "directory", WARN, f"{detail}, the system's own: volumes that fill it stop the"
            " machine, and it holds no volume when its disk is replaced",
            "put the volumes on a disk of their own",
        )  # fmt: skip
    if facts.fs_type not in _SHARES_BLOCKS and not settings.thin_pool:
        return Finding(
            _AREA, "directory", WARN, f"{detail}: snapshots and copies take their whole size, and"
            " none can be taken of a disk in use", "make the file system xfs or btrfs",
        )  # fmt: skip
    return Finding(_AREA, "directory", OK, detail)


def _check_pool(name: str, facts: StorageFacts) -> Finding:
    pool = facts.pool
    if facts.pool_error:
        return Finding(
            _AREA, "thin pool", FAIL, facts.pool_error, "are its disks there (pvs, vgs), is"
            " storage.thin_pool right, are lvm2 and thin-provisioning-tools installed?",
        )  # fmt: skip
    if pool is not None and not pool.zeroes:
        return Finding(
            _AREA, "thin pool", FAIL, f"{name} does not zero what it gives: it makes no disks",
            f"lvchange --zero y {name}",
        )  # fmt: skip
    detail = f"{name}, not active: nothing was made or shown since this machine was started"
    if pool is not None:
        taken = f"{pool.data_percent:g} % of its data, {pool.metadata_percent:g} % of its metadata"
        detail = f"{name} of {pool.size_bytes >> 30} GiB, {taken} taken"
        if max(pool.data_percent, pool.metadata_percent) >= NEARLY_FULL_PERCENT:
            remedy = f"lvextend --size (or --poolmetadatasize) +SIZE {name}, or empty the trash"
            return Finding(_AREA, "thin pool", WARN, detail, remedy)
    if not facts.thin_check:
        return Finding(
            _AREA, "thin pool", WARN, f"{detail}; there is no thin_check to find damage with",
            "apt-get install thin-provisioning-tools",
        )  # fmt: skip
    return Finding(_AREA, "thin pool", OK, detail)


def _check_target(facts: StorageFacts) -> Finding:
    if facts.modules_missing:
        return Finding(
            _AREA, "iSCSI target", FAIL, f"this kernel lacks {', '.join(facts.modules_missing)}",
            "install a kernel, or its extra modules package, with them; or leave iscsi out of"
            " storage.kinds",
        )  # fmt: skip
    if facts.login_is_stuck:
        return Finding(
            _AREA, "iSCSI target", FAIL, "the kernel takes no logins: it waits for a connection"
            " that does not end; nodes that are logged in go on",
            "restart this machine: its volumes are shown again by themselves",
        )  # fmt: skip
    return Finding(_AREA, "iSCSI target", OK, "in the kernel, with persistent reservations")


def _check_nfs(facts: StorageFacts) -> Finding:
    if not facts.exportfs:
        return Finding(_AREA, "NFS server", FAIL, "none is installed", "apt-get install"
                       " nfs-kernel-server, or leave nfs out of storage.kinds")  # fmt: skip
    if not facts.nfs_server:
        return Finding(_AREA, "NFS server", FAIL, "does not serve",
                       "systemctl enable --now nfs-server")  # fmt: skip
    return Finding(_AREA, "NFS server", OK, "serves")


def _is_stuck() -> bool:
    """Whether one login waits for longer than logins do."""
    from volagent.host.lio.login_thread import find_waiting_login

    waiting = find_waiting_login()
    if waiting is None:
        return False
    time.sleep(_LOOK_AGAIN_S)
    return find_waiting_login() == waiting


def _count_nfs_threads() -> int:
    try:
        with open("/proc/fs/nfsd/threads") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
