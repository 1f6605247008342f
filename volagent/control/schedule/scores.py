"""Which of the possible nodes is best for a pod. Pure.

Every score is 0 (worst) to 1 (best) over the nodes that are compared, and weighed as
kube-scheduler's defaults are; the sum decides, and among equals the name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from volagent.control.schedule import topology
from volagent.control.schedule.filters import Wish
from volagent.control.schedule.volumes import VolumePlan
from volagent.control.schedule.world import Amounts, NodeState
from volagent.objects.scheduling import PREFER_NO_SCHEDULE

READY_WEIGHT = 100
"""A node that says that it is ready comes before one that never said anything."""
TAINT_WEIGHT = 3
NODE_AFFINITY_WEIGHT = 2
SPREAD_WEIGHT = 2
NEIGHBOUR_WEIGHT = 2
VOLUME_WEIGHT = 2
RESOURCE_WEIGHT = 1
_LOOKED_AT = ("cpu", "memory")
_ASKED_LEAST: Mapping[str, float] = {
    "cpu": 0.1, "memory": 200.0 * 1024 * 1024,
}  # fmt: skip
"""What a pod is taken to need that says nothing (kube-scheduler's `util.GetNonzeroRequests`)."""


@dataclass(frozen=True, slots=True)
class Option:
    """A node that would do, and how the pod's claims would be bound there."""

    state: NodeState
    plan: VolumePlan


def choose_best(wish: Wish, options: Sequence[Option]) -> Option:
    """The option with the highest score, of equal ones the first by name."""
    scores = score_options(wish, options)
    return min(options, key=lambda option: (-scores[option.state.name], option.state.name))


def score_options(wish: Wish, options: Sequence[Option]) -> dict[str, float]:
    """Node name → weighted sum of all scores."""
    states = [option.state for option in options]
    total = {state.name: 0.0 for state in states}
    intolerable = [_count_disliked(wish, state) for state in states]
    costs = [option.plan.cost for option in options]
    for weight, scores in (
        (READY_WEIGHT, [float(_says_ready(state)) for state in states]),
        (TAINT_WEIGHT, _less_is_better(intolerable)),
        (NODE_AFFINITY_WEIGHT, _more_is_better(
            [topology.node_preference(wish.pod, state) for state in states])),
        (SPREAD_WEIGHT, _less_is_better(
            [sum(each.crowd(state) for each in wish.likes_spread) for state in states])),
        (NEIGHBOUR_WEIGHT, _more_is_better([wish.neighbours.liking(state) for state in states])),
        (VOLUME_WEIGHT, _less_is_better(costs)),
        (RESOURCE_WEIGHT, [free_share(wish.requests, state) for state in states]),
    ):  # fmt: skip
        for state, score in zip(states, scores, strict=True):
            total[state.name] += weight * score
    return total


def free_share(requests: Amounts, state: NodeState) -> float:
    """LeastAllocated: the mean share of cpu and memory that stays free, 0 to 1."""
    shares = []
    for name in _LOOKED_AT:
        has = float(state.allocatable.get(name, 0))
        if has <= 0:
            shares.append(0.0)
            continue
        least = _ASKED_LEAST[name]
        used = max(float(state.used.get(name, 0)), least * len(state.pods))
        wanted = float(requests.get(name) or least)
        shares.append(max(0.0, (has - used - wanted) / has))
    return sum(shares) / len(shares)


def _says_ready(state: NodeState) -> bool:
    conditions = state.node.status.conditions or ()
    return any(each.type == "Ready" and each.status == "True" for each in conditions)


def _count_disliked(wish: Wish, state: NodeState) -> int:
    tolerations = wish.pod.spec.tolerations or ()
    return sum(
        taint.effect == PREFER_NO_SCHEDULE
        and not any(each.tolerates(taint) for each in tolerations)
        for taint in state.node.spec.taints or ()
    )


def _more_is_better(values: Sequence[int]) -> list[float]:
    least, most = min(values), max(values)
    if least == most:
        return [0.0] * len(values)
    return [(value - least) / (most - least) for value in values]


def _less_is_better(values: Sequence[int]) -> list[float]:
    return _more_is_better([-value for value in values])
