"""What brings the growth of one claim a step further. Pure.

A growth is: (1) the target is noted in the claim's status, (2) the backend makes the volume that
large, (3) the volume's capacity says so, (4) the claim's capacity does, at once or when the node
has let the file system follow. Each step is derived again from what is stored. A volume is never
made smaller: a claim that asks for less before (3) only gives up a target that was refused, or
that may have been refused; one whose backend's answer is unknown is first asked again for the
target that was noted.
"""

from dataclasses import dataclass

from volagent.objects.annotations import NODE_RESIZE
from volagent.objects.growth import (
    IN_PROGRESS,
    INFEASIBLE,
    awaits_node,
    held_bytes,
    size_of,
    state_of,
    wanted_bytes,
)
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

FILES = ("nfs", "host_path")
"""Sources whose directories need no file system to follow."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Note the target: step (1)."""

    claim: PersistentVolumeClaim


@dataclass(frozen=True, slots=True)
class Enlarge:
    """Have the backend make the volume larger, and record it: steps (2) and (3)."""

    claim: PersistentVolumeClaim
    volume: PersistentVolume
    provisioner: str
    target_bytes: int


@dataclass(frozen=True, slots=True)
class AwaitNode:
    """Say that the file system is still to follow."""

    claim: PersistentVolumeClaim
    volume: PersistentVolume


@dataclass(frozen=True, slots=True)
class Finish:
    """The claim has the volume's size: step (4)."""

    claim: PersistentVolumeClaim
    volume: PersistentVolume


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nothing larger is asked for any more."""

    claim: PersistentVolumeClaim


@dataclass(frozen=True, slots=True)
class Ignore:
    """Somebody else has to make it larger."""

    claim: PersistentVolumeClaim


Step = Begin | Enlarge | AwaitNode | Finish | GiveUp | Ignore


def decide_growth(
    claim: PersistentVolumeClaim,
    volume: PersistentVolume | None,
    provisioner: str,
    *,
    grows: bool,
) -> Step | None:
    """The next step, or None.

    `volume` is the claim's, `provisioner` who made it, `grows` whether that one is here and able.
    When a target that was refused is tried again is the caller's business.
    """
    if claim.status.phase != "Bound" or claim.metadata.deletion_timestamp is not None:
        return None
    if volume is None or volume.spec.claim_ref is None:
        return None
    if volume.spec.claim_ref.uid != claim.metadata.uid:
        return None
    wanted, held = wanted_bytes(claim), held_bytes(claim)
    capacity = size_of(volume.spec.capacity)
    if capacity > held and (capacity >= wanted or awaits_node(claim)) and _is_asked(claim):
        return _follow(claim, volume)
    state = state_of(claim)
    if wanted <= held:
        return GiveUp(claim) if state in (INFEASIBLE, IN_PROGRESS) and capacity <= held else None
    if not grows:
        return Ignore(claim)
    noted = size_of(claim.status.allocated_resources)
    if state == IN_PROGRESS and noted >= wanted:
        return Enlarge(claim, volume, provisioner, noted)
    return Begin(claim)


def _is_asked(claim: PersistentVolumeClaim) -> bool:
    """A volume that somebody made larger by hand does not change its claim unasked."""
    return wanted_bytes(claim) > held_bytes(claim) or state_of(claim) != ""


def _follow(claim: PersistentVolumeClaim, volume: PersistentVolume) -> Step | None:
    if not needs_node(volume):
        return Finish(claim, volume)
    return None if awaits_node(claim) else AwaitNode(claim, volume)


def needs_node(volume: PersistentVolume) -> bool:
    """Whether a file system on the node has to follow the volume."""
    if (volume.metadata.annotations or {}).get(NODE_RESIZE) == "false":
        return False
    return all(getattr(volume.spec, name) is None for name in FILES)
