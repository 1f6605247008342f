"""How long each node has been silent, by our own monotonic clock and our own observation.

No clock of a node counts, nor what another server has seen: after `start` each node has its whole
time again.
"""

from collections.abc import Callable

from volagent.aio.clock import Clock
from volagent.client.contract import LEASES
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.nodes.run import LEASE_NAMESPACE
from volagent.objects.lease import Lease


class LeaseWatch:
    """When the lease of each node was seen to change."""

    def __init__(
        self, copies: SharedCopies, clock: Clock, quiet_s: float, on_heard: Callable[[str], None]
    ) -> None:
        """`on_heard` is told who had been silent for `quiet_s`. Before `copies.run`."""
        self._clock = clock
        self._quiet_s = quiet_s
        self._on_heard = on_heard
        self._seen: dict[str, tuple[float, str]] = {}
        """Node → when, and the Lease's version."""
        copies.follow(LEASES, Lease).listen(self._changed)

    def start(self) -> None:
        """Count from now on."""
        now_s = self._clock.monotonic()
        self._seen = {name: (now_s, version) for name, (_, version) in self._seen.items()}

    def silent_s(self, node: str) -> float | None:
        """How long a node has been silent at least; None for one without a lease."""
        seen = self._seen.get(node)
        return self._clock.monotonic() - seen[0] if seen is not None else None

    def version(self, node: str) -> str:
        """Of the last renewal that was seen."""
        return self._seen.get(node, (0.0, ""))[1]

    def nodes(self) -> list[str]:
        """All that have a lease."""
        return list(self._seen)

    def _changed(self, key: Key, _old: Lease | None, new: Lease | None) -> None:
        namespace, name = key
        if namespace != LEASE_NAMESPACE:
            return
        if new is None:
            self._seen.pop(name, None)
        else:
            silent_s = self.silent_s(name)
            self._seen[name] = (self._clock.monotonic(), new.metadata.resource_version)
            if silent_s is not None and silent_s >= self._quiet_s:
                self._on_heard(name)
