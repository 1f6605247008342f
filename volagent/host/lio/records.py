"""What a storage node remembers of whom it shows a disk to, beside the disks.

    .volagent/iscsi/<volume>.json     nodes that may reach the volume, by their initiators' names,
                                      and those that may not again until they are detached
    .volagent/iscsi/key               what the volumes' passwords are derived from
    .volagent/iscsi/lock              held by whoever changes the target

A node is written down before the kernel hears of it, and taken off after the kernel has forgotten
it, so that everything that may be shown is known. Standard library only.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import secrets
from base64 import b32encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from volagent.host.errors import HostError

_KEY_BYTES: Final = 32
_PASSWORD_BYTES: Final = 15
_SUFFIX: Final = ".json"


@dataclass(frozen=True, slots=True)
class Shown:
    """A volume that is shown to somebody."""

    volume: str
    nodes: Mapping[str, str] = field(default_factory=dict)
    """Node → the name of its initiator."""
    barred: tuple[str, ...] = ()
    """Nodes that were fenced: not to be let in again by this attachment."""


class ShownRecords:
    """The records of one directory of volumes."""

    def __init__(self, directory: str) -> None:
        self._folder = f"{directory}/.volagent/iscsi"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One at a time changes the target: makes the directory, too."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        fd = os.open(f"{self._folder}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def read(self, volume: str) -> Shown:
        """Whom a volume is shown to; nobody when there is no record. Raises `HostError`."""
        path = self._path(volume)
        try:
            with open(path, "rb") as file:
                found = json.load(file)
                nodes, barred = found["nodes"], found.get("barred", ())
        except FileNotFoundError:
            return Shown(volume)
        except (ValueError, KeyError, TypeError) as error:
            raise HostError("read", path, 0, f"is no record: {error}") from error
        known = {str(node): str(name) for node, name in nodes.items()}
        return Shown(volume, known, tuple(map(str, barred)))

    def read_all(self) -> list[Shown]:
        """Every volume that is shown to somebody."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []
        return [self.read(each.removesuffix(_SUFFIX)) for each in names if each.endswith(_SUFFIX)]

    def write(self, shown: Shown) -> None:
        """Remember it, durably; a volume that nobody has has no record."""
        path = self._path(shown.volume)
        if shown.nodes or shown.barred:
            record: dict[str, object] = {"nodes": dict(shown.nodes)}
            if shown.barred:
                record["barred"] = list(shown.barred)
            self._put(path, json.dumps(record).encode())
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            _sync_directory(self._folder)

    def make_password(self, volume: str) -> str:
        """The volume's password: the same as long as the key is there."""
        key = self._read_key()
        digest = hmac.new(key, volume.encode(), hashlib.sha256).digest()
        return b32encode(digest[:_PASSWORD_BYTES]).decode().lower()

    def _read_key(self) -> bytes:
        path = f"{self._folder}/key"
        try:
            with open(path, "rb") as file:
                key = file.read()
        except FileNotFoundError:
            key = self._make_key(path)
        if len(key) != _KEY_BYTES:
            raise HostError("read", path, 0, f"is no key of {_KEY_BYTES} bytes")
        return key

    def _make_key(self, path: str) -> bytes:
        """The first of several that make it at once wins."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        mine = f"{path}.{secrets.token_hex(8)}"
        self._put(mine, secrets.token_bytes(_KEY_BYTES))
        try:
            with contextlib.suppress(FileExistsError):
                os.link(mine, path)
        finally:
            os.unlink(mine)
        _sync_directory(self._folder)
        with open(path, "rb") as file:
            return file.read()

    def _put(self, path: str, content: bytes) -> None:
        unfinished = f"{path}.unfinished"
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(unfinished, path)
        _sync_directory(self._folder)

    def _path(self, volume: str) -> str:
        return f"{self._folder}/{volume}{_SUFFIX}"


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
