"""What the choice of a node looks at, as values. Pure.

A `World` is one moment of the cluster as the local copies have it, with the pods that were just
assigned counted on their nodes already. A finished pod holds nothing and is not counted.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from volagent.objects.pod import Container as PodContainer
from volagent.objects.pod import Pod
from volagent.objects.quantity import QuantityError, parse_quantity
from volagent.objects.storage import (
    CSINode,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)

NO_LABELS: Mapping[str, str] = {}
PODS = "pods"
"""The resource of which every pod takes one."""

Amounts = Mapping[str, Fraction]
"""Resource name → exact amount."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node and the pods that run, or are about to run, on it."""

    node: Node
    pods: tuple[Pod, ...]
    allocatable: Amounts
    """What the node offers to all its pods."""
    used: Amounts
    """What these pods request together."""
    repelling: tuple[Pod, ...] = ()
    """Those of them that keep others away (required anti-affinity)."""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.metadata.name

    @property
    def labels(self) -> Mapping[str, str]:
        """The node's labels."""
        return self.node.metadata.labels or NO_LABELS


class CandidateSource(Protocol):
    """The volumes that claims could have."""

    def reserved_for(self, claim: PersistentVolumeClaim) -> Sequence[PersistentVolume]:
        """The volumes whose `claimRef` names the claim, and which can serve it, best first."""

    def candidates(
        self,
        claim: PersistentVolumeClaim,
        *,
        admits: Callable[[PersistentVolume], bool],
        excluded: Collection[str],
    ) -> Iterable[PersistentVolume]:
        """The free volumes that fit a claim and are admitted, best first; without `excluded`
        names."""


@dataclass(frozen=True, slots=True)
class World:
    """One moment of the cluster."""

    nodes: Mapping[str, NodeState]
    claim: Callable[[str, str], PersistentVolumeClaim | None]
    """By namespace and name."""
    volume: Callable[[str], PersistentVolume | None]
    storage_class: Callable[[str], StorageClass | None]
    csi_node: Callable[[str], CSINode | None]
    namespace_labels: Callable[[str], Mapping[str, str]]
    source: CandidateSource
    taken: Collection[str] = frozenset()
    """Volumes that are being reserved for other claims at this moment."""
    refused: Callable[[str, str], bool] = lambda _uid, _node: False
    """Whether the provisioner lately could not make a claim's volume (by uid) on a node."""

    def pods(self) -> Iterable[tuple[NodeState, Pod]]:
        """Every pod that has a node, with it."""
        for state in self.nodes.values():
            for pod in state.pods:
                yield state, pod


def make_node_state(node: Node, pods: Iterable[Pod]) -> NodeState:
    """A node with these pods on it, their requests added up."""
    held = tuple(pods)
    used: dict[str, Fraction] = {PODS: Fraction(len(held))}
    for pod in held:
        for name, amount in requests_of(pod).items():
            used[name] = used.get(name, Fraction(0)) + amount
    allocatable = amounts_of(node.status.allocatable)
    return NodeState(node, held, allocatable, used, tuple(pod for pod in held if _repels(pod)))


def _repels(pod: Pod) -> bool:
    affinity = pod.spec.affinity
    anti = affinity.pod_anti_affinity if affinity is not None else None
    return anti is not None and bool(anti.required)


def is_finished(pod: Pod) -> bool:
    """Whether a pod's containers have all ended for good."""
    return pod.status.phase in ("Succeeded", "Failed")


def requests_of(pod: Pod) -> dict[str, Fraction]:
    """What a pod asks of its node.

    Source: component-helpers `resource/helpers.go`: its containers together with the sidecars that
    stay, or its most demanding init container if that is more; and the overhead.
    """
    total: dict[str, Fraction] = {}
    sidecars: dict[str, Fraction] = {}
    peak: dict[str, Fraction] = {}
    for container in pod.spec.init_containers or ():
        own = _requests(container)
        if container.restart_policy == "Always":
            _add(sidecars, own)
            own = {}
        start = dict(sidecars)
        _add(start, own)
        _raise(peak, start)
    for container in pod.spec.containers:
        _add(total, _requests(container))
    _add(total, sidecars)
    _raise(total, peak)
    _add(total, amounts_of(pod.spec.overhead))
    return total


def amounts_of(quantities: Mapping[str, str | int | float] | None) -> dict[str, Fraction]:
    """Quantities as numbers; what is no quantity was refused when it was declared."""
    amounts = {}
    for name, text in (quantities or {}).items():
        try:
            amounts[name] = parse_quantity(text)
        except QuantityError:
            continue
    return amounts


def _requests(container: PodContainer) -> dict[str, Fraction]:
    return amounts_of(container.resources.requests if container.resources else None)


def _add(total: dict[str, Fraction], more: Amounts) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, Fraction(0)) + amount


def _raise(total: dict[str, Fraction], least: Amounts) -> None:
    for name, amount in least.items():
        total[name] = max(total.get(name, Fraction(0)), amount)
