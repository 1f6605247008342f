"""Typed views of the objects that volumes come from and go to."""

from typing import Any, Final

import msgspec

from volagent.objects.meta import ObjectReference, TypedObject, View
from volagent.objects.scheduling import Taint
from volagent.objects.volumes import (
    CSISource,
    EBSSource,
    HostPathSource,
    LocalSource,
    NFSSource,
    PersistentISCSISource,
)

PARTITION: Final = "volagent.dev/partition"
"""Annotation of a PersistentVolume with `iscsi`, which has no field for it: the disk's partition
that is the volume; the whole disk when not given."""
PARTITION_MAX: Final = 255


class PersistentVolumeSpec(View, frozen=True):
    """`spec` of a PersistentVolume; exactly one source is set."""

    capacity: dict[str, str | int] | None = None
    access_modes: list[str] | None = None
    claim_ref: ObjectReference | None = None
    persistent_volume_reclaim_policy: str = ""
    storage_class_name: str = ""
    mount_options: list[str] | None = None
    volume_mode: str | None = None
    node_affinity: dict[str, Any] | None = None
    nfs: NFSSource | None = None
    local: LocalSource | None = None
    host_path: HostPathSource | None = None
    aws_elastic_block_store: EBSSource | None = None
    iscsi: PersistentISCSISource | None = None
    csi: CSISource | None = None


class PhaseStatus(View, frozen=True):
    """A status that is read only for its phase."""

    phase: str = ""
    message: str = ""
    reason: str = ""


class PersistentVolume(TypedObject, frozen=True):
    """A PersistentVolume (cluster-scoped)."""

    spec: PersistentVolumeSpec = PersistentVolumeSpec()
    status: PhaseStatus = PhaseStatus()


class ClaimResources(View, frozen=True):
    """`resources` of a claim."""

    requests: dict[str, str | int] | None = None
    limits: dict[str, str | int] | None = None


class PersistentVolumeClaimSpec(View, frozen=True):
    """`spec` of a claim."""

    access_modes: list[str] | None = None
    volume_name: str = ""
    storage_class_name: str | None = None
    volume_mode: str | None = None
    resources: ClaimResources | None = None
    selector: dict[str, Any] | None = None
    data_source: dict[str, Any] | None = None
    """What the volume is to be filled from: a claim or a VolumeSnapshot of the same namespace."""
    data_source_ref: dict[str, Any] | None = None


class ClaimStatus(PhaseStatus, frozen=True):
    """`status` of a claim: what it got."""

    access_modes: list[str] | None = None
    capacity: dict[str, str | int] | None = None
    allocated_resources: dict[str, str | int] | None = None
    """The size that a growth is on its way to."""
    allocated_resource_statuses: dict[str, str] | None = None
    conditions: list[dict[str, Any]] | None = None


class PersistentVolumeClaim(TypedObject, frozen=True):
    """A PersistentVolumeClaim."""

    spec: PersistentVolumeClaimSpec = PersistentVolumeClaimSpec()
    status: ClaimStatus = ClaimStatus()


class Secret(TypedObject, frozen=True):
    """A Secret; `data` values are decoded from base64. Its `repr` shows no value."""

    data: dict[str, bytes] | None = None
    type: str = "Opaque"
    immutable: bool | None = None

    def __repr__(self) -> str:
        return (
            f"Secret({self.metadata.namespace}/{self.metadata.name}, {len(self.data or {})} keys)"
        )


class ConfigMap(TypedObject, frozen=True):
    """A ConfigMap; `binary_data` values are decoded from base64."""

    data: dict[str, str] | None = None
    binary_data: dict[str, bytes] | None = None
    immutable: bool | None = None


class NodeCondition(View, frozen=True):
    """`status.conditions[]` of a Node."""

    type: str = ""
    status: str = ""


class AttachedVolume(View, frozen=True):
    """`status.volumesAttached[]` of a Node."""

    name: str
    device_path: str = ""


class NodeAddress(View, frozen=True):
    """`status.addresses[]` of a Node."""

    type: str = ""
    address: str = ""


class NodeInfo(View, frozen=True):
    """`status.nodeInfo` of a Node; "" until the node itself has written its status."""

    boot_id: str = msgspec.field(default="", name="bootID")


class NodeStatus(View, frozen=True):
    """`status` of a Node, as far as volumes and the choice of a node need it."""

    capacity: dict[str, str | int | float] | None = None
    allocatable: dict[str, str | int | float] | None = None
    conditions: list[NodeCondition] | None = None
    addresses: list[NodeAddress] | None = None
    volumes_in_use: list[str] | None = None
    volumes_attached: list[AttachedVolume] | None = None
    node_info: NodeInfo = NodeInfo()


class NodeSpec(View, frozen=True):
    """`spec` of a Node: who may come."""

    unschedulable: bool | None = None
    """Cordoned."""
    taints: list[Taint] | None = None
    provider_id: str = msgspec.field(default="", name="providerID")
    """What the cloud calls the machine: `aws:///us-east-1a/i-0123456789abcdef0`."""


class Node(TypedObject, frozen=True):
    """A Node (cluster-scoped)."""

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class AttachLimit(View, frozen=True):
    """`allocatable` of a driver on a node."""

    count: int | None = None


class CSINodeDriver(View, frozen=True):
    """A driver that serves a node."""

    name: str
    node_id: str = msgspec.field(default="", name="nodeID")
    topology_keys: list[str] | None = None
    allocatable: AttachLimit | None = None


class CSINodeSpec(View, frozen=True):
    """`spec` of a CSINode."""

    drivers: list[CSINodeDriver] | None = None


class CSINode(TypedObject, frozen=True):
    """A CSINode (cluster-scoped, named as its Node): the drivers there and their limits."""

    spec: CSINodeSpec = CSINodeSpec()


class StorageClass(TypedObject, frozen=True):
    """A StorageClass (cluster-scoped): the template of volumes."""

    provisioner: str = ""
    parameters: dict[str, str] | None = None
    reclaim_policy: str = "Delete"
    mount_options: list[str] | None = None
    volume_binding_mode: str = "Immediate"
    allow_volume_expansion: bool | None = None
    allowed_topologies: list[dict[str, Any]] | None = None
