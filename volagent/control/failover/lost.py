"""Which nodes are lost, since when, and what they had: what the parts of fail-over share."""

from collections.abc import Callable

from volagent.aio.clock import Clock
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.failover.decide import find_brake
from volagent.control.failover.world import FailoverWorld
from volagent.control.nodes.decide import is_lost
from volagent.control.nodes.silence import SilenceWatch
from volagent.objects.attachments import is_out_of_service
from volagent.objects.fencing import FAIL_OVER
from volagent.objects.storage import Node
from volagent.settings import LeaseSettings


class LostNodes:
    """A node is lost when its Node says so and when it has been silent for the whole lease time
    while this process looked at it."""

    def __init__(
        self,
        copies: SharedCopies,
        clock: Clock,
        lease: LeaseSettings,
        *,
        share_max: float,
        own_node: str = "",
    ) -> None:
        """`share_max`: of the nodes may be silent at once. `own_node`: the one whose agent is in
        this process, if any. Before `copies.run`."""
        self._copies = copies
        self._lease = lease
        self._share_max = share_max
        self._started = False
        self.listeners: list[Callable[[str], None]] = []
        """Told which node a change concerns."""
        self.silence = SilenceWatch(copies, clock, self._renewed, own_node=own_node)
        self.world = FailoverWorld(copies, self._tell)
        copies.nodes.listen(self._node_changed)

    async def wait_synced(self) -> None:
        """Wait until everything has been read; from then on leases count."""
        await self._copies.wait_synced()
        if not self._started:
            self._started = True
            self.silence.start()

    def lost_for_s(self, name: str) -> float:
        """How long a node has been silent beyond its lease; negative while it is not."""
        silent_s = self.silence.silent_s(name)
        return silent_s - self._lease.timeout_s if silent_s is not None else -1.0

    def find_lease_silent_s(self, name: str) -> float | None:
        """For how long a node's Lease has stood still; None when it has none."""
        found = self.silence.find(name)
        return found.silent_s if found is not None and found.leased else None

    def find_held(self, node: Node) -> str:
        """Why nothing is begun for a lost node; "": it may be.

        Nodes that are about to be lost count: when all become silent at one moment, the first to be
        told lost is so a period before the last. Those that have never renewed a lease count like
        others; those that were only declared do not, nor does the node of this process, which no
        network is between: they would make many silent ones look few.
        """
        released = (node.metadata.annotations or {}).get(FAIL_OVER)
        if released and released == node.status.node_info.boot_id:
            return ""
        lease = self._lease
        early_s = max(lease.timeout_s - 1.25 * lease.period_s, 1.25 * lease.period_s)
        counted = [
            name
            for name in self.silence.nodes()
            if (each := self._copies.nodes.get("", name)) is not None
            and not is_out_of_service(each)
        ]
        silent = [name for name in counted if (self.silence.silent_s(name) or 0.0) >= early_s]
        return find_brake(silent, len(counted), self._share_max)

    def _node_changed(self, key: Key, old: Node | None, new: Node | None) -> None:
        self._tell(key[1])
        well = [node is not None and not is_lost(node) for node in (old, new)]
        if well[0] != well[1]:  # who can carry anything out, and how many are lost, has changed
            for node in self._copies.nodes.values():
                if is_lost(node) and node.metadata.name != key[1]:
                    self._tell(node.metadata.name)

    def _renewed(self, name: str, silent_s: float) -> None:
        if silent_s >= self._lease.timeout_s:
            self._tell(name)

    def _tell(self, name: str) -> None:
        for listener in self.listeners:
            listener(name)
