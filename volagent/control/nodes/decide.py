"""When a node is lost, and when it is back. Pure.

A lease counts by when *we* saw it change, on our monotonic clock: nodes' clocks are not compared.
Who is lost stays so until a renewal is seen: that another server leads is no word of the node.
A lost node is told in its Ready condition and kept from new pods by a taint. Nothing is taken from
it here: that it does not answer is no proof that it does not write.
"""

from dataclasses import dataclass
from typing import Any, Final

from volagent.objects.meta import Document
from volagent.objects.scheduling import NO_SCHEDULE
from volagent.objects.storage import Node

UNREACHABLE: Final = "node.kubernetes.io/unreachable"
REASON_LOST: Final = "NodeStatusUnknown"
REASON_READY: Final = "VolagentReady"


@dataclass(frozen=True, slots=True)
class Silence:
    """What was heard of a node."""

    silent_s: float
    """Nothing, for so long."""
    leased: bool = True
    """There is a Lease of it."""
    renewed: bool = True
    """A renewal was seen since we look."""


@dataclass(frozen=True, slots=True)
class Lose:
    """A node's agent is silent."""

    silent_s: float
    leased: bool = True

    def describe(self) -> str:
        """For the log and the event."""
        if self.leased:
            return f"its agent has not renewed its lease for {self.silent_s:.0f} s"
        return f"its agent has no lease, and has not made one for {self.silent_s:.0f} s"


@dataclass(frozen=True, slots=True)
class Regain:
    """A lost node is heard again."""

    def describe(self) -> str:
        """For the log and the event."""
        return "its agent renews its lease again"


Step = Lose | Regain


def decide_node(node: Node, silence: Silence, timeout_s: float) -> Step | None:
    """The next step for a node that has been silent for so long."""
    lost = is_lost(node)
    if silence.silent_s > timeout_s:
        return None if lost else Lose(silence.silent_s, silence.leased)
    return Regain() if lost and silence.renewed else None


def is_lost(node: Node) -> bool:
    """Whether a node is told to be lost."""
    tainted = any(taint.key == UNREACHABLE for taint in node.spec.taints or ())
    ready = [each.status for each in node.status.conditions or () if each.type == "Ready"]
    return tainted or ready == ["Unknown"]


def patch_of(step: Step, document: Document, now: str) -> Document:
    """The spec and status that a step writes, on the Node as it is."""
    lost = isinstance(step, Lose)
    ready = ("Unknown", REASON_LOST) if lost else ("True", REASON_READY)
    taints: list[Any] = [
        taint
        for taint in (document.get("spec") or {}).get("taints") or ()
        if taint.get("key") != UNREACHABLE
    ]
    if lost:
        taints.append({"key": UNREACHABLE, "effect": NO_SCHEDULE, "timeAdded": now})
    condition = {
        "type": "Ready", "status": ready[0], "reason": ready[1], "message": step.describe(),
        "lastTransitionTime": now,
    }  # fmt: skip
    others = [
        each
        for each in (document.get("status") or {}).get("conditions") or ()
        if each.get("type") != "Ready"
    ]
    return {
        "metadata": {"resourceVersion": document["metadata"]["resourceVersion"]},
        "spec": {"taints": taints or None},
        "status": {"conditions": [condition, *others]},
    }
