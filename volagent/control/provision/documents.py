"""What is asked of a backend, and what is stored of its answers. Pure.

Everything that reclaim needs stands on the PersistentVolume: its class may be gone by then.
"""

from collections.abc import Mapping

from volagent.control.provision.decide import provisioner_of, volume_name_of
from volagent.control.provision.parameters import passed_on, recorded_retention_s
from volagent.drivers.contract import VolumeMode
from volagent.drivers.provisioning.contract import (
    Origin,
    ProvisionedVolume,
    ReclaimRequest,
    VolumeRequest,
)
from volagent.objects.annotations import (
    BOUND_BY_CONTROLLER,
    PROVISIONED_BY,
    RECLAIM_PROTECTION,
    RESTORING,
    SELECTED_NODE,
    TRASH_RETENTION,
    VOLUME_OWNER,
    VOLUME_PROTECTION,
)
from volagent.objects.meta import Document
from volagent.objects.quantity import canonical_quantity, parse_bytes
from volagent.objects.storage import Node, PersistentVolumeClaim, StorageClass
from volagent.objects.volumes import PV_SOURCES

_NOBODY = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "namespace": "default",
    "name": "volagent.dev-nobody",
}
_MIB = 1 << 20


def request_of(
    claim: PersistentVolumeClaim,
    storage_class: StorageClass,
    node: Node | None,
    origin: Origin | None = None,
) -> VolumeRequest:
    """What the backend is asked for; `node` is the chosen one."""
    resources = claim.spec.resources
    wanted = ((resources.requests if resources else None) or {}).get("storage", 0)
    annotations = claim.metadata.annotations or {}
    return VolumeRequest(
        name=volume_name_of(claim),
        owner=claim.metadata.uid,
        claim_namespace=claim.metadata.namespace,
        claim_name=claim.metadata.name,
        capacity_bytes=parse_bytes(wanted),
        access_modes=tuple(claim.spec.access_modes or ()),
        mode=VolumeMode(claim.spec.volume_mode or "Filesystem"),
        parameters=passed_on(storage_class.parameters),
        claim_labels=claim.metadata.labels or {},
        claim_annotations=annotations,
        node=node.metadata.name if node is not None else annotations.get(SELECTED_NODE, ""),
        node_labels=(node.metadata.labels if node is not None else None) or {},
        allowed_topologies=tuple(storage_class.allowed_topologies or ()),
        mount_options=tuple(storage_class.mount_options or ()),
        origin=origin,
    )


def find_fault(request: VolumeRequest, made: ProvisionedVolume) -> str:
    """What a backend's answer lacks to be believed, or ""."""
    kinds = [kind for kind in made.source if kind in PV_SOURCES]
    if len(made.source) != 1 or not kinds:
        return f"it names no one volume source: {', '.join(made.source) or 'none'}"
    if made.capacity_bytes < request.capacity_bytes:
        return f"it made {made.capacity_bytes} bytes where {request.capacity_bytes} were asked for"
    return ""


def volume_document(
    claim: PersistentVolumeClaim,
    storage_class: StorageClass,
    made: ProvisionedVolume,
    keep_s: int,
) -> Document:
    """The PersistentVolume of a volume that was made."""
    spec: Document = {
        "capacity": {"storage": format_size(made.capacity_bytes)},
        "accessModes": list(claim.spec.access_modes or ()),
        "volumeMode": claim.spec.volume_mode or "Filesystem",
        "persistentVolumeReclaimPolicy": storage_class.reclaim_policy,
        "storageClassName": storage_class.metadata.name,
        "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": claim.metadata.namespace,
            "name": claim.metadata.name,
            "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
        },
        **made.source,
    }
    if storage_class.mount_options:
        spec["mountOptions"] = list(storage_class.mount_options)
    if made.node_affinity is not None:
        spec["nodeAffinity"] = made.node_affinity
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": volume_name_of(claim),
            "labels": dict(made.labels),
            "annotations": {
                VOLUME_OWNER: claim.metadata.uid,
                **made.annotations,
                PROVISIONED_BY: provisioner_of(claim),
                TRASH_RETENTION: str(keep_s),
            },
            "finalizers": [VOLUME_PROTECTION, RECLAIM_PROTECTION],
        },
        "spec": spec,
    }


def reclaim_request_of(volume: Document, default_keep_s: int) -> ReclaimRequest:
    """What the backend is asked for a released volume."""
    metadata = volume["metadata"]
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    return ReclaimRequest(
        name=metadata["name"],
        owner=annotations.get(VOLUME_OWNER) or metadata["name"].removeprefix("pvc-"),
        source=source_of(volume),
        annotations=annotations,
        manifest=manifest_of(volume),
        keep_s=recorded_retention_s(annotations, default_keep_s),
    )


def source_of(volume: Document) -> Document:
    """The source of a PersistentVolume, as its one field."""
    return {kind: body for kind, body in volume["spec"].items() if kind in PV_SOURCES}


def manifest_of(volume: Document) -> Document:
    """The PersistentVolume as one would declare it: no status, no identity of its own."""
    metadata = volume["metadata"]
    kept = {key: metadata[key] for key in ("name", "labels", "annotations") if metadata.get(key)}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": kept,
        "spec": dict(volume["spec"]),
    }


def restored_volume(manifest: Document, entry: str) -> Document:
    """The volume of a trash entry, made again while its data is on the way back.

    It names its last claim by uid (where it had none, a claim that cannot be), so that it is
    Released and nobody gets it yet; it is kept when it is released again, whatever its class said.
    """
    metadata, spec = manifest["metadata"], manifest["spec"]
    annotations = {**(metadata.get("annotations") or {}), RESTORING: entry}
    annotations.pop(BOUND_BY_CONTROLLER, None)
    owner = annotations.get(VOLUME_OWNER) or metadata["name"]
    reference = {**(spec.get("claimRef") or _NOBODY)}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            **metadata,
            "annotations": annotations,
            "finalizers": [VOLUME_PROTECTION, RECLAIM_PROTECTION],
        },
        "spec": {
            **spec,
            "claimRef": {**reference, "uid": reference.get("uid") or owner},
            "persistentVolumeReclaimPolicy": "Retain",
        },
    }


def end_of_restore(volume: Document) -> Document:
    """The merge patch that gives a restored volume to a new claim of the last one's name."""
    reference: Document | None = {"uid": None, "resourceVersion": None}
    if volume["spec"]["claimRef"]["name"] == _NOBODY["name"]:
        reference = None
    metadata = {
        "resourceVersion": volume["metadata"]["resourceVersion"],
        "annotations": {RESTORING: None},
    }
    return {"metadata": metadata, "spec": {"claimRef": reference}}


def format_size(size_bytes: int) -> str:
    """A size as a quantity, in binary units where it is a whole number of MiB."""
    if size_bytes % _MIB:
        return str(size_bytes)
    return canonical_quantity(f"{size_bytes // _MIB}Mi")
