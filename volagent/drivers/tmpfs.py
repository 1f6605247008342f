"""A tmpfs that stands at a pod's directory: made once, found again, taken down.

Found by looking at the path, never by memory: after a restart, an interruption or an unmount by
hand the kernel is asked. Nothing is ever stacked: what stands there is used if it is a tmpfs, and
refused if it is something else, so that no secret is written to another file system.
"""

from volagent.drivers.binding import explain_contents, refuse_cover
from volagent.drivers.contract import HeldMount
from volagent.drivers.failures import explain_busy
from volagent.host.contract import Host, MountId, TmpfsOptions
from volagent.host.errors import Absent, Busy, NotEmpty

COVERED_DIRECTORY_MODE = 0o750
"""Of the directory below the tmpfs: seen by nobody as long as it stands."""
_IN_MEMORY = ("tmpfs", "hugetlbfs")


def ensure_tmpfs(host: Host, target: str, options: TmpfsOptions) -> MountId:
    """Mount a tmpfs at `target` unless it stands there. Raises `Transient`, `HostError`."""
    if not host.trees.ensure_dir(target, mode=COVERED_DIRECTORY_MODE):
        standing = host.mounts.find_mount_at(target)
        if standing is not None:
            if standing.fs_type in _IN_MEMORY:
                return standing.mount_id
            raise refuse_cover(standing)
    return host.mounts.mount_tmpfs(target, options)


async def unmount_tmpfs(host: Host, held: HeldMount) -> None:
    """Unmount exactly what is held, if it still stands. Raises `Transient` naming the holders."""
    if not held.mount_id:
        return
    try:
        host.mounts.unmount(held.path, expect=MountId(held.mount_id))
    except Absent:
        return
    except Busy as error:
        raise await explain_busy(host, error, held.path) from error


async def remove_mount_point(host: Host, path: str) -> None:
    """Remove the empty directory that a tmpfs stood on. Raises `Transient`.

    What somebody put there while nothing was mounted is not ours to delete.
    """
    try:
        host.trees.remove_dir(path)
    except Busy as error:
        raise await explain_busy(host, error, path) from error
    except NotEmpty as error:
        raise explain_contents(error, path) from error
