"""Why volumes do not serve a claim: one by one, and in a sentence that costs little. Pure."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

from volagent.control.bind.match import (
    Rank,
    VolumeIndex,
    find_misfit,
    is_reserved_for,
    place_of_claim,
    rank_of,
)
from volagent.objects.annotations import SELECTED_NODE
from volagent.objects.classes import class_of_claim, class_of_volume
from volagent.objects.growth import wanted_bytes
from volagent.objects.label_selector import selects
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why one volume does not serve a claim."""

    volume: str
    reason: str
    """"" for a volume that would do."""


def find_rejections(
    claim: PersistentVolumeClaim, volumes: Iterable[PersistentVolume]
) -> list[Rejection]:
    """Why each volume does not serve a claim by itself, the nearest misses first."""
    found = []
    for volume in volumes:
        reason, distance = _reject(claim, volume)
        found.append((distance, rank_of(volume), Rejection(volume.metadata.name, reason)))
    found.sort(key=lambda entry: entry[:2])
    return [rejection for _, _, rejection in found]


def summarize_rejections(claim: PersistentVolumeClaim, index: VolumeIndex) -> str:
    """The same by numbers, for a claim that found no volume; "" when there are none at all.

    `3 volumes too small, 1 of another class; nearest: pv-7 (requested PV is too small: 1Gi < 2Gi)`.
    Counts whole groups of the index, so that it costs the same for any number of volumes.
    """
    place, wanted = place_of_claim(claim), frozenset(claim.spec.access_modes or ())
    least: Rank = (wanted_bytes(claim), 0, "")
    counts: dict[str, int] = {}
    nearest: list[tuple[int, Rank]] = []
    for (volume_class, mode), modes, ranks in index.free():
        start = bisect_left(ranks, least)
        if volume_class != place[0]:
            _count(counts, "of another class", len(ranks))
        elif mode != place[1]:
            _count(counts, "of another volumeMode", len(ranks))
        elif not wanted <= modes:
            _count(counts, "without the access modes", len(ranks))
            nearest += [(2, rank) for rank in ranks[start : start + 1]]
        else:
            _count(counts, "too small", start)
            _count(counts, _not_admitted(claim), len(ranks) - start)
            nearest += [(1, rank) for rank in ranks[start - 1 : start] if start]
            nearest += [(0, rank) for rank in ranks[start : start + 1]]
    taken = len(index.values()) - sum(counts.values())
    _count(counts, "taken by others or not Available", taken)
    if not counts:
        return ""
    parts = [f"{number} {reason}" for reason, number in counts.items()]
    noun = "volumes" if next(iter(counts.values())) > 1 else "volume"
    parts[0] = parts[0].replace(" ", f" {noun} ", 1)
    text = ", ".join(parts)
    for _, (_, _, name) in sorted(nearest, key=lambda one: one[0])[:1]:
        volume = index.get(name)
        assert volume is not None
        reason = _reject(claim, volume)[0]
        text += f"; nearest: {name} ({reason})" if reason else f"; nearest: {name}"
    return text


def _count(counts: dict[str, int], reason: str, number: int) -> None:
    if number:
        counts[reason] = counts.get(reason, 0) + number


def _not_admitted(claim: PersistentVolumeClaim) -> str:
    """What a volume that would fit can have been passed by for."""
    reasons = []
    if claim.spec.selector:
        reasons.append("not selected by its labels")
    if SELECTED_NODE in (claim.metadata.annotations or {}):
        reasons.append("out of the chosen node's reach")
    return " or ".join(reasons) or "being bound to others"


def _reject(claim: PersistentVolumeClaim, volume: PersistentVolume) -> tuple[str, int]:
    """The reason, and how far off the volume is: what one change would mend comes first."""
    reference = volume.spec.claim_ref
    if reference is not None and not is_reserved_for(volume, claim):
        state = "bound to" if volume.status.phase == "Bound" else "reserved for"
        if volume.status.phase == "Released":
            state = "released, and still kept for"
        return f"{state} {reference.namespace}/{reference.name}", 5
    reserved = reference is not None
    if not reserved and class_of_volume(volume) != class_of_claim(claim):
        name = class_of_volume(volume)
        return (f'it is of class "{name}"' if name else "it has no class"), 4
    misfit = find_misfit(claim, volume, any_class=reserved)
    if misfit == "requested PV is too small":
        capacity = (volume.spec.capacity or {}).get("storage")
        resources = claim.spec.resources
        request = ((resources.requests if resources else None) or {}).get("storage")
        return f"{misfit}: {capacity} < {request}", 1
    if misfit == "incompatible accessMode":
        modes = ", ".join(volume.spec.access_modes or ())
        return f"{misfit}: it offers {modes}", 2
    if misfit:
        return misfit, 3
    if reserved:
        return "", 0
    if not selects(claim.spec.selector, volume.metadata.labels):
        return "its labels do not match the claim's selector", 1
    if volume.status.phase != "Available":
        return f"it is {volume.status.phase or 'not ready'}", 2
    return "", 0
