"""How far the growth of a claim has come, as its status tells. Pure.

Shared by the controller's half (the volume is made larger in its backend) and the node's (the file
system follows). The words are those of Kubernetes' KEP-1790: `allocatedResourceStatuses.storage`
and the conditions `Resizing` and `FileSystemResizePending`.
"""

from collections.abc import Mapping
from typing import Any

from volagent.objects.quantity import QuantityError, parse_quantity
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

IN_PROGRESS = "ControllerResizeInProgress"
INFEASIBLE = "ControllerResizeInfeasible"
NODE_PENDING = "NodeResizePending"
NODE_INFEASIBLE = "NodeResizeInfeasible"
NODE_STATES = frozenset({NODE_PENDING, NODE_INFEASIBLE, "NodeResizeInProgress"})
RESIZING = "Resizing"
FILE_SYSTEM_PENDING = "FileSystemResizePending"
CONDITIONS = frozenset(
    {RESIZING, FILE_SYSTEM_PENDING, "ControllerResizeError", "NodeResizeError"}
)  # fmt: skip


def size_of(quantities: Mapping[str, str | int] | None) -> int:
    """Bytes of `storage`, rounded up; 0 when there is none."""
    try:
        value = parse_quantity((quantities or {}).get("storage", 0))
    except QuantityError:
        return 0  # refused when it was declared; nothing is known of it
    return -(-value.numerator // value.denominator)


def wanted_bytes(claim: PersistentVolumeClaim) -> int:
    """What the claim asks for."""
    resources = claim.spec.resources
    return size_of(resources.requests if resources else None)


def held_bytes(claim: PersistentVolumeClaim) -> int:
    """What the claim has got."""
    return size_of(claim.status.capacity)


def state_of(claim: PersistentVolumeClaim) -> str:
    """Where the growth stands; "" when there is none."""
    return (claim.status.allocated_resource_statuses or {}).get("storage", "")


def awaits_node(claim: PersistentVolumeClaim) -> bool:
    """Whether the node's half is what is missing."""
    return state_of(claim) in NODE_STATES


def status_begun(claim: PersistentVolumeClaim, target: str, now: str) -> dict[str, Any]:
    """The status (for a merge patch) of a growth whose controller half begins."""
    return _status(claim, target, IN_PROGRESS, _condition(RESIZING, "", now))


def status_refused(
    claim: PersistentVolumeClaim, target: str, message: str, now: str
) -> dict[str, Any]:
    """The status of a growth that the backend refused."""
    return _status(claim, target, INFEASIBLE, _condition("ControllerResizeError", message, now))


def status_awaiting_node(claim: PersistentVolumeClaim, target: str, now: str) -> dict[str, Any]:
    """The status of a growth whose file system is still to follow."""
    text = "Waiting for user to (re-)start a pod to finish file system resize of volume on node."
    return _status(claim, target, NODE_PENDING, _condition(FILE_SYSTEM_PENDING, text, now))


def status_settled(claim: PersistentVolumeClaim, volume: PersistentVolume | None) -> dict[str, Any]:
    """The status without a growth; with a volume, of its size."""
    status: dict[str, Any] = {
        "allocatedResources": None,
        "allocatedResourceStatuses": None,
        "conditions": _others(claim) or None,
    }
    if volume is not None:
        status["capacity"] = {**(claim.status.capacity or {}), **(volume.spec.capacity or {})}
    return status


def _status(
    claim: PersistentVolumeClaim, target: str, state: str, condition: dict[str, Any]
) -> dict[str, Any]:
    return {
        "allocatedResources": {"storage": target},
        "allocatedResourceStatuses": {"storage": state},
        "conditions": [*_others(claim), condition],
    }


def _others(claim: PersistentVolumeClaim) -> list[dict[str, Any]]:
    return [one for one in claim.status.conditions or () if one.get("type") not in CONDITIONS]


def _condition(kind: str, message: str, now: str) -> dict[str, Any]:
    condition: dict[str, Any] = {"type": kind, "status": "True", "lastProbeTime": None}
    condition["lastTransitionTime"] = now
    if message:
        condition["message"] = message
    return condition
