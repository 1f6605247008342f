"""The mount table of the agent's namespace, changed and read: `Mounts` on a real kernel.

Targets are paths of ours: no link is followed on the way to them. What a call returns has been
seen at the target, by mount id. Plain methods are system calls of microseconds on local file
systems; what may take long runs in the pool, and what may hang in a child process that can be
killed (`Helpers`). Nothing is cached: the kernel is asked each time.
"""

import errno
import os
from collections.abc import Callable, Sequence
from typing import Final

from volagent.host import libc, mountfd, paths
from volagent.host.contract import (
    BindOptions,
    Closeable,
    MountChanges,
    MountEntry,
    MountId,
    MountTable,
    TmpfsOptions,
)
from volagent.host.errors import Absent, Busy, Escapes, HostError
from volagent.host.mountfd import Attaching
from volagent.host.mounttable import TableReader, find_id_at, find_mount_at
from volagent.host.mountwatch import watch_mount_table
from volagent.host.netmount import explain_mount_failure, mount_command
from volagent.host.process import Helpers
from volagent.host.subpath import SubPath, bind_sub_path

MOUNT_TIMEOUT_S: Final = 300.0
"""Of a block device at the end of a network, the replay of its journal included."""


class RealMounts:
    """`Mounts` on this machine."""

    def __init__(self, *, helpers: Helpers, reader: TableReader) -> None:
        self._helpers = helpers
        self._reader = reader
        self._id_mask = reader.id_mask

    def read_table(self) -> MountTable:
        """Every mount, consistent at one moment."""
        try:
            return self._reader.read_table()
        except OSError as error:
            raise HostError("listmount", "mount table", error.errno or 0) from error

    def find_mount(self, mount_id: MountId) -> MountEntry | None:
        """One mount by its id."""
        try:
            return self._reader.find_mount(mount_id)
        except OSError as error:
            raise HostError("statmount", f"mount {mount_id}", error.errno or 0) from error

    def find_mount_at(self, target: str) -> MountEntry | None:
        """The topmost mount whose root is exactly at `target`."""
        return find_mount_at(target, self._reader)

    def mount_tmpfs(self, target: str, options: TmpfsOptions) -> MountId:
        """Mount a tmpfs on an existing directory."""
        mount = mountfd.open_tmpfs(options, target)
        try:
            return mountfd.attach(mount, Attaching(target, self._id_mask, options.propagation))
        finally:
            os.close(mount)

    def bind(self, source: str, target: str, options: BindOptions) -> MountId:
        """Show `source` at `target`."""
        tree = mountfd.clone_tree(libc.AT_FDCWD, paths.encode(source), options, source)
        try:
            how = Attaching(target, self._id_mask, options.propagation, options.recursive)
            return mountfd.attach(tree, how)
        finally:
            os.close(tree)

    def bind_sub_path(
        self,
        volume_root: str,
        sub_path: str,
        target: str,
        options: BindOptions,
        mode: int | None,
        *,
        follow_links: bool = False,
    ) -> MountId:
        """Bind a path inside a volume, never leaving it (`subpath.py`)."""
        how = Attaching(target, self._id_mask, options.propagation, options.recursive)
        inside = SubPath(volume_root, sub_path, mode, follow_links)
        return bind_sub_path(inside, options, how)

    async def bind_sub_path_slowly(
        self,
        volume_root: str,
        sub_path: str,
        target: str,
        options: BindOptions,
        mode: int | None,
        *,
        backend: str,
        timeout_s: float,
        follow_links: bool = False,
    ) -> MountId:
        """The same in a killable process: walking a path asks the volume's server."""
        arguments = {
            "path": volume_root,
            "sub_path": sub_path,
            "target": target,
            "mode": mode,
            "follow_links": follow_links,
            "id_mask": self._id_mask,
            "recursive": options.recursive,
            "read_only": options.read_only,
            "recursive_read_only": options.recursive_read_only,
            "options": options.options,
            "propagation": options.propagation.value,
        }
        answer = await self._helpers.call(
            "bind_sub_path", arguments, backend=backend, timeout_s=timeout_s
        )
        return MountId(answer["mount_id"])

    def unmount(self, target: str, *, expect: MountId | None = None) -> None:
        """Unmount the topmost mount at `target`."""
        directory, name = paths.open_parent(target)
        try:
            if expect is not None:
                found = find_id_at(directory, name, self._reader)
                if found != expect:
                    detail = f"mount {found} is there, not {expect}"
                    raise Absent("umount2", target, 0, detail if found else "not a mount point")
            # By way of the descriptor, so that no link can be slipped in; umount2 takes only paths.
            path = b"/proc/self/fd/%d/%s" % (directory, os.fsencode(name))
            libc.umount2(path, libc.UMOUNT_NOFOLLOW)
        except OSError as error:
            raise explain_unmount(target, error.errno or 0) from error
        finally:
            os.close(directory)

    async def mount_device(
        self,
        device: str,
        target: str,
        *,
        fs_type: str,
        options: Sequence[str],
        read_only: bool,
        backend: str = "",
    ) -> MountId:
        """Mount the file system on a block device: in the pool, or in a child if it can hang."""
        if backend:
            arguments = {
                "path": device, "target": target, "fs_type": fs_type, "options": list(options),
                "read_only": read_only, "id_mask": self._id_mask,
            }  # fmt: skip
            answer = await self._helpers.call(
                "mount_device", arguments, backend=backend, timeout_s=MOUNT_TIMEOUT_S
            )
            return MountId(answer["mount_id"])
        return await self._helpers.run_in_pool(
            self._mount_device, device, target, fs_type, tuple(options), read_only
        )

    def _mount_device(
        self, device: str, target: str, fs_type: str, options: tuple[str, ...], read_only: bool
    ) -> MountId:
        mount = mountfd.open_device_mount(device, fs_type, options, read_only, target)
        try:
            return mountfd.attach(mount, Attaching(target, self._id_mask))
        finally:
            os.close(mount)

    async def mount_network(
        self,
        source: str,
        target: str,
        *,
        fs_type: str,
        options: Sequence[str],
        backend: str,
        timeout_s: float,
    ) -> MountId:
        """Mount a network file system through its helper, in a killable process."""
        os.close(paths.open_directory(target))  # before anything can hang there; refuses links
        argv = mount_command(source, target, fs_type, options)
        outcome = await self._helpers.run(argv, backend=backend, timeout_s=timeout_s)
        if outcome.returncode != 0:
            raise explain_mount_failure(fs_type, source, outcome.returncode, outcome.complaint)
        entry = await self._helpers.run_in_pool(self._reader.find_newest, target)
        if entry is None:
            raise HostError(f"mount -t {fs_type}", source, 0, f"nothing is mounted at {target}")
        return entry.mount_id

    async def unmount_slowly(
        self, target: str, *, backend: str, timeout_s: float, force: bool, lazy: bool
    ) -> None:
        """Unmount what may hang or flush for long, in a killable process."""
        flags = libc.UMOUNT_NOFOLLOW
        if force:
            flags |= libc.MNT_FORCE
        if lazy:
            # The last resort: the mount leaves the table at once, and the file system stays alive
            # until the last user is gone, unseen. The caller has an event for it.
            flags |= libc.MNT_DETACH
        try:
            arguments = {"path": target, "flags": flags}
            await self._helpers.call("umount2", arguments, backend=backend, timeout_s=timeout_s)
        except HostError as error:
            if type(error) is not HostError or not error.errno:
                raise
            raise explain_unmount(target, error.errno) from error

    def watch_mounts(self, on_change: Callable[[MountChanges], None]) -> Closeable:
        """Call `on_change` on the running loop's thread when mounts come and go."""
        try:
            return watch_mount_table(self._reader, on_change)
        except OSError as error:
            raise HostError("watch", "mount table", error.errno or 0) from error


def explain_unmount(target: str, code: int) -> HostError:
    """The error of a failed umount2, named by what it means to the caller."""
    if code == errno.EBUSY:
        return Busy("umount2", target, code)
    if code in (errno.EINVAL, errno.ENOENT):
        return Absent("umount2", target, code)
    if code == errno.ELOOP:
        return Escapes("umount2", target, code, "a symbolic link is in the way")
    return HostError("umount2", target, code)
