"""A path inside a volume, resolved so that it cannot lead out of it: `subPath`.

The pod's author owns what is in the volume, and may change it *while* we walk. So every step is
one name, opened with O_PATH | O_NOFOLLOW below a descriptor that was reached in the same way; a
symbolic link is read from its own descriptor and its text walked by the same rules; `..` goes back
to the descriptor that we came through, never to whatever is the parent by now. What is bound in the
end is the descriptor, not a path. An absolute link counts as inside when it names the volume's own
path on this machine, else it means some container's path and is refused.

Invariant: every descriptor on the walk's stack was inside the volume when it was opened. Blocks as
long as the volume's file system does.
"""

import errno
import os
import stat
from dataclasses import dataclass
from typing import Final

from volagent.host import mountfd, paths
from volagent.host.contract import BindOptions, MountId
from volagent.host.directories import PARENT_MODE, make_directory_at, make_file_at, open_or_make
from volagent.host.errors import Escapes, HostError
from volagent.host.mountfd import Attaching

_LINKS_MAX: Final = 40
"""As many as the kernel follows in one path."""
_RACES_MAX: Final = 100
"""How often one name may change its kind under us before that is called an attack."""
_PLACEHOLDER_MODE: Final = 0o640
_STEP: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class SubPath:
    """What to bind: a path inside a volume, and how what is missing there is made."""

    volume_root: str
    path: str
    mode: int | None
    """Of the last directory that is made; None: that of the volume's root."""
    follow_links: bool = False
    """The volume's root is a path that a user names: links on the way to it are followed."""

    def __str__(self) -> str:
        return f"{self.path} in {self.volume_root}"


def bind_sub_path(sub_path: SubPath, options: BindOptions, how: Attaching) -> MountId:
    """Bind a path inside a volume to `how.target`, which is made to match. Raises `Escapes`, ..."""
    inside = open_sub_path(sub_path)
    try:
        prepare_target(how.target, inside)
        tree = mountfd.clone_tree(inside, b"", options, str(sub_path))
    finally:
        os.close(inside)
    try:
        return mountfd.attach(tree, how)
    finally:
        os.close(tree)


def open_sub_path(sub_path: SubPath) -> int:
    """A descriptor (O_PATH) of the directory or file at a sub-path; missing directories are made.

    The last one that is made gets exactly the mode, those between `mode & ~umask`. Raises
    `Escapes`, `Absent` (no such volume), `HostError`.
    """
    path = sub_path.path
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise Escapes("subPath", path, 0, "must be relative, without '..'")
    walk = _Walk(sub_path)
    try:
        return walk.go()
    finally:
        walk.close()


class _Walk:
    """One resolution: the stack of directories that it came through, and what is still to go."""

    def __init__(self, sub_path: SubPath) -> None:
        root = sub_path.volume_root
        self._root_names = [name for name in root.split("/") if name]
        self._subject = str(sub_path)
        self._mode = sub_path.mode
        self._links = 0
        open_root = paths.follow_directory if sub_path.follow_links else paths.open_directory
        self._stack = [open_root(root)]
        # Names still to be walked, the next one last; True: named by the subPath itself, so that
        # it may be made when it is missing. Where a link leads, nothing is made.
        self._names = [(name, True) for name in reversed(_names(sub_path.path))]

    def go(self) -> int:
        """Walk to the end; the descriptor belongs to the caller."""
        while self._names:
            name, own = self._names.pop()
            if name == "..":
                if len(self._stack) == 1:
                    raise self._escapes("a symbolic link leads above the volume")
                os.close(self._stack.pop())
            else:
                self._step(name, own)
        return self._stack.pop()

    def close(self) -> None:
        """Close what the walk came through."""
        while self._stack:
            os.close(self._stack.pop())

    def _step(self, name: str, own: bool) -> None:
        """Go down by one name, which somebody may be changing meanwhile."""
        for _ in range(_RACES_MAX):
            try:
                fd = os.open(name, _STEP, dir_fd=self._stack[-1])
            except FileNotFoundError as error:
                if not own:
                    detail = "a symbolic link leads to something that is missing"
                    raise HostError("subPath", self._subject, errno.ENOENT, detail) from error
                if self._make(name):
                    return
                continue
            except OSError as error:
                raise HostError("subPath", self._subject, error.errno or 0) from error
            self._stack.append(fd)
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                self._follow(self._stack.pop())
            return
        raise self._escapes(f"{name!r} changes all the time")

    def _follow(self, link: int) -> None:
        try:
            text = os.readlink("", dir_fd=link)
        finally:
            os.close(link)
        self._links += 1
        if self._links > _LINKS_MAX:
            raise HostError("subPath", self._subject, errno.ELOOP)
        names = _names(text)
        if text.startswith("/"):
            depth = len(self._root_names)
            if names[:depth] != self._root_names:
                raise self._escapes(f"a symbolic link leads to {text}")
            names = names[depth:]
            while len(self._stack) > 1:
                os.close(self._stack.pop())
        self._names += [(name, False) for name in reversed(names)]

    def _make(self, name: str) -> bool:
        """Make a missing directory and go into it; False when somebody was faster."""
        parent = self._stack[-1]
        mode = self._mode
        if mode is None:
            mode = self._mode = stat.S_IMODE(os.fstat(self._stack[0]).st_mode) & ~stat.S_ISUID
        try:
            os.mkdir(name, mode, dir_fd=parent)
            fd = os.open(name, _NEW_DIRECTORY, dir_fd=parent)
        except (FileExistsError, FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno == errno.ELOOP:
                return False
            raise HostError("mkdirat", self._subject, error.errno or 0) from error
        self._stack.append(fd)
        if not self._names:
            os.fchmod(fd, mode)
        return True

    def _escapes(self, detail: str) -> Escapes:
        return Escapes("subPath", self._subject, 0, detail)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name and name != "."]


def prepare_target(target: str, inside: int) -> None:
    """Make the place where a sub-path is to be bound: a directory or an empty file to match it.

    A leftover placeholder of the other kind (the author turned a file into a directory) is removed,
    if it is empty. Raises `HostError`.
    """
    is_directory = stat.S_ISDIR(os.fstat(inside).st_mode)
    parent, name = paths.split(target)
    directory = open_or_make(parent)
    try:
        _remove_other_kind(directory, name, is_directory, target)
        if is_directory:
            make_directory_at(directory, name, PARENT_MODE, None, target)
        else:
            make_file_at(directory, name, _PLACEHOLDER_MODE, target)
    finally:
        os.close(directory)


def _remove_other_kind(directory: int, name: str, is_directory: bool, target: str) -> None:
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode) and not is_directory:
            os.rmdir(name, dir_fd=directory)
        elif stat.S_ISREG(found.st_mode) and is_directory and found.st_size == 0:
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise HostError("subPath target", target, error.errno or 0) from error
