"""What brings one claim towards its volume, or one volume to its end, a step further. Pure.

The life of a volume that we make, as steps that are each derived again from what is stored:
(1) the claim is held by the finalizer `PROVISIONING` before a backend hears of it, (2) the backend
makes the volume, which is recorded as a PersistentVolume, (3) once the claim is bound the finalizer
goes. A claim that goes in between has what may have been made discarded first.

And its end: (4) a released volume whose policy is Delete is *doomed*: its object is marked as
going, on the version that was decided on. Nothing binds a volume that is going, so from here on no
claim can come between. (5) The backend reclaims the data, then (6) the finalizer
`RECLAIM_PROTECTION` goes, and the object with it. Whoever wants the data kept sets the policy to
Retain any time before (5).

What must never happen: a volume reclaimed whose phase is Bound or whose claim holds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volagent.objects.annotations import (
    BETA_PROVISIONER,
    BIND_COMPLETED,
    PROVISIONED_BY,
    PROVISIONER,
    PROVISIONING,
    RECLAIM_PROTECTION,
    SELECTED_NODE,
)
from volagent.objects.classes import WAIT_FOR_FIRST_CONSUMER, class_of_claim
from volagent.objects.meta import ObjectMeta
from volagent.objects.node_affinity import admits_node
from volagent.objects.storage import Node, PersistentVolume, PersistentVolumeClaim, StorageClass
from volagent.objects.storage_nodes import STORAGE_NODE, storage_node_of


@dataclass(frozen=True, slots=True)
class Elect:
    """This node makes the volume: write it down before anything else."""

    node: str


@dataclass(frozen=True, slots=True)
class ElectStorage:
    """This storage node makes the volume, which nodes reach over the network: write it down."""

    node: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep the claim while a volume for it may exist: step (1)."""


@dataclass(frozen=True, slots=True)
class Make:
    """Have the volume made and record it: step (2)."""

    storage_class: StorageClass


@dataclass(frozen=True, slots=True)
class LetGo:
    """The claim needs holding no longer: step (3)."""


@dataclass(frozen=True, slots=True)
class Discard:
    """No volume is recorded, and none will be: remove what may have been made, then let go."""


@dataclass(frozen=True, slots=True)
class Complain:
    """Nothing can be done before somebody changes something."""

    message: str


ClaimStep = Elect | ElectStorage | Hold | Make | LetGo | Discard | Complain


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a claim's next step depends on besides the claim."""

    maker_node: str
    """The node whose volumes the provisioner makes; "" for volumes of everywhere."""
    storage_class: StorageClass | None
    volume: PersistentVolume | None
    """The one named after the claim."""
    node: Node | None
    """The node `maker_node` names."""
    storage_node: str = ""
    """The storage node that the provisioner is on, if it makes volumes for others."""


def decide_claim(claim: PersistentVolumeClaim, seen: Circumstances) -> ClaimStep | None:
    """The next step for a claim that was given to a provisioner of ours."""
    held = PROVISIONING in (claim.metadata.finalizers or ())
    selected = _annotation(claim.metadata, SELECTED_NODE)
    if seen.maker_node and selected not in ("", seen.maker_node):
        return None  # another node's
    chosen = storage_node_of(claim.metadata)
    if seen.storage_node and chosen not in ("", seen.storage_node):
        return None  # another storage node's
    own = claim.spec.volume_name in ("", volume_name_of(claim))
    if claim.metadata.deletion_timestamp is not None or not own:
        if not held:
            return None
        # Whoever takes a node's name off the claim has discarded first: no name, nothing made.
        unmade = bool(seen.maker_node and not selected) or bool(seen.storage_node and not chosen)
        return LetGo() if seen.volume is not None or unmade else Discard()
    if claim.spec.volume_name and BIND_COMPLETED in (claim.metadata.annotations or {}):
        return LetGo() if held else None
    if seen.volume is not None:
        return _await_binding(claim, seen.volume)
    return _decide_making(claim, seen, selected, held=held)


def _await_binding(claim: PersistentVolumeClaim, volume: PersistentVolume) -> ClaimStep | None:
    reference = volume.spec.claim_ref
    name = volume.metadata.name
    if reference is None or reference.uid != claim.metadata.uid:
        return Complain(
            f'PersistentVolume "{name}" exists already and is not reserved for this claim;'
            f" delete it, or let its claimRef name the claim with uid {claim.metadata.uid}"
        )
    if volume.metadata.deletion_timestamp is not None:
        return Complain(f'PersistentVolume "{name}" is being deleted; a new one follows it')
    return None  # the binder's turn


def _decide_making(
    claim: PersistentVolumeClaim, seen: Circumstances, selected: str, *, held: bool
) -> ClaimStep | None:
    found, name = seen.storage_class, class_of_claim(claim)
    if found is None:
        return Complain(f'storageclass.storage.k8s.io "{name}" not found')
    given_to = provisioner_of(claim)
    if found.provisioner != given_to:
        return Complain(
            f'storage class "{name}" now names the provisioner {found.provisioner}, but the claim'
            f" was given to {given_to}: make the claim again"
        )
    if not selected:
        if found.volume_binding_mode == WAIT_FOR_FIRST_CONSUMER:
            return None
        if seen.maker_node:
            return _elect(seen.node, found)
    if seen.storage_node and not storage_node_of(claim.metadata):
        wanted = (found.parameters or {}).get(STORAGE_NODE, seen.storage_node)
        return ElectStorage(seen.storage_node) if wanted == seen.storage_node else None
    return Make(found) if held else Hold()


def _elect(node: Node | None, storage_class: StorageClass) -> Elect | None:
    if node is None or node.spec.unschedulable:
        return None
    if not topologies_admit(storage_class.allowed_topologies, node.metadata.labels or {}):
        return None
    return Elect(node.metadata.name)


@dataclass(frozen=True, slots=True)
class Protect:
    """Put the finalizer on that keeps the object until the data is dealt with."""


@dataclass(frozen=True, slots=True)
class Doom:
    """Mark the object as going, so that no claim can have it any more: step (4)."""


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Have the backend deal with the data, then let the object go: steps (5) and (6)."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Let the object go and keep the data."""


VolumeStep = Protect | Doom | Reclaim | Forget


def decide_volume(
    volume: PersistentVolume, claim: PersistentVolumeClaim | None
) -> VolumeStep | None:
    """The next step for a volume that we made; `claim` is the one its `claimRef` names, if any."""
    if volume.status.phase == "Bound" or holds(claim, volume):
        return None
    reference = volume.spec.claim_ref
    delete = volume.spec.persistent_volume_reclaim_policy == "Delete"
    protected = RECLAIM_PROTECTION in (volume.metadata.finalizers or ())
    if volume.metadata.deletion_timestamp is not None:
        if not protected:
            return None
        return Reclaim() if delete else Forget()
    released = volume.status.phase in ("Released", "Failed")
    if not (delete and released and reference is not None and reference.uid):
        return None
    return Doom() if protected else Protect()


def holds(claim: PersistentVolumeClaim | None, volume: PersistentVolume) -> bool:
    """Whether a claim has a volume, or may still get it.

    A claim that is still being provisioned and names no volume never had one that is going.
    """
    reference = volume.spec.claim_ref
    if claim is None or reference is None:
        return False
    if claim.spec.volume_name:
        named = claim.spec.volume_name == volume.metadata.name
        return named and reference.uid in ("", claim.metadata.uid)
    if reference.uid != claim.metadata.uid:
        return False
    being_made = PROVISIONING in (claim.metadata.finalizers or ())
    return not (being_made and volume.metadata.deletion_timestamp is not None)


def is_within_reach(
    volume: PersistentVolume, maker_node: str, node: Node | None, storage_node: str = ""
) -> bool:
    """Whether a provisioner of that node ("" for any) is the one to reclaim the volume."""
    if storage_node:
        return storage_node_of(volume.metadata) == storage_node
    if not maker_node:
        return True
    if volume.spec.node_affinity is None:
        return False
    labels = (node.metadata.labels if node is not None else None) or {}
    return admits_node(volume.spec.node_affinity, labels, maker_node)


def topologies_admit(
    topologies: Sequence[Mapping[str, Any]] | None, labels: Mapping[str, str]
) -> bool:
    """A class's `allowedTopologies`: any term, all of a term's expressions; none admits all."""
    if not topologies:
        return True
    return any(
        all(
            labels.get(expression.get("key", "")) in (expression.get("values") or ())
            for expression in term.get("matchLabelExpressions") or ()
        )
        for term in topologies
    )


def provisioner_of(claim: PersistentVolumeClaim) -> str:
    """Who is asked to make the claim's volume, or ""."""
    return _annotation(claim.metadata, PROVISIONER) or _annotation(claim.metadata, BETA_PROVISIONER)


def maker_of(volume: PersistentVolume) -> str:
    """Who made the volume, or ""."""
    return _annotation(volume.metadata, PROVISIONED_BY)


def volume_name_of(claim: PersistentVolumeClaim) -> str:
    """The name of the volume that is made for a claim."""
    return f"pvc-{claim.metadata.uid}"


def _annotation(metadata: ObjectMeta, name: str) -> str:
    return (metadata.annotations or {}).get(name, "")
