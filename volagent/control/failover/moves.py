"""What becomes of a pod whose node is lost. Pure.

Nothing here frees a disk: the attach/detach controller gives one to another node only when it is
proved free. A pod is moved when that is so for all of its exclusive disks, and at once then; one
without such disks when its node has been lost for a while, as in Kubernetes.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from volagent.control.nodes.decide import UNREACHABLE
from volagent.objects.annotations import PLACED_ON
from volagent.objects.pod import Pod
from volagent.objects.scheduling import NO_EXECUTE, Taint

_TAINT: Final = Taint(key=UNREACHABLE, effect=NO_EXECUTE)
_FINISHED: Final = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Redeclare:
    """Declare it again, for the scheduler."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete it: its owner makes another one, or it was to go anyway."""


@dataclass(frozen=True, slots=True)
class Leave:
    """It stays."""

    reason: str
    """Said to the pod; "": nothing is."""
    again_s: float | None = None


Move = Redeclare | Forget | Leave


@dataclass(frozen=True, slots=True)
class Situation:
    """What a pod's node and disks are like."""

    lost_for_s: float
    exclusive: bool
    """It has disks that only one node may have."""
    held: Collection[str] = ()
    """Those of them that are not proved free."""
    only_here: Collection[str] = ()
    """Its volumes that are on the lost node and nowhere else."""


def decide_pod(pod: Pod, situation: Situation, shared_after_s: float) -> Move:
    """What becomes of a pod of a lost node."""
    node = pod.spec.node_name
    going = pod.metadata.deletion_timestamp is not None
    if pod.status.phase in _FINISHED and not going:
        return Leave("")
    if situation.held:
        text = ", ".join(sorted(situation.held))
        return Leave(f"node {node} is lost, and nothing proves yet that it cannot write to {text}")
    wait_s = find_patience(pod, shared_after_s)
    if wait_s is None:
        return Leave(f"node {node} is lost; the pod tolerates that ({UNREACHABLE})")
    if not situation.exclusive and situation.lost_for_s < wait_s:
        return Leave("", wait_s - situation.lost_for_s)
    if going:
        return Forget()
    return place_anew(pod, situation.only_here)


def place_anew(pod: Pod, only_here: Collection[str] = ()) -> Move:
    """How a pod of a node that is given up gets another one."""
    node, annotations = pod.spec.node_name, pod.metadata.annotations or {}
    if only_here:
        text = ", ".join(sorted(only_here))
        return Leave(f"node {node} is lost, and volume {text} is on that node only")
    if pod.metadata.owner_references:
        return Forget()
    if annotations.get(PLACED_ON) != node:
        return Leave(
            f"node {node} is lost, and the pod's manifest names that node: delete the pod, and"
            " declare it for another one or for none"
        )
    if pod.metadata.finalizers:
        names = ", ".join(pod.metadata.finalizers)
        return Leave(f"node {node} is lost, and finalizers keep the pod: {names}")
    return Redeclare()


def find_patience(pod: Pod, shared_after_s: float) -> float | None:
    """How long a pod bears with a lost node; None: for ever."""
    covering = [each for each in pod.spec.tolerations or () if each.tolerates(_TAINT)]
    if not covering:
        return shared_after_s
    limits_s = [each.toleration_seconds for each in covering if each.toleration_seconds is not None]
    return float(max(0, min(limits_s))) if limits_s else None
