"""Which volumes can be had just now, and which waiting claim is told of one. No I/O.

A volume that was chosen is held back from others until its next change: that shows it bound, or it
shows why the write was refused; the write was conditional on the version that was chosen. When a
write fails for another reason it is let go at once.

Invariant: a free volume that is not held has been offered to a claim that is being looked at, or
no claim that takes offers wants it, or each of those has turned it down.
"""

from collections.abc import Callable

from volagent.control.bind.match import Key, VolumeIndex
from volagent.control.bind.waiting import WaitingClaims
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim


class Offers:
    """Brings free volumes and waiting claims together."""

    def __init__(self, wake: Callable[[Key], None]) -> None:
        """`wake` has a claim looked at soon."""
        self._wake = wake
        self._held: set[str] = set()
        self.index = VolumeIndex()
        self.waiting = WaitingClaims()

    def volume_changed(self, name: str, volume: PersistentVolume | None) -> None:
        """A volume is like this now, or is gone."""
        self._held.discard(name)
        if volume is None:
            self.index.drop(name)
        else:
            self.index.put(volume)
            self.offer(name)

    def find_free(
        self, claim: PersistentVolumeClaim, admits: Callable[[PersistentVolume], bool] | None
    ) -> PersistentVolume | None:
        """The best volume that nobody else is about to take."""
        return next(self.index.candidates(claim, admits=admits, excluded=self._held), None)

    def hold(self, volume: PersistentVolume) -> None:
        """A free volume was chosen."""
        if self.index.is_free(volume.metadata.name):
            self._held.add(volume.metadata.name)

    def let_go(self, volume: PersistentVolume) -> None:
        """A chosen volume was not written, as far as is known."""
        name = volume.metadata.name
        if name in self._held:
            self._held.discard(name)
            self.offer(name)

    def enter(self, key: Key, claim: PersistentVolumeClaim) -> None:
        """A claim looked at all free volumes, took none, and waits."""
        declined = self.waiting.enter(key, claim)
        if declined:
            self.offer(declined, after=key)

    def stand_by(self, key: Key) -> None:
        """A claim would take no volume now, whatever there is."""
        declined = self.waiting.decline(key)
        if declined:
            self.offer(declined)

    def leave(self, key: Key) -> None:
        """A claim waits no more."""
        offered = self.waiting.leave(key)
        if offered:
            self.offer(offered)

    def offer(self, name: str, after: Key | None = None) -> None:
        """Wake the waiting claim that a free volume suits best."""
        volume = self.index.get(name)
        if volume is None or name in self._held or not self.index.is_free(name):
            return
        claim = self.waiting.choose(volume, after)
        if claim is not None:
            self._wake(claim)
