"""Pods near or far from each other: spread constraints and inter-pod affinity. Pure.

Both count pods per domain (the nodes with the same value of a label) once per decision; asking for
a node is then a look-up. Source: kube-scheduler `podtopologyspread` and `interpodaffinity`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from volagent.control.schedule.world import NO_LABELS, NodeState, World
from volagent.objects.label_selector import selects
from volagent.objects.node_affinity import term_admits
from volagent.objects.pod import Pod
from volagent.objects.scheduling import (
    DO_NOT_SCHEDULE,
    NO_EXECUTE,
    NO_SCHEDULE,
    PodAffinity,
    PodAffinityTerm,
    Taint,
    TopologySpreadConstraint,
)

SPREAD = "node(s) didn't match pod topology spread constraints"
SPREAD_NO_LABEL = f"{SPREAD} (missing required label)"
AFFINITY = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
OTHERS_ANTI_AFFINITY = "node(s) didn't satisfy existing pods anti-affinity rules"

_HARD = (NO_SCHEDULE, NO_EXECUTE)
_Domain = tuple[str, str]
"""A label and its value."""


def admits(pod: Pod, state: NodeState) -> bool:
    """Whether a pod's node selector and required node affinity admit a node."""
    selector = pod.spec.node_selector or NO_LABELS
    if any(state.labels.get(name) != value for name, value in selector.items()):
        return False
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    if affinity is None or affinity.required is None:
        return True
    terms = affinity.required.get("nodeSelectorTerms") or ()
    return any(term_admits(term, state.labels, state.name) for term in terms)


def untolerated_taint(pod: Pod, state: NodeState, effects: Iterable[str] = _HARD) -> Taint | None:
    """The first taint with one of the effects that a pod does not tolerate."""
    for taint in state.node.spec.taints or ():
        if taint.effect in effects and not any(
            toleration.tolerates(taint) for toleration in pod.spec.tolerations or ()
        ):
            return taint
    return None


# -- spread ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spread:
    """One constraint with its counts: how many matching pods each domain has."""

    constraint: TopologySpreadConstraint
    per_domain: Mapping[str, int]
    adds: int
    """1 when the pod itself matches."""

    def find_problem(self, state: NodeState) -> str:
        """Why the pod must not go to a node, or ""."""
        constraint = self.constraint
        domain = state.labels.get(constraint.topology_key)
        if domain is None:
            return SPREAD_NO_LABEL
        least = min(self.per_domain.values(), default=0)
        if len(self.per_domain) < (constraint.min_domains or 1):
            least = 0
        skew = self.per_domain.get(domain, 0) + self.adds - least
        return SPREAD if skew > constraint.max_skew else ""

    def crowd(self, state: NodeState) -> int:
        """How many matching pods the node's domain has."""
        return self.per_domain.get(state.labels.get(self.constraint.topology_key, ""), 0)


def read_spreads(pod: Pod, world: World, *, hard: bool) -> tuple[Spread, ...]:
    """The pod's constraints that must hold (`hard`), or that it would like to hold."""
    constraints = [
        each
        for each in pod.spec.topology_spread_constraints or ()
        if (each.when_unsatisfiable == DO_NOT_SCHEDULE) is hard
    ]
    keys = {each.topology_key for each in constraints}
    return tuple(_count(pod, each, keys, world) for each in constraints)


def _count(pod: Pod, constraint: TopologySpreadConstraint, keys: set[str], world: World) -> Spread:
    counts: Counter[str] = Counter()
    for state in world.nodes.values():
        if not keys <= state.labels.keys() or not _is_eligible(pod, constraint, state):
            continue
        counts[state.labels[constraint.topology_key]] += sum(
            other.metadata.namespace == pod.metadata.namespace
            and other.metadata.deletion_timestamp is None
            and _matches(constraint, pod, other)
            for other in state.pods
        )
    return Spread(constraint, counts, int(_matches(constraint, pod, pod)))


def _is_eligible(pod: Pod, constraint: TopologySpreadConstraint, state: NodeState) -> bool:
    if constraint.node_affinity_policy != "Ignore" and not admits(pod, state):
        return False
    return constraint.node_taints_policy != "Honor" or untolerated_taint(pod, state) is None


def _matches(constraint: TopologySpreadConstraint, pod: Pod, other: Pod) -> bool:
    if constraint.label_selector is None:
        return False
    labels, own = other.metadata.labels or NO_LABELS, pod.metadata.labels or NO_LABELS
    return selects(constraint.label_selector, labels) and all(
        labels.get(key) == own[key] for key in constraint.match_label_keys or () if key in own
    )


# -- affinity --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Where the pods are that the pod wants near or far, and those that want it far."""

    near_keys: tuple[str, ...]
    near: frozenset[_Domain]
    """Domains with a pod that fits all required affinity terms."""
    alone: bool
    """Nobody fits them yet, but the pod itself does: it may be the first."""
    far: frozenset[_Domain]
    """Domains that the pod's required anti-affinity excludes."""
    kept_out: frozenset[_Domain]
    """Domains that other pods' required anti-affinity keeps the pod out of."""
    liked: Mapping[_Domain, int]
    """Weights of the preferred terms that a domain fulfils, negative for anti-affinity."""

    def find_problem(self, state: NodeState) -> str:
        """Why the pod must not go to a node, or ""."""
        labels = state.labels
        if self.near_keys:
            if any(key not in labels for key in self.near_keys):
                return AFFINITY
            if not self.alone and any(
                (key, labels[key]) not in self.near for key in self.near_keys
            ):
                return AFFINITY
        if any(labels.get(key) == value for key, value in self.far):
            return ANTI_AFFINITY
        if any(labels.get(key) == value for key, value in self.kept_out):
            return OTHERS_ANTI_AFFINITY
        return ""

    def liking(self, state: NodeState) -> int:
        """The sum of the weights that a node fulfils."""
        return sum(
            weight for (key, value), weight in self.liked.items() if state.labels.get(key) == value
        )


_NO_AFFINITY = PodAffinity()


def read_neighbours(pod: Pod, world: World) -> Neighbours:
    """Look at all pods for what the pod, or they, say about being near each other."""
    affinity = pod.spec.affinity
    wanted = (affinity.pod_affinity if affinity else None) or _NO_AFFINITY
    unwanted = (affinity.pod_anti_affinity if affinity else None) or _NO_AFFINITY
    near_terms = wanted.required or []
    near: set[_Domain] = set()
    far: set[_Domain] = set()
    liked: Counter[_Domain] = Counter()
    if near_terms or unwanted.required or wanted.preferred or unwanted.preferred:
        for state, other in world.pods():
            if near_terms and all(_fits(term, pod, other, world) for term in near_terms):
                near.update(_domains(near_terms, state))
            far.update(
                domain
                for term in unwanted.required or ()
                if _fits(term, pod, other, world)
                for domain in _domains((term,), state)
            )
            _like(liked, pod, (state, other), wanted, world, sign=1)
            _like(liked, pod, (state, other), unwanted, world, sign=-1)
    kept_out = {
        domain
        for state in world.nodes.values()
        for other in state.repelling
        for term in _required_far(other)
        if _fits(term, other, pod, world)
        for domain in _domains((term,), state)
    }
    return Neighbours(
        tuple(term.topology_key for term in near_terms),
        frozenset(near),
        not near and all(_fits(term, pod, pod, world) for term in near_terms),
        frozenset(far),
        frozenset(kept_out),
        liked,
    )


def _required_far(pod: Pod) -> Iterable[PodAffinityTerm]:
    affinity = pod.spec.affinity
    anti = affinity.pod_anti_affinity if affinity is not None else None
    return (anti.required if anti is not None else None) or ()


def _like(
    liked: Counter[_Domain],
    pod: Pod,
    there: tuple[NodeState, Pod],
    affinity: PodAffinity,
    world: World,
    *,
    sign: int,
) -> None:
    state, other = there
    for weighted in affinity.preferred or ():
        term = weighted.pod_affinity_term
        if _fits(term, pod, other, world):
            for domain in _domains((term,), state):
                liked[domain] += sign * weighted.weight


def _domains(terms: Iterable[PodAffinityTerm], state: NodeState) -> Iterable[_Domain]:
    for term in terms:
        value = state.labels.get(term.topology_key)
        if value is not None:
            yield term.topology_key, value


def _fits(term: PodAffinityTerm, holder: Pod, other: Pod, world: World) -> bool:
    """Whether `other` is one of the pods that a term of `holder` speaks of."""
    if term.label_selector is None:
        return False
    namespace = other.metadata.namespace
    if term.namespaces is None and term.namespace_selector is None:
        if namespace != holder.metadata.namespace:
            return False
    elif namespace not in (term.namespaces or ()) and (
        term.namespace_selector is None
        or not selects(term.namespace_selector, world.namespace_labels(namespace))
    ):
        return False
    labels, own = other.metadata.labels or NO_LABELS, holder.metadata.labels or NO_LABELS
    return (
        selects(term.label_selector, labels)
        and all(labels.get(k) == own[k] for k in term.match_label_keys or () if k in own)
        and all(labels.get(k) != own[k] for k in term.mismatch_label_keys or () if k in own)
    )


def node_preference(pod: Pod, state: NodeState) -> int:
    """The sum of the weights of the pod's preferred node affinity that a node fulfils."""
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    preferred = (affinity.preferred if affinity is not None else None) or ()
    return sum(
        each.weight
        for each in preferred
        if each.preference and term_admits(each.preference, state.labels, state.name)
    )
