"""How long things take from a node's loss on, and how long an outcome has been known."""

from collections.abc import Callable

from volagent.aio.clock import Clock
from volagent.control.failover.world import FailoverWorld
from volagent.objects.fencing import PENDING, Fencing
from volagent.observe.failover import fencings, moved_seconds, proven_seconds


class FailoverTimes:
    """Feeds the metrics; forgets what is over."""

    def __init__(
        self, world: FailoverWorld, clock: Clock, lost_for_s: Callable[[str], float]
    ) -> None:
        self._clock = clock
        self._lost_for_s = lost_for_s
        self._since_s: dict[str, float] = {}
        """Uid of a Fencing → when its phase or its failing became what it is."""
        self._moving: dict[str, tuple[str, float]] = {}
        """Disk → the lost node, and when it was lost."""
        world.on_fencing.append(self._fencing_changed)
        world.on_attached.append(self._attached)

    def age_s(self, fencing: Fencing | None) -> float:
        """How long it has been as it is."""
        if fencing is None:
            return 0.0
        now_s = self._clock.monotonic()
        return now_s - self._since_s.setdefault(fencing.metadata.uid, now_s)

    def _fencing_changed(self, old: Fencing | None, new: Fencing | None) -> None:
        if new is None:
            if old is not None:
                self._since_s.pop(old.metadata.uid, None)
            return
        if old is not None and old.status.phase == new.status.phase:
            return
        self._since_s[new.metadata.uid] = self._clock.monotonic()
        if old is None or new.status.phase == PENDING:
            return
        spec = new.spec
        fencings.labels(spec.method, new.status.phase).inc()
        if new.proven:
            lost_s = max(0.0, self._lost_for_s(spec.node_name))
            proven_seconds.labels(spec.method).observe(lost_s)
            self._moving[spec.volume] = (spec.node_name, self._clock.monotonic() - lost_s)

    def _attached(self, volume: str, node: str) -> None:
        lost, lost_at_s = self._moving.pop(volume, ("", 0.0))
        if lost and node != lost:
            moved_seconds.observe(self._clock.monotonic() - lost_at_s)
