"""The free volumes that fit one claim, arranged by where they can be used. Pure.

Gone through once per decision, not once per node: volumes of one VM are found by its host name.
"""

from collections.abc import Iterable
from heapq import merge
from itertools import islice

from volagent.control.schedule.world import NodeState, World
from volagent.objects.node_affinity import admits_node
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

HOST_NAME = "kubernetes.io/hostname"

_Entry = tuple[int, PersistentVolume]
"""Place in the order of preference, and the volume."""


class Offers:
    """What a claim may choose from, best first."""

    def __init__(self, claim: PersistentVolumeClaim, world: World) -> None:
        self._by_host: dict[str, list[_Entry]] = {}
        self._elsewhere: list[_Entry] = []
        fitting = world.source.candidates(claim, admits=lambda _: True, excluded=world.taken)
        for entry in enumerate(fitting):
            hosts = _hosts_of(entry[1])
            if hosts is None:
                self._elsewhere.append(entry)
            for host in hosts or ():
                self._by_host.setdefault(host, []).append(entry)

    def best_on(self, state: NodeState, number: int) -> list[PersistentVolume]:
        """The best volumes that a node can reach, so many at most."""
        own = self._by_host.get(state.labels.get(HOST_NAME, ""), ())
        both: Iterable[_Entry] = merge(own, self._elsewhere, key=lambda entry: entry[0])
        return list(islice((v for _, v in both if is_reachable(v, state)), number))


def is_reachable(volume: PersistentVolume, state: NodeState) -> bool:
    """Whether a volume's node affinity admits a node."""
    return admits_node(volume.spec.node_affinity, state.labels, state.name)


def _hosts_of(volume: PersistentVolume) -> set[str] | None:
    """The host names that each term of a volume's affinity insists on; None: not by host name."""
    required = (volume.spec.node_affinity or {}).get("required")
    if required is None:
        return None
    hosts: set[str] = set()
    for term in required.get("nodeSelectorTerms") or ():
        named = [
            expression.get("values") or ()
            for expression in term.get("matchExpressions") or ()
            if expression.get("key") == HOST_NAME and expression.get("operator") == "In"
        ]
        if not named:
            return None
        hosts.update(named[0])
    return hosts
