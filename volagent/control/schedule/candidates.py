"""The free volumes by class, and the reserved ones by claim, kept current by whoever hears of
changes. Touches nothing but its own tables.
"""

from collections.abc import Callable, Container, Iterator

from volagent.control.bind.match import find_misfit, is_reserved_for
from volagent.control.schedule.world import amounts_of
from volagent.objects.classes import class_of_claim, class_of_volume
from volagent.objects.label_selector import selects
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

_Rank = tuple[int, int, str]


class FreeVolumes:
    """A `CandidateSource` over all volumes."""

    def __init__(self) -> None:
        self._known: dict[str, PersistentVolume] = {}
        self._free: dict[str, dict[str, PersistentVolume]] = {}
        self._reserved: dict[tuple[str, str], dict[str, PersistentVolume]] = {}

    def put(self, volume: PersistentVolume) -> None:
        """A volume is like this now."""
        self.drop(volume.metadata.name)
        self._known[volume.metadata.name] = volume
        self._place_of(volume)[volume.metadata.name] = volume

    def drop(self, name: str) -> None:
        """A volume is gone; one that was not known is gone already."""
        known = self._known.pop(name, None)
        if known is not None:
            self._place_of(known).pop(name, None)

    def get(self, name: str) -> PersistentVolume | None:
        """A volume as it was put last."""
        return self._known.get(name)

    def reserved_for(self, claim: PersistentVolumeClaim) -> list[PersistentVolume]:
        """The volumes whose `claimRef` names the claim and which can serve it, best first."""
        key = (claim.metadata.namespace, claim.metadata.name)
        fitting = [
            volume
            for volume in self._reserved.get(key, {}).values()
            if is_reserved_for(volume, claim) and not find_misfit(claim, volume, any_class=True)
        ]
        return sorted(fitting, key=_ranking(claim))

    def candidates(
        self,
        claim: PersistentVolumeClaim,
        *,
        admits: Callable[[PersistentVolume], bool],
        excluded: Container[str],
    ) -> Iterator[PersistentVolume]:
        """The free volumes that fit a claim and are admitted: least waste, fewest modes, name."""
        fitting = [
            volume
            for name, volume in self._free.get(class_of_claim(claim), {}).items()
            if name not in excluded
            and volume.status.phase == "Available"
            and not find_misfit(claim, volume)
            and selects(claim.spec.selector, volume.metadata.labels)
            and admits(volume)
        ]
        yield from sorted(fitting, key=_ranking(claim))

    def _place_of(self, volume: PersistentVolume) -> dict[str, PersistentVolume]:
        reference = volume.spec.claim_ref
        if reference is None:
            return self._free.setdefault(class_of_volume(volume), {})
        return self._reserved.setdefault((reference.namespace, reference.name), {})


def _ranking(claim: PersistentVolumeClaim) -> Callable[[PersistentVolume], _Rank]:
    modes = len(set(claim.spec.access_modes or ()))

    def rank(volume: PersistentVolume) -> _Rank:
        size = amounts_of(volume.spec.capacity).get("storage", 0)
        surplus = len(set(volume.spec.access_modes or ())) - modes
        return int(size), surplus, volume.metadata.name

    return rank
