"""How long each node has been silent, by our own monotonic clock and our own observation.

No clock of a node counts, nor what another server has seen: after `start` each node has its whole
time again.

A node is heard by its Lease. One that has none is silent since it was seen first, or heard last, if
its Node tells of a boot: its agent has run there, and has died before its first renewal, or its
Lease was deleted. A Node that tells of no boot was only declared: no agent may use anything by it
(`node/register.py`), so there is nothing to be judged. An agent in this very process has no Lease
and is always heard.
"""

from collections.abc import Callable
from dataclasses import dataclass

from volagent.aio.clock import Clock
from volagent.client.contract import LEASES
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.nodes.decide import Silence
from volagent.objects.lease import Lease
from volagent.objects.storage import Node

LEASE_NAMESPACE = "kube-node-lease"


@dataclass(slots=True)
class _Seen:
    """What was seen of a node."""

    since_s: float
    """It has been silent."""
    version: str = ""
    """Of its Lease; "": there is none."""
    renewed: bool = False
    """Since `start`."""


class SilenceWatch:
    """When each node was heard."""

    def __init__(
        self,
        copies: SharedCopies,
        clock: Clock,
        on_renewed: Callable[[str, float], None],
        *,
        own_node: str = "",
    ) -> None:
        """`on_renewed` is told who was heard, and how long it had been silent. `own_node`: the one
        of this process, if it is a node too. Before `copies.run`."""
        self._copies = copies
        self._clock = clock
        self._on_renewed = on_renewed
        self._own_node = own_node
        self._seen: dict[str, _Seen] = {}
        copies.follow(LEASES, Lease).listen(self._lease_changed)
        copies.nodes.listen(self._node_changed)

    def start(self) -> None:
        """Count from now on."""
        now_s = self._clock.monotonic()
        for seen in self._seen.values():
            seen.since_s, seen.renewed = now_s, False

    def find(self, node: str) -> Silence | None:
        """What is known of a node; None for one that is not judged."""
        if node == self._own_node:
            return Silence(0.0, leased=False, renewed=True)
        seen = self._seen.get(node)
        if seen is None:
            return None
        silent_s = self._clock.monotonic() - seen.since_s
        return Silence(silent_s, leased=bool(seen.version), renewed=seen.renewed)

    def silent_s(self, node: str) -> float | None:
        """How long a node has been silent at least; None for one that is not judged."""
        found = self.find(node)
        return found.silent_s if found is not None else None

    def version(self, node: str) -> str:
        """Of the last renewal that was seen; "" for one without a Lease."""
        seen = self._seen.get(node)
        return seen.version if seen is not None else ""

    def nodes(self) -> list[str]:
        """All that can fall silent."""
        return [name for name in self._seen if name != self._own_node]

    def _lease_changed(self, key: Key, _old: Lease | None, new: Lease | None) -> None:
        namespace, name = key
        if namespace != LEASE_NAMESPACE:
            return
        now_s, seen = self._clock.monotonic(), self._seen.get(name)
        if new is not None:
            self._seen[name] = _Seen(now_s, new.metadata.resource_version, renewed=True)
            self._on_renewed(name, now_s - seen.since_s if seen is not None else 0.0)
        elif seen is not None:
            seen.version = ""
            if not _boot_of(self._copies.nodes.get("", name)):
                del self._seen[name]

    def _node_changed(self, key: Key, old: Node | None, new: Node | None) -> None:
        name, boot = key[1], _boot_of(new)
        seen = self._seen.get(name)
        if seen is not None and seen.version:
            return
        if not boot:
            self._seen.pop(name, None)
        elif seen is None or boot != _boot_of(old):  # an agent has spoken
            self._seen[name] = _Seen(self._clock.monotonic())


def _boot_of(node: Node | None) -> str:
    return node.status.node_info.boot_id if node is not None else ""
