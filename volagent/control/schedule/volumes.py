"""Where a pod's volumes can be: what is bound, what is still to be found or made. Pure.

All claims of a pod that wait for it are looked at together: the cheapest assignment of free volumes
per node, where Kubernetes is greedy and may leave a solvable pod Pending. Texts are those of
kube-scheduler's `volumebinding`, `volumezone`, `volumerestrictions` and `nodevolumelimits`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from volagent.control.schedule.assignment import assign
from volagent.control.schedule.offers import Offers, is_reachable
from volagent.control.schedule.world import NodeState, World
from volagent.objects.annotations import BIND_COMPLETED, SELECTED_NODE
from volagent.objects.attachments import limit_name
from volagent.objects.classes import class_of_claim
from volagent.objects.growth import size_of, wanted_bytes
from volagent.objects.pod import Pod
from volagent.objects.pod_claims import ephemeral_claim_name
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim, StorageClass
from volagent.objects.volumes import EBSSource

UNBOUND_IMMEDIATE = "pod has unbound immediate PersistentVolumeClaims"
AFFINITY_CONFLICT = "node(s) had volume node affinity conflict"
NO_VOLUME_TO_BIND = "node(s) didn't find available persistent volumes to bind"
VOLUME_GONE = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
NO_ROOM = "node(s) did not have enough free storage"
NO_ZONE = "node(s) had no available volume zone"
TOO_MANY_VOLUMES = "node(s) exceed max volume count"
ONCE_POD_CONFLICT = (
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
)

NO_PROVISIONER = "kubernetes.io/no-provisioner"
AWS_EBS = "kubernetes.io/aws-ebs"
ISCSI = "kubernetes.io/iscsi"
WAIT_FOR_CONSUMER = "WaitForFirstConsumer"
_ZONE_LABELS = (
    "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
)  # fmt: skip
_PROVISION_COST = 1 << 100
"""A volume that exists is taken before one is made, whatever it wastes (bytes)."""


@dataclass(frozen=True, slots=True)
class PodVolumes:
    """A pod's claims, by what they need."""

    problem: str = ""
    """Why no node will do, or ""."""
    bound: tuple[PersistentVolume, ...] = ()
    waiting: tuple[PersistentVolumeClaim, ...] = ()
    """Claims that wait for a node to be chosen."""
    offers: tuple[Offers, ...] = ()
    """For each of these what it may choose from."""
    lost: bool = False
    """A claim is bound to a volume that is not there."""
    once_pod: tuple[str, ...] = ()
    """Names of claims that only one pod may use."""
    attached: frozenset[tuple[str, str]] = frozenset()
    """Driver and handle of each volume that must be attached."""


@dataclass(frozen=True, slots=True)
class VolumePlan:
    """What makes a pod's waiting claims bound on one node."""

    reserve: tuple[tuple[PersistentVolumeClaim, PersistentVolume], ...] = ()
    provision: tuple[PersistentVolumeClaim, ...] = ()
    cost: int = 0
    """Bytes that the volumes have beyond what was asked; a volume to be made outweighs any."""


@dataclass(frozen=True, slots=True)
class NoPlan:
    """A node where the waiting claims cannot be bound."""

    reason: str
    detail: str = ""
    """Which claim, and why, for a person."""


def claims_of(pod: Pod) -> Iterator[tuple[str, bool]]:
    """The names of a pod's claims, and whether it is the pod's own (ephemeral)."""
    seen = set()
    for volume in pod.spec.volumes or ():
        if volume.persistent_volume_claim is not None:
            name, own = volume.persistent_volume_claim.claim_name, False
        elif volume.ephemeral is not None:
            name, own = ephemeral_claim_name(pod.metadata.name, volume.name), True
        else:
            continue
        if name not in seen:
            seen.add(name)
            yield name, own


def read_pod_volumes(pod: Pod, world: World) -> PodVolumes:
    """Look the pod's claims and their volumes up."""
    bound: list[PersistentVolume] = []
    waiting: list[PersistentVolumeClaim] = []
    once_pod: list[str] = []
    lost = immediate = False
    for name, own in claims_of(pod):
        claim = world.claim(pod.metadata.namespace, name)
        problem = _find_problem(pod, name, claim, own=own)
        if claim is None or problem:
            return PodVolumes(problem)
        if "ReadWriteOncePod" in (claim.spec.access_modes or ()):
            once_pod.append(name)
        if is_bound(claim):
            volume = world.volume(claim.spec.volume_name)
            lost = lost or volume is None
            bound += [volume] if volume is not None else []
        elif not claim.spec.volume_name and waits_for_pod(claim, world):
            waiting.append(claim)
        else:
            immediate = True
    if immediate:
        return PodVolumes(UNBOUND_IMMEDIATE)
    return PodVolumes(
        bound=tuple(bound),
        waiting=tuple(waiting),
        offers=tuple(Offers(claim, world) for claim in waiting),
        lost=lost,
        once_pod=tuple(once_pod),
        attached=frozenset(attached_volumes(pod, world)),
    )


def _find_problem(pod: Pod, name: str, claim: PersistentVolumeClaim | None, *, own: bool) -> str:
    if claim is None:
        if own:
            awaited = "waiting for ephemeral volume controller to create the persistentvolumeclaim"
            return f'{awaited} "{name}"'
        return f'persistentvolumeclaim "{name}" not found'
    if claim.metadata.deletion_timestamp is not None:
        return f'persistentvolumeclaim "{name}" is being deleted'
    if claim.status.phase == "Lost":
        volume = claim.spec.volume_name
        return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
    if own and not any(
        owner.controller and owner.uid == pod.metadata.uid
        for owner in claim.metadata.owner_references or ()
    ):
        namespace = pod.metadata.namespace
        return (
            f"PVC {namespace}/{name} was not created for pod {namespace}/{pod.metadata.name} "
            "(pod is not owner)"
        )
    return ""


def is_bound(claim: PersistentVolumeClaim) -> bool:
    """Whether a claim has its volume for good."""
    return bool(claim.spec.volume_name) and BIND_COMPLETED in (claim.metadata.annotations or {})


def waits_for_pod(claim: PersistentVolumeClaim, world: World) -> bool:
    """Whether a claim's class has it wait for a pod that uses it."""
    found = world.storage_class(class_of_claim(claim))
    return found is not None and found.volume_binding_mode == WAIT_FOR_CONSUMER


def find_bound_conflict(volumes: PodVolumes, state: NodeState) -> str:
    """Why the pod's bound volumes cannot be used on a node, or ""."""
    if volumes.lost:
        return VOLUME_GONE
    for volume in volumes.bound:
        if not is_reachable(volume, state):
            return AFFINITY_CONFLICT
    return ""


def is_in_zone(volumes: PodVolumes, state: NodeState) -> bool:
    """Whether a node is in the zones that the bound volumes' labels name (old in-tree volumes).

    A node that says nothing of zones is in all of them, as in Kubernetes.
    """
    if not any(label in state.labels for label in _ZONE_LABELS):
        return True
    for volume in volumes.bound:
        labels = volume.metadata.labels or {}
        for label in _ZONE_LABELS:
            wanted = labels.get(label)
            if wanted is not None and state.labels.get(label) not in wanted.split("__"):
                return False
    return True


def plan_volumes(volumes: PodVolumes, state: NodeState, world: World) -> VolumePlan | NoPlan:
    """How all waiting claims are bound on a node together.

    A claim for which a volume is reserved already keeps to that; one whose volume is being made for
    a node keeps to that node as long as it exists. Else the cheapest assignment: volumes that exist
    before volumes to be made, then the least waste in sum.
    """
    rows: list[dict[str, int]] = []
    found: dict[str, PersistentVolume] = {}
    for claim, offers in zip(volumes.waiting, volumes.offers, strict=True):
        choices = _find_choices(claim, offers, state, world, len(volumes.waiting))
        if isinstance(choices, NoPlan):
            return choices
        found |= choices.volumes
        row = {name: _waste_bytes(claim, volume) for name, volume in choices.volumes.items()}
        if choices.can_be_made:
            row[_made_for(claim)] = _PROVISION_COST
        rows.append(row)
    chosen = assign(rows)
    if chosen is None:
        names = ", ".join(claim.metadata.name for claim in volumes.waiting)
        text = f"too few volumes for all of the pod's claims together: {names}"
        return NoPlan(NO_VOLUME_TO_BIND, text)
    pairs = tuple(zip(volumes.waiting, chosen, strict=True))
    return VolumePlan(
        tuple((claim, found[name]) for claim, name in pairs if name in found),
        tuple(claim for claim, name in pairs if name not in found),
        sum(row[name] for row, name in zip(rows, chosen, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class _Choices:
    """What one claim can have on one node; at least one thing."""

    volumes: dict[str, PersistentVolume]
    can_be_made: bool = False


def _find_choices(
    claim: PersistentVolumeClaim, offers: Offers, state: NodeState, world: World, number: int
) -> _Choices | NoPlan:
    about = f'persistentvolumeclaim "{claim.metadata.name}"'
    selected = (claim.metadata.annotations or {}).get(SELECTED_NODE, "")
    reserved = world.source.reserved_for(claim)
    if reserved:
        usable = {v.metadata.name: v for v in reserved if is_reachable(v, state)}
        if usable:
            return _Choices(usable)
        return NoPlan(NO_VOLUME_TO_BIND, f"{about}: the volume reserved for it is elsewhere")
    if selected in world.nodes and selected != state.name:
        return NoPlan(NO_VOLUME_TO_BIND, f"{about} gets its volume on {selected}")
    usable = {}
    if selected != state.name:
        # Of more than there are claims, none is ever needed.
        usable = {v.metadata.name: v for v in offers.best_on(state, number)}
    refusal = find_refusal(claim, state, world)
    if usable or not refusal:
        return _Choices(usable, not refusal)
    return NoPlan(NO_ROOM if refusal == NO_ROOM else NO_VOLUME_TO_BIND, f"{about}: {refusal}")


def find_refusal(claim: PersistentVolumeClaim, state: NodeState, world: World) -> str:
    """Why a claim's volume cannot be made on a node, or ""."""
    found = world.storage_class(class_of_claim(claim))
    if found is None or found.provisioner in ("", NO_PROVISIONER):
        return "no free volume fits, and its class makes none"
    if not admits_topology(found, state.labels):
        return f'the allowedTopologies of class "{found.metadata.name}" exclude the node'
    return NO_ROOM if world.refused(claim.metadata.uid, state.name) else ""


def admits_topology(found: StorageClass, labels: Mapping[str, str]) -> bool:
    """Whether a class's `allowedTopologies` admit a node; none admit every node."""
    if not found.allowed_topologies:
        return True
    return any(_topology_fits(term, labels) for term in found.allowed_topologies)


def _topology_fits(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return all(
        labels.get(expression.get("key", "")) in (expression.get("values") or ())
        for expression in term.get("matchLabelExpressions") or ()
    )


def attached_volumes(pod: Pod, world: World) -> Iterator[tuple[str, str]]:
    """Driver and handle of each volume that a pod needs attached; one still to be made has its
    claim's name for a handle."""
    for name, _own in claims_of(pod):
        claim = world.claim(pod.metadata.namespace, name)
        if claim is None:
            continue
        volume = world.volume(claim.spec.volume_name) if claim.spec.volume_name else None
        if volume is None:
            found = world.storage_class(class_of_claim(claim))
            if found is not None:
                yield found.provisioner, f"{pod.metadata.namespace}/{name}"
        elif volume.spec.csi is not None:
            yield volume.spec.csi.driver, volume.spec.csi.volume_handle
        elif volume.spec.aws_elastic_block_store is not None:
            yield AWS_EBS, _disk_of(volume.spec.aws_elastic_block_store)
        elif volume.spec.iscsi is not None:
            yield ISCSI, f"{volume.spec.iscsi.iqn}:lun-{volume.spec.iscsi.lun}"
    for declared in pod.spec.volumes or ():
        if declared.aws_elastic_block_store is not None:
            yield AWS_EBS, _disk_of(declared.aws_elastic_block_store)
        if declared.iscsi is not None:
            yield ISCSI, f"{declared.iscsi.iqn}:lun-{declared.iscsi.lun}"


def _disk_of(source: EBSSource) -> str:
    """The volume's id, however it is written (`aws://us-east-1a/vol-1`, `vol-1`)."""
    return source.volume_id.rpartition("/")[2]


def exceeds_attach_limit(volumes: PodVolumes, state: NodeState, world: World) -> bool:
    """Whether the pod's volumes are more than a driver can attach to a node beside what is there.

    Limits come from the CSINode, else from the node's `attachable-volumes-...`; a driver without
    one has none.
    """
    limits = _attach_limits(volumes, state, world)
    if not limits:
        return False
    there = {each for pod in state.pods for each in attached_volumes(pod, world)}
    for driver, limit in limits.items():
        held = {each for each in there if each[0] == driver}
        new = {each for each in volumes.attached if each[0] == driver} - held
        if new and len(held) + len(new) > limit:
            return True
    return False


def _attach_limits(volumes: PodVolumes, state: NodeState, world: World) -> dict[str, int]:
    drivers = {driver for driver, _handle in volumes.attached}
    if not drivers:
        return {}
    limits = {}
    for driver in drivers:
        amount = state.allocatable.get(limit_name(driver))
        if amount is not None:
            limits[driver] = int(amount)
    csi_node = world.csi_node(state.name)
    for known in (csi_node.spec.drivers if csi_node else None) or ():
        if known.name in drivers and known.allocatable and known.allocatable.count is not None:
            limits[known.name] = known.allocatable.count
    return limits


def _made_for(claim: PersistentVolumeClaim) -> str:
    """A choice that no volume's name can be: to make the claim's own."""
    return f"/{claim.metadata.name}"


def _waste_bytes(claim: PersistentVolumeClaim, volume: PersistentVolume) -> int:
    return max(0, size_of(volume.spec.capacity) - wanted_bytes(claim))
