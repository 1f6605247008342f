"""directory.volagent.dev: a directory of this VM for each claim.

The PersistentVolume is `local`, with affinity to this VM, so any tool knows what it is. The
directory belongs to root with mode 0770 unless the class says otherwise (`mode`, `uid`, `gid`): a
pod that does not run as root gets it by `fsGroup`, or by the class's `gid`.

Its size is enforced by a project quota where the file system has them (ext4, xfs, mounted with
`prjquota`); elsewhere it is a promise, and the volume says so. What is promised is there at the
moment when it is made. All promises together may be more than the disk has: who wants none broken
uses quotas, or images that are allocated in full.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from volagent.drivers.contract import Done, VolumeMode
from volagent.drivers.errors import Rejected, Uncertain
from volagent.drivers.provisioning.contract import (
    Grown,
    ProvisionedVolume,
    ReclaimRequest,
    TrashEntry,
    VolumeRequest,
)
from volagent.drivers.provisioning.export import Export, affinity_to
from volagent.objects.annotations import VOLUME_OWNER
from volagent.objects.meta import Document

DIRECTORY: Final = "directory.volagent.dev"
CAPACITY_ENFORCED: Final = "volagent.dev/capacity-enforced"
_PARAMETERS: Final = ("mode", "uid", "gid")
_DEFAULT_MODE: Final = 0o770
_ID_MAX: Final = 2**32 - 2


@dataclass(frozen=True, slots=True)
class DirectoryProvisioner:
    """Makes directories below one directory of this VM."""

    export: Export
    node: str
    hostname: str
    """The node's `kubernetes.io/hostname` label."""
    name: str = DIRECTORY

    def check(
        self, parameters: Mapping[str, str], mode: VolumeMode, access_modes: tuple[str, ...]
    ) -> None:
        """Raises `Rejected`."""
        if mode is VolumeMode.BLOCK:
            raise Rejected(
                f"{DIRECTORY} makes no block devices", remedy="use a class of image.volagent.dev"
            )
        read_ownership(parameters)

    async def create(self, request: VolumeRequest) -> ProvisionedVolume:
        """Make the directory, or find it made."""
        if request.origin is not None:
            raise Rejected(
                f"{DIRECTORY} cannot copy volumes", remedy="use a class of image.volagent.dev"
            )
        made = await self.export.make_limited(
            name=request.name,
            owner=request.owner,
            claim=f"{request.claim_namespace}/{request.claim_name}",
            capacity_bytes=request.capacity_bytes,
            ownership=read_ownership(request.parameters),
        )
        limited = f"project quota {made.project}"
        unlimited = f"capacity not enforced: {made.unlimited}"
        return ProvisionedVolume(
            source={"local": {"path": made.path}},
            capacity_bytes=request.capacity_bytes,
            node_affinity=affinity_to(self.hostname),
            annotations={CAPACITY_ENFORCED: "true" if made.project else "false"},
            evidence=f"directory {made.path}, {limited if made.project else unlimited}",
        )

    async def reclaim(self, request: ReclaimRequest) -> Done:
        """Into the trash, or away; not while a mount still shows it."""
        directory = _directory_of(request.source, self.export.path)
        return await self.export.reclaim(
            name=request.name,
            owner=request.owner,
            directory=directory,
            manifest=request.manifest,
            keep_s=request.keep_s,
        )

    async def discard(self, request: VolumeRequest) -> Done:
        """Remove what `create` may have left."""
        return await self.export.discard(request.name, request.owner)

    async def grow(
        self, source: dict[str, Any], annotations: Mapping[str, str], capacity_bytes: int
    ) -> Grown:
        """Promise more, if there is as much; a quota is raised."""
        name = _directory_of(source, self.export.path)
        owner = annotations.get(VOLUME_OWNER, "")
        answer = await self.export.ask(
            "grow", name=name, owner=owner, capacity_bytes=capacity_bytes, check_room=True
        )
        if answer.get("missing"):
            raise Uncertain(
                f"there are no volumes in {self.export.path}", remedy="is its disk mounted?"
            )
        project = answer["record"].get("project", 0)
        evidence = f"project quota {project} raised" if project else "promised, not enforced"
        return Grown(evidence, capacity_bytes, node_half=False)

    async def list_trash(self) -> list[TrashEntry]:
        """What can be had back."""
        return await self.export.list_trash()

    async def restore(self, id: str) -> Document:
        """Put an entry back."""
        return await self.export.restore(id)

    async def purge(self, id: str) -> Done:
        """Delete an entry for good."""
        return await self.export.purge_entry(id)

    async def sweep(self) -> float | None:
        """Delete what has expired."""
        return await self.export.sweep()


def read_ownership(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Owner and mode of new directories from a class's parameters. Raises `Rejected`."""
    for name in parameters:
        if name not in _PARAMETERS:
            raise Rejected(
                f"unknown parameter {name!r} for {DIRECTORY}",
                remedy=f"parameters of {DIRECTORY}: {', '.join(_PARAMETERS)}",
            )
    mode = parameters.get("mode")
    return {
        "mode": _DEFAULT_MODE if mode is None else _read_number("mode", mode, 8, 0o7777),
        "uid": _read_id(parameters, "uid"),
        "gid": _read_id(parameters, "gid"),
    }


def _read_id(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name)
    return None if text is None else _read_number(name, text, 10, _ID_MAX)


def _read_number(name: str, text: str, base: int, most: int) -> int:
    digits = text.removeprefix("0o") if base == 8 else text
    try:
        number = int(digits, base) if digits.isdigit() else -1
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        wanted = "an octal mode such as 0770" if base == 8 else "a number"
        raise Rejected(f"parameter {name}: {text!r} is not {wanted}", remedy="correct the class")
    return number


def _directory_of(source: Mapping[str, Any], base: str) -> str:
    """The directory below the base that a volume's source names. Raises `Rejected`."""
    path = str((source.get("local") or {}).get("path", ""))
    above, _, name = path.rpartition("/")
    if above != base or not name:
        raise Rejected(
            f"the volume's path {path!r} is not directly below {base}",
            remedy="was directory_dir changed? Put it back, or keep the data: policy Retain",
        )
    return name
