"""Directories shown to single machines by the kernel's NFS server, through `exportfs`.

What is shown is one file of `/etc/exports.d`, which the server's own service reads when the machine
boots: it is written anew from the records beside the volumes, and made true by `exportfs -r`.

    .volagent/nfs/<volume>.json       nodes that may reach the volume, by their addresses

A node is written down before the server hears of it, and taken off after the server has forgotten
it. The file system's number in file handles (`fsid`) comes from the volume's name, so handles
outlive a reboot. Errors are `OSError`, and `HostError` for what cannot be shown.
"""

import contextlib
import hashlib
import ipaddress
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from volagent.host.errors import HostError
from volagent.host.lio.calls import VOLUME_NAME

EXPORTS_FILE: Final = "/etc/exports.d/volagent.exports"
OPTIONS: Final = "rw,sync,no_subtree_check,no_root_squash"
_PLAIN: Final = re.compile(r"/[A-Za-z0-9/_.+-]*")
_HEAD: Final = "# Written by volagent: volumes, each for the nodes that have it attached.\n"
_SUFFIX: Final = ".json"

Nodes = Mapping[str, Sequence[str]]
"""Node → its addresses; none for one that was fenced, which is not let in until it was detached."""


@dataclass(frozen=True, slots=True)
class ShownExports:
    """The volumes below one directory, and whom each is shown to."""

    directory: str
    exports_file: str = EXPORTS_FILE

    @property
    def _folder(self) -> str:
        return f"{self.directory}/.volagent/nfs"

    def read(self, volume: str) -> Nodes:
        """Whom a volume is shown to."""
        path = self._path(volume)
        try:
            with open(path, "rb") as file:
                nodes = json.load(file)["nodes"]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise HostError("read", path, 0, f"is no record: {error}") from error
        return {str(node): [str(each) for each in addresses] for node, addresses in nodes.items()}

    def read_all(self) -> dict[str, Nodes]:
        """Every volume that is shown to somebody."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return {}
        found = (each.removesuffix(_SUFFIX) for each in names if each.endswith(_SUFFIX))
        return {volume: self.read(volume) for volume in found}

    def write(self, volume: str, nodes: Nodes) -> None:
        """Remember it, durably; a volume that is shown to nobody has no record."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        if nodes:
            text = json.dumps({"nodes": {node: list(each) for node, each in nodes.items()}})
            _put(self._path(volume), text, 0o600)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(volume))
            _sync_directory(self._folder)

    def write_exports(self, *, without: tuple[str, str] = ("", "")) -> None:
        """Write what the server is to show; `without` one volume's node that is still on record."""
        if not _PLAIN.fullmatch(self.directory):
            raise HostError("export", self.directory, 0, "its path has signs that exports(5) reads")
        lines = [_HEAD]
        for volume, nodes in self.read_all().items():
            path = f"{self.directory}/{volume}"
            left = {
                node: addresses
                for node, addresses in nodes.items()
                if (volume, node) != without and os.path.isdir(path)
            }
            clients = sorted({each for addresses in left.values() for each in addresses})
            options = f"{OPTIONS},fsid={make_fsid(volume)}"
            if clients:
                lines.append(f"{path} {' '.join(f'{each}({options})' for each in clients)}\n")
        os.makedirs(os.path.dirname(self.exports_file), mode=0o755, exist_ok=True)
        _put(self.exports_file, "".join(lines), 0o644)

    def path(self, volume: str) -> str:
        """Where a volume's content is."""
        if not VOLUME_NAME.fullmatch(volume):
            raise HostError("export", volume, 0, "is no name of a volume")
        return f"{self.directory}/{volume}"

    def _path(self, volume: str) -> str:
        return f"{self._folder}/{os.path.basename(self.path(volume))}{_SUFFIX}"


def check_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Plain addresses, as exports(5) has them. Raises `HostError` for what is none."""
    try:
        return tuple(str(ipaddress.ip_address(each)) for each in addresses)
    except ValueError as error:
        raise HostError("export", ", ".join(addresses), 0, str(error)) from error


def make_fsid(volume: str) -> str:
    """A UUID that is the same for ever: the claim's uid, or a digest of another name."""
    try:
        return str(uuid.UUID(volume.removeprefix("pvc-")))
    except ValueError:
        return str(uuid.UUID(hashlib.sha256(volume.encode()).hexdigest()[:32]))


def find_clients(shown: str, path: str) -> set[str]:
    """The clients of a directory in what `exportfs -s` prints."""
    clients: set[str] = set()
    for line in shown.splitlines():
        where, _, rest = line.partition(" ")
        if where == path:
            clients |= {each.partition("(")[0] for each in rest.split()}
    return clients


def _put(path: str, text: str, mode: int) -> None:
    unfinished = f"{path}.unfinished"
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(unfinished, path)
    _sync_directory(os.path.dirname(path))


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
