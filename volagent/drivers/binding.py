"""A pod's directory for a volume that exists elsewhere: bound there, given to its group, removed.

Found again by looking, never by memory. A mount that stands at the pod's directory is used when it
shows the same place, and refused otherwise: nothing is ever stacked. Only empty directories and
links of ours are removed; what somebody wrote there while nothing was mounted stays.
"""

import errno
from typing import Final

from volagent.drivers.contract import Done, HeldMount, Mounted, Publication
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.failures import explain_busy, explain_failure
from volagent.host.contract import (
    BindOptions,
    Host,
    MountEntry,
    MountId,
    MountTable,
    Propagation,
)
from volagent.host.errors import Absent, Busy, HostError, NotEmpty, TimedOut

DIRECTORY_MODE: Final = 0o750
"""Of the directory below the mount: seen by nobody as long as it stands."""
OWNERSHIP_TIMEOUT_S: Final = 600.0
"""A walk that takes longer is taken up again where it still has to change something."""
STACKED_MAX: Final = 4
"""Mounts that a killed agent's children may have left at one place, one above the other."""
DETACH: Final = "detach"
"""The last resort has a bulkhead of its own: the server's is full of calls that hang."""
_CSI_DIRECTORY: Final = "kubernetes.io~csi"


async def bind_into_pod(
    host: Host, source: str, use: Publication, *, read_only: bool, options: tuple[str, ...] = ()
) -> Mounted:
    """Bind `source` to the pod's directory, and apply `fsGroup` unless it is read-only."""
    target = use.target
    # A peer group of its own: `mountPropagation: Bidirectional` needs one.
    bind = BindOptions(read_only=read_only, options=options, propagation=Propagation.SHARED)
    try:
        mount_id = _ensure_bind(host, source, target, bind)
    except Absent as error:
        remove_quietly(host, target)
        raise Transient(f"cannot bind {source}: {error}") from error
    except HostError as error:
        raise explain_failure(error, target) from error
    evidence = "bound read-only" if read_only else "bound"
    if use.fs_group is not None and not read_only:
        evidence += await _give_to_group(host, use)
    entry = host.mounts.find_mount(mount_id)
    device = entry.device if entry is not None else ""
    return Mounted(evidence, HeldMount(target, mount_id, device=device))


def _ensure_bind(host: Host, source: str, target: str, options: BindOptions) -> MountId:
    if not host.trees.ensure_dir(target, mode=DIRECTORY_MODE):
        standing = host.mounts.find_mount_at(target)
        if standing is not None:
            if not _shows(host.mounts.read_table(), standing, source):
                raise refuse_cover(standing)
            if ("ro" in standing.options) is options.read_only:
                return standing.mount_id
            host.mounts.unmount(target, expect=standing.mount_id)
    return host.mounts.bind(source, target, options)


def _shows(table: MountTable, standing: MountEntry, source: str) -> bool:
    """Whether a mount shows exactly what is at a path; one with links in it is not recognised."""
    below: MountEntry | None = None
    for entry in table.entries:
        point = entry.mount_point.rstrip("/")
        inside = source == point or source.startswith(f"{point}/")
        if inside and (below is None or len(entry.mount_point) >= len(below.mount_point)):
            below = entry
    if below is None:
        return False
    rest = source[len(below.mount_point.rstrip("/")) :]
    root = f"{below.root.rstrip('/')}{rest}" or "/"
    return (standing.device, standing.root) == (below.device, root)


def refuse_cover(standing: MountEntry) -> Transient:
    """Somebody else's mount stands where ours should."""
    return Transient(
        f"{standing.mount_point} is covered by a mount of {standing.source} ({standing.fs_type})",
        remedy=f"unmount what somebody mounted there: umount {standing.mount_point}",
    )


async def _give_to_group(host: Host, use: Publication) -> str:
    assert use.fs_group is not None
    try:
        changed = await host.trees.set_ownership(
            use.target,
            gid=use.fs_group,
            policy=use.fs_group_policy,
            timeout_s=OWNERSHIP_TIMEOUT_S,
        )
    except TimedOut as error:
        raise Uncertain(
            f"fsGroup {use.fs_group}: {error}",
            remedy="set fsGroupChangePolicy: OnRootMismatch; the next try goes on where this ended",
        ) from error
    except HostError as error:
        raise explain_failure(error, use.target) from error
    return f", group {use.fs_group} ({changed} files changed)"


async def unbind_from_pod(host: Host, published: HeldMount) -> Done:
    """Unmount exactly what is held, and remove the directory, or the link, that it stood on."""
    path = published.path
    try:
        if published.mount_id:
            try:
                host.mounts.unmount(path, expect=MountId(published.mount_id))
            except Absent:
                pass
        remove_target(host, path)
    except Busy as error:
        raise await explain_busy(host, error, path) from error
    except NotEmpty as error:
        raise explain_contents(error, path) from error
    return Done("unmounted" if published.mount_id else "removed")


def find_standing(host: Host, target: str) -> MountEntry | None:
    """The topmost mount at a path whose backend can hang: the path itself is not touched."""
    parent, _, name = target.rpartition("/")
    if name not in host.trees.list_dir(parent):
        return None  # nothing there, so nothing mounted; the whole table is spared
    found = None
    for entry in host.mounts.read_table().entries:
        if entry.mount_point == target:
            found = entry
    return found


def remove_target(host: Host, path: str) -> None:
    """Remove a pod's empty directory or link for a volume; for CSI, the directory above it too.

    Nothing is asked of what may be mounted there. Raises `Busy`, `NotEmpty`.
    """
    trees = host.trees
    try:
        trees.remove_dir(path)
    except HostError as error:
        if error.errno != errno.ENOTDIR:
            raise
        trees.remove_file(path)
    parent = path.rpartition("/")[0]
    if path.endswith("/mount") and parent.rpartition("/")[0].endswith(f"/{_CSI_DIRECTORY}"):
        try:
            trees.remove_dir(parent)
        except NotEmpty:
            return  # a kubelet's own notes


def remove_quietly(host: Host, path: str) -> None:
    """Remove the directory of a publication that failed; what cannot go is left."""
    try:
        remove_target(host, path)
    except HostError:
        return


def explain_contents(error: NotEmpty, path: str) -> Transient:
    """Something was written where nothing was mounted: not ours to delete."""
    return Transient(
        f"{error}; somebody wrote there while the volume was not mounted",
        remedy=f"look at what is in {path} and move it away",
    )


def reject_option(error: HostError, options: tuple[str, ...]) -> Rejected:
    """The kernel does not take one of the mount options."""
    return Rejected(
        f"mountOptions {', '.join(options)}: {error}",
        remedy="correct mountOptions of the PersistentVolume",
    )
