"""Where a new pod runs when there is nothing to choose, and how a pod is given its node. Pure.

With one VM most pods need no scheduler and no second write: a pod that this VM can take is assigned
to it as it is created. Where a scheduler runs, it gets every pod that asks for anything more
(claims, affinity, resources, ...). Source of the condition and its texts: kube-scheduler.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from volagent.client.contract import Conflict
from volagent.objects.annotations import PLACED_ON, SUCCESSOR_OF
from volagent.objects.meta import Document
from volagent.objects.scheduling import (
    DEFAULT_SCHEDULER,
    NO_EXECUTE,
    NO_SCHEDULE,
    Taint,
    Toleration,
)
from volagent.objects.storage import Node

_CLAIMING = ("persistentVolumeClaim", "ephemeral")
_DEMANDS = ("affinity", "topologySpreadConstraints", "overhead")


def place_pod(pod: Document, node_name: str, labels: Mapping[str, str]) -> Document:
    """The new pod, assigned to the node or told why not; one that names a node is left alone.

    For a VM without a scheduler: there, nothing but the node selector is looked at.
    """
    spec = pod.get("spec") or {}
    if spec.get("nodeName") or spec.get("schedulingGates"):
        return pod
    if _is_selected(spec, labels):
        return _assign(pod, node_name)
    condition = _condition(pod) | {
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
    }
    return _with_condition(pod, condition)


def place_simple_pod(pod: Document, node: Node) -> Document:
    """The new pod assigned to the only node there is, if nothing speaks against that; else as it
    is, for the scheduler."""
    spec = pod["spec"]
    if spec.get("nodeName") or spec.get("schedulingGates") or not _is_simple(spec):
        return pod
    if node.spec.unschedulable or not _is_ready(node):
        return pod
    if not _is_selected(spec, node.metadata.labels or {}) or not _is_tolerated(spec, node):
        return pod
    return _assign(pod, node.metadata.name)


def bind_pod(pod: Document, node_name: str, now: str) -> Document:
    """An existing pod with its node, as `pods/binding` writes it.

    Raises `Conflict` when it has one already, is going, or is not to be scheduled yet.
    """
    name, spec = pod["metadata"]["name"], pod["spec"]
    problem = ""
    if "deletionTimestamp" in pod["metadata"]:
        problem = f"pod {name} is being deleted, cannot be assigned to a host"
    elif spec.get("nodeName"):
        problem = f'pod {name} is already assigned to node "{spec["nodeName"]}"'
    elif spec.get("schedulingGates"):
        problem = f"pod {name} has non-empty .spec.schedulingGates"
    if problem:
        raise Conflict(
            f'Operation cannot be fulfilled on pods/binding "{name}": {problem}',
            details={"name": name, "kind": "pods/binding"},
        )
    return _assign(pod, node_name, now)


def redeclare_pod(pod: Document, uid: str, now: str) -> Document:
    """The pod as it was before it was placed, as a new one.

    Raises `Conflict` when it is going, may not go yet, or names its node itself.
    """
    metadata, spec, problem = pod["metadata"], pod["spec"], ""
    annotations = metadata.get("annotations") or {}
    if "deletionTimestamp" in metadata:
        problem = "it is being deleted"
    elif metadata.get("finalizers"):
        problem = f"it has finalizers ({', '.join(metadata['finalizers'])})"
    elif not spec.get("nodeName") or annotations.get(PLACED_ON) != spec["nodeName"]:
        problem = "no scheduler has chosen a node for it"
    if problem:
        raise Conflict(f"pod {metadata['name']} cannot be declared again: {problem}")
    kept = {name: value for name, value in annotations.items() if name != PLACED_ON}
    new = {
        **metadata, "uid": uid, "creationTimestamp": now, "generation": 1,
        "annotations": {**kept, SUCCESSOR_OF: metadata["uid"]},
    }  # fmt: skip
    return {
        **{name: value for name, value in pod.items() if name != "status"},
        "metadata": new,
        "spec": {name: value for name, value in spec.items() if name != "nodeName"},
        "status": {"phase": "Pending"},
    }


def drop_placement(pod: Document) -> Document:
    """A new pod without the marks of what became of another one of its manifest."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    if annotations.keys().isdisjoint((PLACED_ON, SUCCESSOR_OF)):
        return pod
    kept = {n: value for n, value in annotations.items() if n not in (PLACED_ON, SUCCESSOR_OF)}
    return {**pod, "metadata": {**metadata, "annotations": kept}}


def _is_simple(spec: Document) -> bool:
    if spec.get("schedulerName", DEFAULT_SCHEDULER) != DEFAULT_SCHEDULER:
        return False
    if any(spec.get(name) for name in _DEMANDS):
        return False
    for volume in spec.get("volumes") or ():
        if any(volume.get(source) is not None for source in _CLAIMING):
            return False
    containers = [*spec["containers"], *(spec.get("initContainers") or ())]
    return not any((each.get("resources") or {}).get("requests") for each in containers)


def _is_selected(spec: Document, labels: Mapping[str, str]) -> bool:
    selector: Mapping[str, str] = spec.get("nodeSelector") or {}
    return all(labels.get(name) == value for name, value in selector.items())


def _is_ready(node: Node) -> bool:
    conditions = node.status.conditions or ()
    return not any(each.type == "Ready" and each.status != "True" for each in conditions)


def _is_tolerated(spec: Document, node: Node) -> bool:
    taints = [t for t in node.spec.taints or () if t.effect in (NO_SCHEDULE, NO_EXECUTE)]
    if not taints:
        return True
    tolerations = msgspec.convert(spec.get("tolerations") or [], list[Toleration])
    return all(_covers(tolerations, taint) for taint in taints)


def _covers(tolerations: list[Toleration], taint: Taint) -> bool:
    return any(toleration.tolerates(taint) for toleration in tolerations)


def _assign(pod: Document, node_name: str, now: str = "") -> Document:
    condition = _condition(pod)
    placed = _with_condition(pod, {**condition, "lastTransitionTime": now} if now else condition)
    metadata = pod["metadata"]
    annotations = {**(metadata.get("annotations") or {}), PLACED_ON: node_name}
    return {
        **placed,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {**pod["spec"], "nodeName": node_name},
    }


def _condition(pod: Document) -> dict[str, Any]:
    return {
        "type": "PodScheduled", "status": "True", "lastProbeTime": None,
        "lastTransitionTime": pod["metadata"]["creationTimestamp"],
    }  # fmt: skip


def _with_condition(pod: Document, condition: dict[str, Any]) -> Document:
    status = pod.get("status") or {}
    others = [c for c in status.get("conditions") or () if c.get("type") != condition["type"]]
    return {**pod, "status": {**status, "conditions": [*others, condition]}}
