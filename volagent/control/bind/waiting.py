"""The claims that found no volume, so that a volume that becomes free finds the right one. Pure.

Claims are kept by class and mode, sorted by size. A volume is offered to one claim at a time: the
largest that it can serve, of equals the first by name. A claim has one offer at most; it keeps it
until it leaves or turns it down, and then the volume can be offered to the next one. So any number
of volumes and claims that come together cost each of them a few offers, not one for each other.
"""

from bisect import bisect_left, bisect_right, insort

from volagent.control.bind.match import Key, Place, find_misfit, place_of_claim, place_of_volume
from volagent.objects.classes import class_of_claim
from volagent.objects.growth import size_of, wanted_bytes
from volagent.objects.label_selector import selects
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

_Entry = tuple[int, Key]
"""Bytes wanted, negated so that the largest comes first; the claim."""


class WaitingClaims:
    """Who waits for what."""

    def __init__(self) -> None:
        self._class_of: dict[Key, str] = {}
        self._by_class: dict[str, set[Key]] = {}
        self._open: dict[Place, list[_Entry]] = {}
        """Claims that a volume can be offered to."""
        self._entries: dict[Key, tuple[Place, _Entry, PersistentVolumeClaim]] = {}
        self._offers: dict[Key, str] = {}

    def note(self, key: Key, claim: PersistentVolumeClaim) -> None:
        """A claim is being looked at: its class concerns it, but it takes no offers now."""
        self._close(key)
        name = class_of_claim(claim)
        if self._class_of.get(key) != name:
            self._forget_class(key)
            self._class_of[key] = name
            self._by_class.setdefault(name, set()).add(key)

    def enter(self, key: Key, claim: PersistentVolumeClaim) -> str:
        """A claim has to wait and takes offers; the volume that it turned down, or ""."""
        self.note(key, claim)
        entry = (-wanted_bytes(claim), key)
        place = place_of_claim(claim)
        insort(self._open.setdefault(place, []), entry)
        self._entries[key] = (place, entry, claim)
        return self.decline(key)

    def decline(self, key: Key) -> str:
        """A claim did not take its offer; the volume that was offered to it, or ""."""
        return self._offers.pop(key, "")

    def leave(self, key: Key) -> str:
        """A claim waits no more; the volume that was offered to it, or ""."""
        self._close(key)
        self._forget_class(key)
        return self.decline(key)

    def of_class(self, name: str) -> list[Key]:
        """The claims of a class that have no volume yet; "" for those without a class."""
        return sorted(self._by_class.get(name, ()))

    def holds(self, key: Key) -> bool:
        """Whether a claim is known to have no volume yet."""
        return key in self._class_of

    def choose(self, volume: PersistentVolume, after: Key | None = None) -> Key | None:
        """Offer a volume; the claim that gets the offer. `after` a claim that turned it down."""
        claims = self._open.get(place_of_volume(volume), [])
        start = bisect_left(claims, (-size_of(volume.spec.capacity), ("", "")))
        if after in self._entries:
            start = max(start, bisect_right(claims, self._entries[after][1]))
        for index in range(start, len(claims)):
            key = claims[index][1]
            claim = self._entries[key][2]
            if not find_misfit(claim, volume) and selects(
                claim.spec.selector, volume.metadata.labels
            ):
                self._close(key)
                self._offers[key] = volume.metadata.name
                return key
        return None

    def _close(self, key: Key) -> None:
        """Take a claim from those that get offers."""
        known = self._entries.pop(key, None)
        if known is None:
            return
        place, entry, _ = known
        claims = self._open[place]
        del claims[bisect_left(claims, entry)]
        if not claims:
            del self._open[place]

    def _forget_class(self, key: Key) -> None:
        name = self._class_of.pop(key, None)
        if name is None:
            return
        self._by_class[name].discard(key)
        if not self._by_class[name]:
            del self._by_class[name]
