"""Where a new pod runs, when there is only one VM to choose from. Pure.

With one VM the choice needs no scheduler and no second write: a pod that this VM can take is
assigned to it as it is created. Source of the condition and its texts: kube-scheduler.
"""

from collections.abc import Mapping
from typing import Any

from volagent.objects.meta import Document


def place_pod(pod: Document, node_name: str, labels: Mapping[str, str]) -> Document:
    """The new pod, assigned to the node or told why not; one that names a node is left alone."""
    spec = pod.get("spec") or {}
    if spec.get("nodeName") or spec.get("schedulingGates"):
        return pod
    condition: dict[str, Any] = {
        "type": "PodScheduled", "status": "True", "lastProbeTime": None,
        "lastTransitionTime": pod["metadata"]["creationTimestamp"],
    }  # fmt: skip
    placed = dict(pod)
    selector: Mapping[str, str] = spec.get("nodeSelector") or {}
    if all(labels.get(name) == value for name, value in selector.items()):
        placed["spec"] = {**spec, "nodeName": node_name}
    else:
        condition |= {
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 node(s) didn't match Pod's node "
            "affinity/selector.",
        }
    status = pod.get("status") or {}
    placed["status"] = {**status, "conditions": [*(status.get("conditions") or ()), condition]}
    return placed
