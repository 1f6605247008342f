"""Typed views of what a pod and a node say about where a pod may run.

Selectors and node selector terms stay JSON (of checked types): `objects/label_selector.py` and
`objects/node_affinity.py` read them.
"""

from typing import TypedDict

import msgspec

from volagent.objects.meta import View

NO_SCHEDULE = "NoSchedule"
PREFER_NO_SCHEDULE = "PreferNoSchedule"
NO_EXECUTE = "NoExecute"
TAINT_EFFECTS = frozenset({NO_SCHEDULE, PREFER_NO_SCHEDULE, NO_EXECUTE})
DO_NOT_SCHEDULE = "DoNotSchedule"
SCHEDULE_ANYWAY = "ScheduleAnyway"
DEFAULT_SCHEDULER = "default-scheduler"
"""`schedulerName` of the pods that volagent places."""

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


class Requirement(TypedDict, total=False):
    """One entry of `matchExpressions` or `matchFields`."""

    key: str
    operator: str
    values: list[str] | None


class LabelSelector(TypedDict, total=False):
    """A selector of objects by their labels."""

    matchLabels: dict[str, str] | None
    matchExpressions: list[Requirement] | None


class NodeSelectorTerm(TypedDict, total=False):
    """What must all be true of a node."""

    matchExpressions: list[Requirement] | None
    matchFields: list[Requirement] | None


class NodeSelector(TypedDict, total=False):
    """Terms of which one must be true of a node."""

    nodeSelectorTerms: list[NodeSelectorTerm] | None


class Taint(View, frozen=True):
    """`spec.taints[]` of a Node: who does not tolerate it stays away."""

    key: str = ""
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class Toleration(View, frozen=True):
    """`spec.tolerations[]` of a pod; an empty key with `Exists` tolerates everything."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None

    def tolerates(self, taint: Taint) -> bool:
        """Whether this covers a taint. Source: `core/v1/toleration.go`."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator == "Exists":
            return True
        return self.operator in ("", "Equal") and self.value == taint.value


class PreferredNodes(View, frozen=True):
    """A node selector term that a pod would like; `weight` 1..100."""

    weight: int = 0
    preference: NodeSelectorTerm | None = None


class NodeAffinity(View, frozen=True):
    """`affinity.nodeAffinity` of a pod."""

    required: NodeSelector | None = msgspec.field(default=None, name=_REQUIRED)
    preferred: list[PreferredNodes] | None = msgspec.field(default=None, name=_PREFERRED)


class PodAffinityTerm(View, frozen=True):
    """Pods that are to be near, or far, in the sense of `topology_key`."""

    label_selector: LabelSelector | None = None
    """None selects no pod, an empty one every pod."""
    topology_key: str = ""
    namespaces: list[str] | None = None
    namespace_selector: LabelSelector | None = None
    """An empty one selects every namespace."""
    match_label_keys: list[str] | None = None
    mismatch_label_keys: list[str] | None = None


class WeightedPodAffinityTerm(View, frozen=True):
    """A term that a pod would like; `weight` 1..100."""

    weight: int = 0
    pod_affinity_term: PodAffinityTerm = PodAffinityTerm()


class PodAffinity(View, frozen=True):
    """`affinity.podAffinity` or `affinity.podAntiAffinity`."""

    required: list[PodAffinityTerm] | None = msgspec.field(default=None, name=_REQUIRED)
    preferred: list[WeightedPodAffinityTerm] | None = msgspec.field(default=None, name=_PREFERRED)


class Affinity(View, frozen=True):
    """`spec.affinity` of a pod."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(View, frozen=True):
    """`spec.topologySpreadConstraints[]`: matching pods per domain differ by `max_skew` at most."""

    max_skew: int = 0
    topology_key: str = ""
    when_unsatisfiable: str = DO_NOT_SCHEDULE
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    match_label_keys: list[str] | None = None
    node_affinity_policy: str | None = None
    """Honor (the default): only nodes that the pod's node affinity admits are counted."""
    node_taints_policy: str | None = None
    """Ignore (the default): nodes with taints are counted too."""


class SchedulingGate(View, frozen=True):
    """`spec.schedulingGates[]`: the pod is not placed before somebody takes it away."""

    name: str = ""
