"""The claims that found no volume, so that a volume that becomes free finds the right one. Pure.

Claims are kept by class and mode, sorted by size. A volume is offered to one claim at a time: the
largest that it can serve, the first by name of equals. Which volumes were offered to a claim is
remembered, so that they can be offered to the next one when it leaves.
"""

from bisect import bisect_left, bisect_right, insort

from volagent.control.bind.match import find_misfit
from volagent.objects.classes import class_of_claim, class_of_volume
from volagent.objects.growth import size_of, wanted_bytes
from volagent.objects.label_selector import selects
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

Key = tuple[str, str]
_Place = tuple[str, str]
"""Class and volume mode."""
_LAST = ("\U0010ffff", "")


class WaitingClaims:
    """Who waits for what."""

    def __init__(self) -> None:
        self._claims: dict[Key, PersistentVolumeClaim] = {}
        self._places: dict[_Place, list[tuple[int, Key]]] = {}
        self._by_class: dict[str, set[Key]] = {}
        self._offered: dict[Key, set[str]] = {}

    def enter(self, key: Key, claim: PersistentVolumeClaim) -> None:
        """A claim has to wait, as it is now."""
        known = self._claims.get(key)
        if known is not None:
            self._take_out(key, known)
        self._claims[key] = claim
        insort(self._places.setdefault(_place_of(claim), []), (wanted_bytes(claim), key))
        self._by_class.setdefault(class_of_claim(claim), set()).add(key)

    def leave(self, key: Key) -> set[str]:
        """A claim waits no more; the volumes that were offered to it."""
        known = self._claims.pop(key, None)
        if known is not None:
            self._take_out(key, known)
        return self._offered.pop(key, set())

    def of_class(self, name: str) -> list[Key]:
        """The claims that wait in a class; "" for none."""
        return list(self._by_class.get(name, ()))

    def choose(self, volume: PersistentVolume) -> Key | None:
        """The claim that a volume is offered to."""
        place = (class_of_volume(volume), volume.spec.volume_mode or "Filesystem")
        claims = self._places.get(place, [])
        end = bisect_right(claims, (size_of(volume.spec.capacity), _LAST))
        for index in range(end - 1, -1, -1):
            key = claims[index][1]
            claim = self._claims[key]
            if not find_misfit(claim, volume) and selects(
                claim.spec.selector, volume.metadata.labels
            ):
                self._offered.setdefault(key, set()).add(volume.metadata.name)
                return key
        return None

    def _take_out(self, key: Key, claim: PersistentVolumeClaim) -> None:
        place = _place_of(claim)
        claims = self._places[place]
        del claims[bisect_left(claims, (wanted_bytes(claim), key))]
        if not claims:
            del self._places[place]
        name = class_of_claim(claim)
        self._by_class[name].discard(key)
        if not self._by_class[name]:
            del self._by_class[name]


def _place_of(claim: PersistentVolumeClaim) -> _Place:
    return class_of_claim(claim), claim.spec.volume_mode or "Filesystem"
