"""nfs-subdir.volagent.dev: directories on the NFS export that the class itself names.

    parameters: {server: 10.0.0.5, path: /srv/nfs, archiveOnDelete: "false"}

Otherwise as a provisioner that the settings name (`nfs.py`), one for each export that a class has
ever named. Which those are is kept below the state directory, so that the trash of an export is
emptied in time also when no class and no volume names it any more.
"""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from volagent.drivers.contract import Done, VolumeMode
from volagent.drivers.errors import DriverError, Rejected
from volagent.drivers.provisioning.contract import (
    Grown,
    ProvisionedVolume,
    ReclaimRequest,
    TrashEntry,
    VolumeRequest,
)
from volagent.drivers.provisioning.nfs import (
    DIRECTORY_OF,
    NfsSubdirProvisioner,
    check_parameters,
)
from volagent.objects.meta import Document

NFS_SUBDIR: Final = "nfs-subdir.volagent.dev"
SERVER, PATH = "server", "path"
_OPTIONS: Final = "mountOptions"

_Place = tuple[str, str]
"""Server and exported path."""


@dataclass(frozen=True, slots=True)
class KnownExports:
    """The exports that were ever used, and how they are mounted: a file for each."""

    directory: Path

    def read(self) -> dict[_Place, tuple[str, ...]]:
        """All of them with their mount options; what cannot be understood is left out."""
        found: dict[_Place, tuple[str, ...]] = {}
        for file in sorted(self.directory.glob("*.json")):
            try:
                kept = json.loads(file.read_text())
                options = tuple(map(str, kept.get(_OPTIONS, ())))
                found[str(kept[SERVER]), str(kept[PATH])] = options
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
        return found

    def remember(self, place: _Place, options: tuple[str, ...]) -> None:
        """Write one down, durably, before anything is made there."""
        if self.read().get(place) == options:
            return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = hashlib.sha256("\0".join(place).encode()).hexdigest()[:16]
        target = self.directory / f"{name}.json"
        unfinished = target.with_suffix(".new")
        with open(unfinished, "w") as file:
            json.dump({SERVER: place[0], PATH: place[1], _OPTIONS: list(options)}, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)


@dataclass(frozen=True, slots=True)
class NfsClassProvisioner:
    """Makes directories on any export."""

    make: Callable[[str, str, tuple[str, ...]], NfsSubdirProvisioner]
    """The provisioner of one export: server, path, mount options."""
    known: KnownExports
    name: str = NFS_SUBDIR
    node: str = ""

    def check(
        self, parameters: Mapping[str, str], mode: VolumeMode, access_modes: tuple[str, ...]
    ) -> None:
        """Raises `Rejected`."""
        check_parameters(self.name, parameters, mode, (SERVER, PATH))
        _place_of(parameters)

    async def create(self, request: VolumeRequest) -> ProvisionedVolume:
        """Make the directory, or find it made."""
        place = _place_of(request.parameters)
        self.known.remember(place, request.mount_options)
        return await self._at(place).create(_narrowed(request))

    async def reclaim(self, request: ReclaimRequest) -> Done:
        """Delete (through the trash), archive or retain, as the class said when it was made."""
        place = _place_of_source(request.source, request.annotations)
        if place not in self.known.read():  # it came with a backup of the objects
            options = (request.manifest.get("spec") or {}).get("mountOptions") or ()
            self.known.remember(place, tuple(options))
        return await self._at(place).reclaim(request)

    async def discard(self, request: VolumeRequest) -> Done:
        """Remove what `create` may have left."""
        return await self._at(_place_of(request.parameters)).discard(_narrowed(request))

    async def grow(
        self, source: dict[str, Any], annotations: Mapping[str, str], capacity_bytes: int
    ) -> Grown:
        """Promise more, if the export has it."""
        place = _place_of_source(source, annotations)
        return await self._at(place).grow(source, annotations, capacity_bytes)

    async def list_trash(self) -> list[TrashEntry]:
        """What can be had back, from all exports that answer."""
        lists = await self._ask_all(lambda each: each.list_trash())
        return [entry for entries in lists for entry in entries]

    async def restore(self, id: str) -> Document:
        """Put an entry back."""
        for each in self._all():
            if any(entry.id == id for entry in await each.list_trash()):
                return await each.restore(id)
        raise Rejected(f"nothing of {id} is in the trash", remedy="see `volagent trash list`")

    async def purge(self, id: str) -> Done:
        """Delete an entry for good."""
        for each in self._all():
            if any(entry.id == id for entry in await each.list_trash()):
                return await each.purge(id)
        return Done("deleted")

    async def sweep(self) -> float | None:
        """Delete what has expired; an export that does not answer holds up no other."""
        coming = await self._ask_all(lambda each: each.sweep())
        return min((each for each in coming if each is not None), default=None)

    async def _ask_all(self, call: Callable[[NfsSubdirProvisioner], Any]) -> list[Any]:
        """The answers of all exports; one error is raised only when no export answered."""
        answers = await asyncio.gather(*map(call, self._all()), return_exceptions=True)
        good = [each for each in answers if not isinstance(each, BaseException)]
        bad = [each for each in answers if isinstance(each, BaseException)]
        for each in bad:
            if not good or not isinstance(each, DriverError):
                raise each
        return good

    def _all(self) -> list[NfsSubdirProvisioner]:
        return [self._at(place) for place in self.known.read()]

    def _at(self, place: _Place) -> NfsSubdirProvisioner:
        return self.make(*place, self.known.read().get(place, ()))


def _place_of(parameters: Mapping[str, str]) -> _Place:
    server, path = parameters.get(SERVER, ""), parameters.get(PATH, "")
    if not server or any(char.isspace() or char in "/\0," for char in server):
        raise Rejected(
            f"parameter server: {server!r} is no host name or address",
            remedy="name the NFS server in the class's parameters",
        )
    parts = path.split("/")
    if not path.startswith("/") or "\0" in path or ".." in parts:
        raise Rejected(
            f"parameter path: {path!r} is not an absolute path without '..'",
            remedy="name the exported directory in the class's parameters",
        )
    return server, "/" + "/".join(part for part in parts if part not in ("", "."))


def _place_of_source(source: Mapping[str, Any], annotations: Mapping[str, str]) -> _Place:
    """The export of a volume that was made: its path, less its directory."""
    nfs, directory = source.get("nfs") or {}, annotations.get(DIRECTORY_OF, "")
    path = str(nfs.get("path", ""))
    if not directory or not path.endswith(f"/{directory}"):
        raise Rejected(
            f"{path!r} is no directory that {NFS_SUBDIR} has made",
            remedy="delete it by hand, or set the volume's policy to Retain",
        )
    export = path.removesuffix(f"/{directory}") or "/"
    return _place_of({SERVER: str(nfs.get("server", "")), PATH: export})


def _without_place(parameters: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if name not in (SERVER, PATH)}


def _narrowed(request: VolumeRequest) -> VolumeRequest:
    return msgspec.structs.replace(request, parameters=_without_place(request.parameters))
