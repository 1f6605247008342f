"""What is found in a discovery directory becomes a `local` PersistentVolume. Pure.

A volume is offered once for each place. It is made again only after it was cleaned and its object
deleted, so that no data of one claim is ever offered to the next: the finalizer keeps the object
until the cleaning is done. What stands at the place is recognised by its identity (the UUID of its
file system, the identity of its disk, the inode of a plain directory), which is noted in the
volume; a place that holds something else than it did is left alone and reported.

The names of labels and volumes follow Kubernetes' local static provisioner.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from volagent.objects.annotations import PROVISIONED_BY, RECLAIM_PROTECTION
from volagent.objects.meta import Document
from volagent.objects.node_affinity import HOSTNAME
from volagent.objects.storage import PersistentVolume

IDENTITY = "volagent.dev/local-identity"
"""Volume: what stood at its path when it was found."""
CAPACITY_ENFORCED = "volagent.dev/capacity-enforced"


@dataclass(frozen=True, slots=True)
class Rule:
    """One discovery directory."""

    directory: str
    storage_class: str
    reclaim_policy: str = "Delete"
    labels: Mapping[str, str] = field(default_factory=dict)
    plain_directories: bool = False
    """Directories that are no mount points are offered as well."""


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of a discovery directory that can be a volume."""

    path: str
    kind: Literal["filesystem", "directory", "block"]
    size_bytes: int
    identity: str


@dataclass(frozen=True, slots=True)
class Offer:
    """Make a PersistentVolume."""

    document: Document


@dataclass(frozen=True, slots=True)
class Clean:
    """Remove all data of a volume that nobody claims any more."""

    volume: PersistentVolume
    found: Found


@dataclass(frozen=True, slots=True)
class LetGo:
    """Delete the object of a volume that was cleaned, or is not to be."""

    volume: PersistentVolume


@dataclass(frozen=True, slots=True)
class Doubt:
    """Say that a volume's place is not as it was."""

    volume: PersistentVolume
    message: str


Step = Offer | Clean | LetGo | Doubt


def maker_name(node: str) -> str:
    """What stands in `provisioned-by` of the volumes that a node has found."""
    return f"local.volagent.dev/{node}"


def volume_name(node: str, rule: Rule, path: str) -> str:
    """The volume's name: the same for the same place, whenever it is found."""
    text = f"{node}\0{rule.storage_class}\0{path}"
    return f"local-pv-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def decide(
    node: str,
    rule: Rule,
    found: Sequence[Found],
    volumes: Mapping[str, PersistentVolume],
    cleaned: frozenset[str] = frozenset(),
) -> list[Step]:
    """What is to be done about one directory.

    `volumes` are all those this node has made, by name; `cleaned` the uids of those whose data was
    removed since they were released.
    """
    steps: list[Step] = []
    places = {volume_name(node, rule, entry.path): entry for entry in found}
    for name, entry in places.items():
        volume = volumes.get(name)
        if volume is None:
            steps.append(Offer(describe_volume(node, rule, entry)))
        else:
            step = _decide_known(volume, entry, cleaned)
            if step is not None:
                steps.append(step)
    for name, volume in volumes.items():
        local = volume.spec.local
        if name in places or local is None or not _is_inside(local.path, rule.directory):
            continue
        if _is_going(volume) and volume.spec.persistent_volume_reclaim_policy != "Delete":
            steps.append(LetGo(volume))
        else:
            steps.append(Doubt(volume, f"there is nothing usable at {local.path} any more; bring"
                               " its disk back, or delete the PersistentVolume"))  # fmt: skip
    return steps


def _decide_known(volume: PersistentVolume, entry: Found, cleaned: frozenset[str]) -> Step | None:
    released = volume.status.phase in ("Released", "Failed")
    going = _is_going(volume)
    delete = volume.spec.persistent_volume_reclaim_policy == "Delete"
    if volume.status.phase == "Bound" and not going:
        return _doubt_identity(volume, entry)
    if not released and not going:
        return None if entry.identity == _identity(volume) else _doubt_identity(volume, entry)
    if going and not delete:
        return LetGo(volume)
    if not delete or volume.status.phase == "Bound":
        return None
    if volume.metadata.uid in cleaned:
        return LetGo(volume)
    return _doubt_identity(volume, entry) or Clean(volume, entry)


def _doubt_identity(volume: PersistentVolume, entry: Found) -> Doubt | None:
    held = _identity(volume)
    if entry.identity == held:
        return None
    return Doubt(
        volume,
        f"{entry.path} is not what it was when it was found: {entry.identity} instead of {held};"
        " nothing there is touched. Bring the former disk back, or delete the PersistentVolume",
    )


def _identity(volume: PersistentVolume) -> str:
    return (volume.metadata.annotations or {}).get(IDENTITY, "")


def _is_going(volume: PersistentVolume) -> bool:
    return volume.metadata.deletion_timestamp is not None


def _is_inside(path: str, directory: str) -> bool:
    parts, above = path.split("/"), directory.rstrip("/").split("/")
    return len(parts) == len(above) + 1 and parts[:-1] == above


def _format_size(size_bytes: int) -> str:
    """Whole MiB, rounded down, so that people can read it."""
    return f"{size_bytes >> 20}Mi" if size_bytes >> 20 else str(size_bytes)


def describe_volume(node: str, rule: Rule, entry: Found) -> Document:
    """The PersistentVolume for a found place."""
    annotations = {PROVISIONED_BY: maker_name(node), IDENTITY: entry.identity}
    if entry.kind == "directory":
        annotations[CAPACITY_ENFORCED] = "false"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": volume_name(node, rule, entry.path),
            "labels": {HOSTNAME: node, **rule.labels},
            "annotations": annotations,
            "finalizers": [RECLAIM_PROTECTION],
        },
        "spec": {
            "capacity": {"storage": _format_size(entry.size_bytes)},
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Block" if entry.kind == "block" else "Filesystem",
            "persistentVolumeReclaimPolicy": rule.reclaim_policy,
            "storageClassName": rule.storage_class,
            "local": {"path": entry.path},
            "nodeAffinity": {
                "required": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [
                            {"key": HOSTNAME, "operator": "In", "values": [node]}
                        ]}
                    ]
                }
            },
        },
    }  # fmt: skip
