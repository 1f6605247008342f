"""The content of API-backed volumes: a directory that changes all at once.

The layout is that of the kubelet's AtomicWriter, on which applications rely: the files stand in
`..<timestamp>...`, `..data` is a link to that directory, and each user-visible name is a link into
`..data`. A write is

1. a new directory with all files,
2. the links for names that are new,
3. one rename of `..data`, which is the moment of change,
4. the removal of links and directories that are no longer wanted.

The new directory's name ends in the boot's mark and the payload's fingerprint, so what is there can
be told without reading a secret, and the swap changes it atomically. A payload from before a reboot
is not trusted: its bytes may never have reached the disk. After an interruption between (1) and (4)
there are names too many or too few; then the fingerprint counts as missing, so that the caller
writes again, which also cleans up.

The volume may be writable for its containers, so every name in it is handled as hostile: below a
descriptor, without following links. Fast enough for the event loop's thread on a local disk or
tmpfs: some twelve system calls for two files.
"""

import errno
import os
import stat
import time
from typing import Final

from volagent.host import paths
from volagent.host.contract import Payload, PayloadFile
from volagent.host.errors import Absent, HostError
from volagent.host.removal import remove_below

_DATA: Final = "..data"
_DATA_NEXT: Final = "..data_tmp"
_OURS: Final = ".."
"""Names of ours in a payload directory begin so; AtomicWriter forbids it to users' files."""
_INTO_DATA: Final = "..data/"
_NAME_MAX: Final = 255
_DIRECTORY_MODE: Final = 0o755
_GROUP_READS: Final = 0o440
_UNCHANGED: Final = -1
_WALK: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class PayloadWriter:
    """Writes payloads and tells what is written. `boot_mark` differs from boot to boot."""

    def __init__(self, *, boot_mark: str) -> None:
        self._boot_mark = boot_mark

    def write(self, target: str, payload: Payload, *, gid: int | None) -> None:
        """Make the directory show exactly this payload. Raises `HostError`."""
        tops = {_check_path(file.path, target) for file in payload.files}
        directory = paths.open_listing(target)
        try:
            name = self._make_data_directory(directory, payload.fingerprint, target)
            data = os.open(name, _WALK, dir_fd=directory)
            try:
                _write_files(data, payload.files, gid)  # (1)
            finally:
                os.close(data)
            present = os.listdir(directory)
            _make_links(directory, tops, present)  # (2)
            _point_data_to(directory, name)  # (3)
            _remove_stale(directory, name, tops, present)  # (4)
        except OSError as error:
            raise HostError("write payload", target, error.errno or 0) from error
        finally:
            os.close(directory)

    def _make_data_directory(self, directory: int, fingerprint: str, target: str) -> str:
        moment = time.time_ns()
        while True:
            name = self._name_of(moment, fingerprint)
            if len(name) > _NAME_MAX or "/" in fingerprint or not fingerprint:
                detail = "the fingerprint is no file name"
                raise HostError("write payload", target, errno.EINVAL, detail)
            try:
                os.mkdir(name, _DIRECTORY_MODE, dir_fd=directory)
            except FileExistsError:  # the clock was set back
                moment += 1
                continue
            return name

    def _name_of(self, moment_ns: int, fingerprint: str) -> str:
        seconds, rest = divmod(moment_ns, 1_000_000_000)
        stamp = time.strftime("%Y_%m_%d_%H_%M_%S", time.gmtime(seconds))
        return f"..{stamp}.{rest:09d}.{self._boot_mark}.{fingerprint}"

    def read_fingerprint(self, target: str) -> str | None:
        """What `write` left there completely, since this boot."""
        try:
            directory = paths.open_listing(target)
        except Absent:
            return None
        try:
            name = _read_link(directory, _DATA)
            parts = (name or "").split(".", 5)
            if name is None or "/" in name or len(parts) != 6 or parts[4] != self._boot_mark:
                return None
            return parts[5] if _is_complete(directory, name) else None
        except OSError as error:
            raise HostError("read payload", target, error.errno or 0) from error
        finally:
            os.close(directory)


def read_boot_mark() -> str:
    """Eight characters that change with every boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read(8)


def _check_path(path: str, target: str) -> str:
    """The first component of a file's path, which must stay below the data directory."""
    names = path.split("/")
    if not all(names) or "." in names or ".." in names or path.startswith(_OURS):
        raise HostError("write payload", target, errno.EINVAL, f"unusable file path {path!r}")
    return names[0]


def _write_files(data: int, files: tuple[PayloadFile, ...], gid: int | None) -> None:
    os.fchmod(data, _DIRECTORY_MODE)
    for file in files:
        *above, name = file.path.split("/")
        if not above:
            _write_file(data, name, file, gid)
            continue
        directory = _open_below(data, above)
        try:
            _write_file(directory, name, file, gid)
        finally:
            os.close(directory)


def _write_file(directory: int, name: str, file: PayloadFile, gid: int | None) -> None:
    fd = os.open(name, _CREATE, 0o600, dir_fd=directory)
    try:
        content = memoryview(file.content)
        while content:
            content = content[os.write(fd, content) :]
        mode = file.mode
        if gid is not None:
            mode |= _GROUP_READS
        if gid is not None or file.uid is not None:
            uid = _UNCHANGED if file.uid is None else file.uid
            os.fchown(fd, uid, _UNCHANGED if gid is None else gid)
        os.fchmod(fd, mode)  # after the chown, which takes setuid bits away
    finally:
        os.close(fd)


def _open_below(data: int, names: list[str]) -> int:
    """The directory of an item's path, made where it is missing."""
    fd = os.dup(data)
    for name in names:
        above = fd
        try:
            made = False
            try:
                os.mkdir(name, _DIRECTORY_MODE, dir_fd=above)
                made = True
            except FileExistsError:
                pass  # another item stands there too
            fd = os.open(name, _WALK, dir_fd=above)
        finally:
            os.close(above)
        if made:
            try:
                os.fchmod(fd, _DIRECTORY_MODE)
            except OSError:
                os.close(fd)
                raise
    return fd


def _make_links(directory: int, tops: set[str], present: list[str]) -> None:
    """Links for the names that are not there yet; what stands in the way is not the user's."""
    existing = set(present)
    for top in tops:
        destination = _INTO_DATA + top
        if top in existing:
            if _read_link(directory, top) == destination:
                continue
            _remove_any(directory, top)
        os.symlink(destination, top, dir_fd=directory)


def _point_data_to(directory: int, name: str) -> None:
    try:
        os.symlink(name, _DATA_NEXT, dir_fd=directory)
    except FileExistsError:  # left by an interrupted write
        _remove_any(directory, _DATA_NEXT)
        os.symlink(name, _DATA_NEXT, dir_fd=directory)
    try:
        os.rename(_DATA_NEXT, _DATA, src_dir_fd=directory, dst_dir_fd=directory)
    except IsADirectoryError:  # a container with write access put a directory in the way
        _remove_any(directory, _DATA)
        os.rename(_DATA_NEXT, _DATA, src_dir_fd=directory, dst_dir_fd=directory)


def _remove_stale(directory: int, current: str, tops: set[str], present: list[str]) -> None:
    for name in present:
        if name in (current, _DATA, _DATA_NEXT) or name in tops:
            continue
        if name.startswith(_OURS) or _is_our_link(directory, name):
            _remove_any(directory, name)


def _is_complete(directory: int, current: str) -> bool:
    data = os.open(current, _WALK, dir_fd=directory)
    try:
        wanted = set(os.listdir(data))
    finally:
        os.close(data)
    for name in os.listdir(directory):
        if name in wanted:
            if _read_link(directory, name) != _INTO_DATA + name:
                return False
            wanted.discard(name)
        elif name in (current, _DATA):
            continue
        elif name.startswith(_OURS) or _is_our_link(directory, name):
            return False
    return not wanted


def _is_our_link(directory: int, name: str) -> bool:
    destination = _read_link(directory, name)
    return destination is not None and destination.startswith(_INTO_DATA)


def _read_link(directory: int, name: str) -> str | None:
    """Where a link points; None for what is missing or no link."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _remove_any(directory: int, name: str) -> None:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=directory)
        return
    remove_below(directory, name)
    os.rmdir(name, dir_fd=directory)
