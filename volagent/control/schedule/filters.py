"""What makes a node impossible for a pod, in kube-scheduler's order and words. Pure.

For each node the first filter that objects gives the reasons; later ones are not asked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from volagent.control.schedule import topology, volumes
from volagent.control.schedule.topology import Neighbours, Spread
from volagent.control.schedule.volumes import NoPlan, PodVolumes, VolumePlan
from volagent.control.schedule.world import PODS, Amounts, NodeState, World, requests_of
from volagent.objects.pod import Pod
from volagent.objects.scheduling import NO_SCHEDULE, Taint

UNSCHEDULABLE = "node(s) were unschedulable"
NOT_READY = "node(s) were not ready"
NODE_AFFINITY = "node(s) didn't match Pod's node affinity/selector"
TOO_MANY_PODS = "Too many pods"
CORDONED = Taint(key="node.kubernetes.io/unschedulable", effect=NO_SCHEDULE)
"""What a pod must tolerate to go to a cordoned node."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A pod and what was counted once for all nodes."""

    pod: Pod
    world: World
    requests: Amounts
    volumes: PodVolumes
    spreads: tuple[Spread, ...]
    likes_spread: tuple[Spread, ...]
    neighbours: Neighbours


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node will not do; `detail` is for a person and not part of Kubernetes' sentence."""

    reasons: tuple[str, ...]
    detail: str = ""


Filter = Callable[[Wish, NodeState], Refusal | None]


def read_wish(pod: Pod, world: World) -> Wish:
    """What a pod wants, counted in the world as it is."""
    return Wish(
        pod,
        world,
        requests_of(pod),
        volumes.read_pod_volumes(pod, world),
        topology.read_spreads(pod, world, hard=True),
        topology.read_spreads(pod, world, hard=False),
        topology.read_neighbours(pod, world),
    )


def find_refusal(wish: Wish, state: NodeState) -> Refusal | None:
    """The first objection to a node, or None."""
    for each in FILTERS:
        refusal = each(wish, state)
        if refusal is not None:
            return refusal
    return None


def filter_unschedulable(wish: Wish, state: NodeState) -> Refusal | None:
    """NodeUnschedulable: cordoned nodes take nobody who does not tolerate it."""
    if not state.node.spec.unschedulable:
        return None
    if any(each.tolerates(CORDONED) for each in wish.pod.spec.tolerations or ()):
        return None
    return Refusal((UNSCHEDULABLE,), f"`kubectl uncordon {state.name}` lets pods in again")


def filter_ready(_wish: Wish, state: NodeState) -> Refusal | None:
    """A node that says it is not ready; Kubernetes has a taint for that, set by a controller."""
    for condition in state.node.status.conditions or ():
        if condition.type == "Ready" and condition.status != "True":
            return Refusal((NOT_READY,), f"its condition Ready is {condition.status}")
    return None


def filter_taints(wish: Wish, state: NodeState) -> Refusal | None:
    """TaintToleration: NoSchedule and NoExecute."""
    taint = topology.untolerated_taint(wish.pod, state)
    if taint is None:
        return None
    return Refusal((f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}",))


def filter_node_affinity(wish: Wish, state: NodeState) -> Refusal | None:
    """NodeAffinity: the selector, and the required affinity."""
    return None if topology.admits(wish.pod, state) else Refusal((NODE_AFFINITY,))


def filter_resources(wish: Wish, state: NodeState) -> Refusal | None:
    """NodeResourcesFit: every resource that is short is named.

    What a node says nothing of, it has not; only the number of pods is then unlimited.
    """
    allocatable = state.allocatable
    reasons, details = [], []
    limit = allocatable.get(PODS)
    if limit is not None and state.used.get(PODS, Fraction(0)) + 1 > limit:
        reasons.append(TOO_MANY_PODS)
    for name, wanted in wish.requests.items():
        has, used = allocatable.get(name, Fraction(0)), state.used.get(name, Fraction(0))
        if wanted > 0 and used + wanted > has:
            reasons.append(f"Insufficient {name}")
            details.append(f"{name}: {_show(wanted)} wanted, {_show(has - used)} free")
    return Refusal(tuple(reasons), ", ".join(details)) if reasons else None


def filter_once_pod(wish: Wish, _state: NodeState) -> Refusal | None:
    """VolumeRestrictions: a ReadWriteOncePod claim has one user in the whole cluster."""
    if not wish.volumes.once_pod:
        return None
    own = wish.pod.metadata
    for _, other in wish.world.pods():
        if other.metadata.namespace != own.namespace or other.metadata.uid == own.uid:
            continue
        for name, _ephemeral in volumes.claims_of(other):
            if name in wish.volumes.once_pod:
                text = f'pod "{other.metadata.name}" uses persistentvolumeclaim "{name}"'
                return Refusal((volumes.ONCE_POD_CONFLICT,), text)
    return None


def filter_attach_limits(wish: Wish, state: NodeState) -> Refusal | None:
    """NodeVolumeLimits: what a driver can attach to one node."""
    if volumes.exceeds_attach_limit(wish.volumes, state, wish.world):
        return Refusal((volumes.TOO_MANY_VOLUMES,))
    return None


def filter_volumes(wish: Wish, state: NodeState) -> Refusal | None:
    """VolumeBinding: bound volumes are reachable, all others can be found or made there."""
    conflict = volumes.find_bound_conflict(wish.volumes, state)
    if conflict:
        return Refusal((conflict,))
    match plan_volumes(wish, state):
        case NoPlan(reason, detail):
            return Refusal((reason,), detail)
        case VolumePlan():
            return None


def filter_zones(wish: Wish, state: NodeState) -> Refusal | None:
    """VolumeZone: the zone labels of bound volumes."""
    return None if volumes.is_in_zone(wish.volumes, state) else Refusal((volumes.NO_ZONE,))


def filter_spread(wish: Wish, state: NodeState) -> Refusal | None:
    """PodTopologySpread: DoNotSchedule."""
    for spread in wish.spreads:
        problem = spread.find_problem(state)
        if problem:
            return Refusal((problem,), f"by {spread.constraint.topology_key}")
    return None


def filter_neighbours(wish: Wish, state: NodeState) -> Refusal | None:
    """InterPodAffinity: required affinity and anti-affinity, the pod's and the others'."""
    problem = wish.neighbours.find_problem(state)
    return Refusal((problem,)) if problem else None


def plan_volumes(wish: Wish, state: NodeState) -> VolumePlan | NoPlan:
    """How the pod's waiting claims are bound on a node."""
    if not wish.volumes.waiting:
        return VolumePlan()
    return volumes.plan_volumes(wish.volumes, state, wish.world)


FILTERS: tuple[Filter, ...] = (
    filter_unschedulable, filter_ready, filter_taints, filter_node_affinity, filter_resources,
    filter_once_pod, filter_attach_limits, filter_volumes, filter_zones, filter_spread,
    filter_neighbours,
)  # fmt: skip


def _show(amount: Fraction) -> str:
    if amount.denominator == 1:
        return str(amount.numerator)
    return f"{float(amount):g}"
