"""Which volume serves a claim best, and why the others do not. Pure.

The order is total: a volume that is reserved for the claim comes before any other; then the least
waste, the fewest surplus access modes, the name. (Kubernetes takes the first fit of the narrowest
set of modes, any of equals, and may pass a reserved volume by.)

`VolumeIndex` keeps the free volumes sorted by size within each class, mode and set of access modes,
so that what a claim costs does not grow with the number of volumes. Only what a label selector or a
node does not admit is looked at one by one. Why volumes were passed by: `rejections.py`.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from heapq import merge

from volagent.objects.classes import class_of_claim, class_of_volume
from volagent.objects.growth import size_of, wanted_bytes
from volagent.objects.label_selector import selects
from volagent.objects.meta import ObjectReference
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

Key = tuple[str, str]
"""Namespace and name of a claim."""
Place = tuple[str, str]
"""Class and volume mode."""
Rank = tuple[int, int, str]
"""Size in bytes, number of access modes, name."""
Modes = frozenset[str]
"""Access modes."""
_NOTHING: frozenset[str] = frozenset()


class VolumeIndex:
    """All volumes: the free ones by what they can serve, the reserved ones by claim."""

    def __init__(self) -> None:
        self._volumes: dict[str, PersistentVolume] = {}
        self._free: dict[Place, dict[Modes, list[Rank]]] = {}
        self._entries: dict[str, tuple[Place, Modes, Rank]] = {}
        self._reserved: dict[Key, set[str]] = {}

    def put(self, volume: PersistentVolume) -> None:
        """A volume is like this now."""
        name = volume.metadata.name
        self.drop(name)
        self._volumes[name] = volume
        reference = volume.spec.claim_ref
        if reference is not None:
            self._reserved.setdefault((reference.namespace, reference.name), set()).add(name)
        elif is_free(volume):
            modes = frozenset(volume.spec.access_modes or ())
            place = place_of_volume(volume)
            rank = (size_of(volume.spec.capacity), len(modes), name)
            insort(self._free.setdefault(place, {}).setdefault(modes, []), rank)
            self._entries[name] = (place, modes, rank)

    def drop(self, name: str) -> None:
        """A volume is gone; one that is not known is gone already."""
        volume = self._volumes.pop(name, None)
        if volume is None:
            return
        entry = self._entries.pop(name, None)
        if entry is not None:
            place, modes, rank = entry
            ranks = self._free[place][modes]
            del ranks[bisect_left(ranks, rank)]
            if not ranks:
                del self._free[place][modes]
                if not self._free[place]:
                    del self._free[place]
        reference = volume.spec.claim_ref
        if reference is not None:
            key = (reference.namespace, reference.name)
            names = self._reserved[key]
            names.discard(name)
            if not names:
                del self._reserved[key]

    def get(self, name: str) -> PersistentVolume | None:
        """A volume as it was put last."""
        return self._volumes.get(name)

    def naming(self, key: Key) -> list[PersistentVolume]:
        """The volumes whose `claimRef` has a claim's name, fit or not."""
        return [self._volumes[name] for name in self._reserved.get(key, ())]

    def is_free(self, name: str) -> bool:
        """Whether a volume can still be had by any claim that it fits."""
        return name in self._entries

    def reserved_for(self, claim: PersistentVolumeClaim) -> list[PersistentVolume]:
        """The volumes that are reserved for a claim and can serve it, best first."""
        return rank_reserved(claim, self.naming((claim.metadata.namespace, claim.metadata.name)))

    def candidates(
        self,
        claim: PersistentVolumeClaim,
        *,
        admits: Callable[[PersistentVolume], bool] | None = None,
        excluded: Collection[str] = _NOTHING,
    ) -> Iterator[PersistentVolume]:
        """The free volumes that serve a claim, best first; `admits` is asked last."""
        wanted = frozenset(claim.spec.access_modes or ())
        least: Rank = (wanted_bytes(claim), 0, "")
        fitting = [
            _from(ranks, bisect_left(ranks, least))
            for modes, ranks in self._free.get(place_of_claim(claim), {}).items()
            if wanted <= modes
        ]
        selector = claim.spec.selector
        for _, _, name in fitting[0] if len(fitting) == 1 else merge(*fitting):
            volume = self._volumes[name]
            if name in excluded or not selects(selector, volume.metadata.labels):
                continue
            if admits is None or admits(volume):
                yield volume

    def free(self) -> Iterator[tuple[Place, Modes, Sequence[Rank]]]:
        """The free volumes, as they are sorted."""
        for place, groups in self._free.items():
            for modes, ranks in groups.items():
                yield place, modes, ranks

    def values(self) -> Collection[PersistentVolume]:
        """All volumes."""
        return self._volumes.values()


def _from(ranks: Sequence[Rank], start: int) -> Iterator[Rank]:
    for index in range(start, len(ranks)):
        yield ranks[index]


def is_free(volume: PersistentVolume) -> bool:
    """Whether a volume can be had: Available, and not going."""
    return (
        volume.spec.claim_ref is None
        and volume.status.phase == "Available"
        and volume.metadata.deletion_timestamp is None
    )


def rank_reserved(
    claim: PersistentVolumeClaim, volumes: Iterable[PersistentVolume]
) -> list[PersistentVolume]:
    """Those of `volumes` that are reserved for the claim and can serve it, best first.

    A reservation stands above class and selector.
    """
    fitting = [
        volume
        for volume in volumes
        if is_reserved_for(volume, claim) and not find_misfit(claim, volume, any_class=True)
    ]
    return sorted(fitting, key=rank_of)


def rank_of(volume: PersistentVolume) -> Rank:
    """What volumes that fit are compared by."""
    modes = len(set(volume.spec.access_modes or ()))
    return size_of(volume.spec.capacity), modes, volume.metadata.name


def find_misfit(
    claim: PersistentVolumeClaim, volume: PersistentVolume, *, any_class: bool = False
) -> str:
    """Why a volume cannot serve a claim, or "". In the order and words of Kubernetes."""
    if volume.metadata.deletion_timestamp is not None:
        return f'the volume is marked for deletion "{volume.metadata.name}"'
    if size_of(volume.spec.capacity) < wanted_bytes(claim):
        return "requested PV is too small"
    if not any_class and class_of_volume(volume) != class_of_claim(claim):
        return "storageClassName does not match"
    if place_of_volume(volume)[1] != place_of_claim(claim)[1]:
        return "incompatible volumeMode"
    if not set(claim.spec.access_modes or ()) <= set(volume.spec.access_modes or ()):
        return "incompatible accessMode"
    return ""


def is_reserved_for(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    """Whether a volume's `claimRef` names the claim, and no other life of that name."""
    reference = volume.spec.claim_ref
    return (
        reference is not None
        and reference.namespace == claim.metadata.namespace
        and reference.name == claim.metadata.name
        and reference.uid in ("", claim.metadata.uid)
    )


def full_name(claim: PersistentVolumeClaim) -> str:
    """`namespace/name`."""
    return f"{claim.metadata.namespace}/{claim.metadata.name}"


def reference_to(claim: PersistentVolumeClaim) -> ObjectReference:
    """The `claimRef` that names exactly this claim."""
    return ObjectReference(
        kind="PersistentVolumeClaim",
        api_version="v1",
        namespace=claim.metadata.namespace,
        name=claim.metadata.name,
        uid=claim.metadata.uid,
        resource_version=claim.metadata.resource_version,
    )


def place_of_claim(claim: PersistentVolumeClaim) -> Place:
    """Where a claim looks for volumes."""
    return class_of_claim(claim), claim.spec.volume_mode or "Filesystem"


def place_of_volume(volume: PersistentVolume) -> Place:
    """Where a volume is looked for."""
    return class_of_volume(volume), volume.spec.volume_mode or "Filesystem"
