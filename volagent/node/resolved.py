"""What a pod's declaration resolves to: its volumes as this node should have them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from volagent.drivers.contract import (
    Phase,
    Publication,
    VolumeKey,
    VolumeSource,
    VolumeSpec,
)
from volagent.objects.meta import PodUid
from volagent.objects.pod import Pod
from volagent.objects.references import Reference


def wishes_of(pod: Pod) -> tuple[object, ...]:
    """What a pod's volumes are made out of: another one, and it has to be resolved anew."""
    return pod.spec, pod.metadata.labels, pod.metadata.annotations


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a volume cannot be set up yet, and what would change that."""

    error: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class ResolvedVolume:
    """One of a pod's volumes, wanted: what to have and how this pod uses it."""

    name: str
    """The pod's name for it."""
    spec: VolumeSpec
    source: VolumeSource
    phases: tuple[Phase, ...]
    use: Publication
    read_only: bool
    """This declaration's own wish (the publication may be shared with a writable one)."""


@dataclass(frozen=True, slots=True)
class ResolvedPod:
    """All of a pod's volumes that a container mounts."""

    uid: PodUid
    volumes: Mapping[str, ResolvedVolume] = field(default_factory=dict)
    problems: Mapping[str, Problem] = field(default_factory=dict)
    references: frozenset[Reference] = frozenset()


def share_publications(volumes: dict[str, ResolvedVolume]) -> dict[str, ResolvedVolume]:
    """Let a volume that a pod names twice have one publication, writable if either may write."""
    by_key: dict[VolumeKey, ResolvedVolume] = {}
    shared: set[VolumeKey] = set()
    for volume in volumes.values():
        first = by_key.setdefault(volume.spec.key, volume)
        if first is not volume:
            shared.add(volume.spec.key)
            if first.use.read_only and not volume.use.read_only:
                by_key[volume.spec.key] = volume
    if not shared:
        return volumes
    return {
        name: (
            replace(volume, use=by_key[volume.spec.key].use)
            if volume.spec.key in shared
            else volume
        )
        for name, volume in volumes.items()
    }
