"""What is written beside volumes on an export: which directory belongs to whom.

All of it lies in `.volagent` at the export's root, which no volume can contain:

    <volume>.json          the owner marker: written and synced before the directory is in its place
    paths/<hash>           a symbolic link whose text is the volume that has this path; making a
                           link fails when there is one, on any server, so it is how several
                           daemons on several machines agree; it is read, never followed
    parents/<hash>         the same for directories that were made on the way (removed when empty)
    new/<volume>           a directory that is being made
    trash/<volume>[.json]  a reclaimed volume's directory, and its marker with the expiry
    archived/, gone/       markers of what was renamed to `archived-...`, and of what is deleted

Every name is one component below a descriptor, opened without links and never through another
mount. Standard library only: this runs in a helper process. Errors are `OSError`, and `Refusal` for
what a person must settle.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from volagent.host import libc

STORE: Final = ".volagent"
NEW: Final = "new"
TRASH: Final = "trash"
ARCHIVED: Final = "archived"
GONE: Final = "gone"
_PATHS: Final = "paths"
_PARENTS: Final = "parents"
_UNFINISHED: Final = ".unfinished-"
_STORE_MODE: Final = 0o700
_RECORD_MODE: Final = 0o600
RECORD_BYTES_MAX: Final = 1 << 20
VOLUME_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,240}[a-z0-9])?")
"""Names that may stand in a path here; those of objects are among them."""

_ENTER: Final = libc.OpenHow(
    flags=os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
    resolve=libc.RESOLVE_NO_XDEV
    | libc.RESOLVE_NO_SYMLINKS
    | libc.RESOLVE_NO_MAGICLINKS
    | libc.RESOLVE_BENEATH,
)
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Refusal(Exception):
    """Going on could touch what is not ours; `remedy` says what a person can do."""

    def __init__(self, fact: str, remedy: str) -> None:
        super().__init__(fact)
        self.fact = fact
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Record:
    """An owner marker."""

    name: str
    owner: str
    directory: str
    """Below the export's root, exactly."""
    claim: str = ""
    """`namespace/name`."""
    provisioner: str = ""
    on_delete: str = ""
    """`delete`, `retain`, `archive`: what the class said when the volume was made."""
    capacity_bytes: int = 0
    created: str = ""
    """RFC 3339."""
    inode: int = 0
    """Of the directory; 0: whatever is at the path is the volume (a person has said so)."""
    state: str = "present"
    """`present`, `trashing`, `trashed`, `purging`, `archiving`, `archived`, `retained`,
    `deleted`."""
    target: str = ""
    """The name that an archived directory has now."""
    deleted_s: float = 0.0
    expires_s: float = 0.0
    """Seconds since 1970."""
    manifest: dict[str, Any] = field(default_factory=dict)
    project: int = 0
    """The number whose quota limits the directory; 0: it is not limited."""


_FIELDS: Final[dict[str, Any]] = {each.name: each.type for each in dataclasses.fields(Record)}
_KINDS: Final[dict[Any, Any]] = {str: str, int: int, float: (int, float)}


def enter(directory: int, path: str) -> int:
    """A directory that can be listed, beneath another, on the same mount. Raises `OSError`."""
    return libc.openat2(directory, os.fsencode(path), _ENTER)


def hash_path(path: str) -> str:
    """A fixed-length name for a path."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:40]


class Records:
    """The `.volagent` directory of one export. A context: it holds descriptors."""

    def __init__(self, root: int, *, make: bool) -> None:
        """Raises `FileNotFoundError` when there is none, unless it may be made."""
        self._folders: dict[str, int] = {}
        self._root = root
        self._base = self._open(root, STORE, make=make)

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self._folders.values(), self._base):
            os.close(fd)

    def folder(self, name: str) -> int:
        """A descriptor of a directory in `.volagent` (""; itself), made when it is missing."""
        if not name:
            return self._base
        fd = self._folders.get(name)
        if fd is None:
            fd = self._folders[name] = self._open(self._base, name, make=True)
        return fd

    def read(self, name: str, folder: str = "") -> Record | None:
        """A volume's marker. Raises `Refusal` when it cannot be understood."""
        where = f"{STORE}/{folder}/{name}.json".replace("//", "/")
        try:
            fd = os.open(f"{name}.json", _READ, dir_fd=self.folder(folder))
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            text = file.read(RECORD_BYTES_MAX)
        try:
            return _decode(text)
        except ValueError as error:
            raise Refusal(
                f"the owner marker {where} of the export is damaged: {error}",
                "restore that file from a backup, or remove it and the volume by hand",
            ) from error

    def write(self, record: Record, folder: str = "") -> None:
        """Write a marker durably, in place of an older one."""
        directory = self.folder(folder)
        unfinished = f"{_UNFINISHED}{secrets.token_hex(8)}"
        fd = os.open(unfinished, _WRITE, _RECORD_MODE, dir_fd=directory)
        with os.fdopen(fd, "wb") as file:
            file.write(json.dumps(dataclasses.asdict(record), indent=1).encode())
            file.flush()
            os.fsync(fd)
        os.rename(unfinished, f"{record.name}.json", src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)

    def move(self, record: Record, source: str, target: str) -> None:
        """Write a marker in one folder, then remove it from another."""
        self.write(record, target)
        self.drop(record.name, source)

    def drop(self, name: str, folder: str = "") -> None:
        """Remove a marker; gone is fine."""
        directory = self.folder(folder)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{name}.json", dir_fd=directory)
        os.fsync(directory)

    def list_names(self, folder: str) -> list[str]:
        """The volumes with a marker in a folder, sorted."""
        found = os.listdir(self.folder(folder))
        return sorted(name.removesuffix(".json") for name in found if name.endswith(".json"))

    def claim_path(self, path: str, name: str) -> str:
        """Take a path for a volume; the volume that has it now, the same one when it worked."""
        directory = self.folder(_PATHS)
        try:
            os.symlink(name, hash_path(path), dir_fd=directory)
        except FileExistsError:
            return self.find_claimant(path)
        os.fsync(directory)
        return name

    def find_claimant(self, path: str) -> str:
        """The volume that has a path, or ""."""
        try:
            return os.readlink(hash_path(path), dir_fd=self.folder(_PATHS))
        except FileNotFoundError:
            return ""

    def release_path(self, path: str, name: str) -> None:
        """Give a path back, if the volume has it."""
        if self.find_claimant(path) == name:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(hash_path(path), dir_fd=self.folder(_PATHS))

    def note_parent(self, path: str) -> None:
        """Remember a directory that is about to be made on the way to a volume."""
        with contextlib.suppress(FileExistsError):
            os.symlink(path, hash_path(path), dir_fd=self.folder(_PARENTS))

    def is_parent(self, path: str) -> bool:
        """Whether a directory was made on the way to a volume."""
        try:
            os.readlink(hash_path(path), dir_fd=self.folder(_PARENTS))
        except FileNotFoundError:
            return False
        return True

    def forget_parent(self, path: str) -> None:
        """A directory on the way is gone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(hash_path(path), dir_fd=self.folder(_PARENTS))

    def sweep_unfinished(self, before_s: float) -> None:
        """Remove what writers that were killed have left, if it is older than that."""
        for folder in ("", TRASH, ARCHIVED, GONE):
            directory = self.folder(folder)
            for name in os.listdir(directory):
                if name.startswith(_UNFINISHED):
                    with contextlib.suppress(FileNotFoundError):
                        if os.stat(name, dir_fd=directory).st_mtime < before_s:
                            os.unlink(name, dir_fd=directory)

    @staticmethod
    def _open(above: int, name: str, *, make: bool) -> int:
        try:
            return enter(above, name)
        except FileNotFoundError:
            if not make:
                raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, _STORE_MODE, dir_fd=above)
            os.fsync(above)
        return enter(above, name)


def _decode(text: bytes) -> Record:
    """Raises `ValueError`. Keys of a later version are left out."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("no object")
    known = {key: value for key, value in document.items() if key in _FIELDS}
    for key, value in known.items():
        if not isinstance(value, _KINDS.get(_FIELDS[key], dict)):
            raise ValueError(f"{key} is {value!r}")
    try:
        record = Record(**known)
    except TypeError as error:
        raise ValueError(str(error)) from error
    if not VOLUME_NAME.fullmatch(record.name):
        raise ValueError(f"name is {record.name!r}")
    return record
