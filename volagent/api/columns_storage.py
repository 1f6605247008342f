"""The columns of classes, drivers, attachments, snapshots, and of what programs keep beside them.

Source: Kubernetes `pkg/printers/internalversion/printers.go`, and `additionalPrinterColumns` of
external-snapshotter's CRDs. Pure.
"""

from datetime import datetime
from typing import Any

from volagent.api.cells import AGE, NAME, NONE, UNKNOWN, UNSET, Cells, age_of, column, format_age
from volagent.objects.annotations import BETA_DEFAULT_CLASS, DEFAULT_CLASS
from volagent.objects.meta import Document

ENDPOINTS_SHOWN = 3
"""Addresses of an Endpoints that are listed; the rest are counted."""

_CREATED = column("Created At", "date")
_BINDING_COLUMNS = [
    NAME, column("Role"), AGE, column("Users", wide=True), column("Groups", wide=True),
    column("ServiceAccounts", wide=True),
]  # fmt: skip
STORAGE_COLUMNS: dict[str, list[Document]] = {
    "storageclasses": [
        NAME, column("Provisioner"), column("ReclaimPolicy"), column("VolumeBindingMode"),
        column("AllowVolumeExpansion"), AGE,
    ],
    "volumeattachments": [
        NAME, column("Attacher"), column("PV"), column("Node"), column("Attached", "boolean"), AGE,
    ],
    "csidrivers": [
        NAME, column("AttachRequired", "boolean"), column("PodInfoOnMount", "boolean"),
        column("StorageCapacity", "boolean"), column("TokenRequests"),
        column("RequiresRepublish", "boolean"), column("Modes"), AGE,
    ],
    "csinodes": [NAME, column("Drivers", "integer"), AGE],
    "csistoragecapacities": [NAME, column("StorageClassName"), column("Capacity")],
    "leases": [NAME, column("Holder"), AGE],
    "endpoints": [NAME, column("Endpoints"), AGE],
    "volumesnapshots": [
        NAME, column("ReadyToUse", "boolean"), column("SourcePVC"),
        column("SourceSnapshotContent"), column("RestoreSize"), column("SnapshotClass"),
        column("SnapshotContent"), column("CreationTime"), AGE,
    ],
    "volumesnapshotclasses": [NAME, column("Driver"), column("DeletionPolicy"), AGE],
    "volumesnapshotcontents": [
        NAME, column("ReadyToUse", "boolean"), column("RestoreSize", "integer"),
        column("DeletionPolicy"), column("Driver"), column("VolumeSnapshotClass"),
        column("VolumeSnapshot"), column("VolumeSnapshotNamespace"), AGE,
    ],
    "fencings": [
        NAME, column("Node"), column("Volume"), column("Method"), column("Executor"),
        column("Phase"), AGE, column("Message", wide=True),
    ],
    "roles": [NAME, _CREATED],
    "clusterroles": [NAME, _CREATED],
    "rolebindings": _BINDING_COLUMNS,
    "clusterrolebindings": _BINDING_COLUMNS,
}  # fmt: skip


def _class_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    annotations = metadata.get("annotations") or {}
    chosen = "true" in (annotations.get(DEFAULT_CLASS), annotations.get(BETA_DEFAULT_CLASS))
    return [
        f"{metadata['name']} (default)" if chosen else metadata["name"],
        document.get("provisioner", ""), document.get("reclaimPolicy") or "Delete",
        document.get("volumeBindingMode") or "Immediate",
        "true" if document.get("allowVolumeExpansion") else "false", age_of(metadata, now),
    ]  # fmt: skip


def _attachment_cells(document: Document, now: datetime) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec") or {}
    return [
        metadata["name"], spec.get("attacher", ""),
        (spec.get("source") or {}).get("persistentVolumeName") or "", spec.get("nodeName", ""),
        bool((document.get("status") or {}).get("attached")), age_of(metadata, now),
    ]  # fmt: skip


def _driver_cells(document: Document, now: datetime) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec") or {}
    audiences = [request.get("audience", "") for request in spec.get("tokenRequests") or ()]
    return [
        metadata["name"], spec.get("attachRequired", True), spec.get("podInfoOnMount", False),
        spec.get("storageCapacity", False), ",".join(audiences) if audiences else UNSET,
        spec.get("requiresRepublish", False),
        ",".join(spec.get("volumeLifecycleModes") or ()) or NONE, age_of(metadata, now),
    ]  # fmt: skip


def _csi_node_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    drivers = (document.get("spec") or {}).get("drivers") or ()
    return [metadata["name"], len(drivers), age_of(metadata, now)]


def _capacity_cells(document: Document, _now: datetime) -> list[Any]:
    name, size = document.get("storageClassName", ""), document.get("capacity")
    return [document["metadata"]["name"], name, UNSET if size is None else str(size)]


def _lease_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    holder = (document.get("spec") or {}).get("holderIdentity") or ""
    return [metadata["name"], holder, age_of(metadata, now)]


def _endpoints_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    found: list[str] = []
    for subset in document.get("subsets") or ():
        addresses = [address.get("ip", "") for address in subset.get("addresses") or ()]
        ports = [port.get("port") for port in subset.get("ports") or ()]
        if ports:
            found += [f"{address}:{port}" for port in ports for address in addresses]
        else:
            found += addresses
    shown = ",".join(found[:ENDPOINTS_SHOWN]) or NONE
    if len(found) > ENDPOINTS_SHOWN:
        shown += f" + {len(found) - ENDPOINTS_SHOWN} more..."
    return [metadata["name"], shown, age_of(metadata, now)]


def _snapshot_cells(document: Document, now: datetime) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec") or {}
    status, source = document.get("status") or {}, spec.get("source") or {}
    taken = status.get("creationTime")
    return [
        metadata["name"], status.get("readyToUse"), source.get("persistentVolumeClaimName"),
        source.get("volumeSnapshotContentName"), status.get("restoreSize"),
        spec.get("volumeSnapshotClassName"), status.get("boundVolumeSnapshotContentName"),
        format_age(taken, now) if taken else None, age_of(metadata, now),
    ]  # fmt: skip


def _snapshot_class_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    policy = document.get("deletionPolicy", "")
    return [metadata["name"], document.get("driver", ""), policy, age_of(metadata, now)]


def _content_cells(document: Document, now: datetime) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec") or {}
    status, reference = document.get("status") or {}, spec.get("volumeSnapshotRef") or {}
    return [
        metadata["name"], status.get("readyToUse"), status.get("restoreSize"),
        spec.get("deletionPolicy"), spec.get("driver"), spec.get("volumeSnapshotClassName"),
        reference.get("name"), reference.get("namespace"), age_of(metadata, now),
    ]  # fmt: skip


def _fencing_cells(document: Document, now: datetime) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec") or {}
    status = document.get("status") or {}
    return [
        metadata["name"], spec.get("nodeName", ""), spec.get("volume", ""), spec.get("method", ""),
        spec.get("executor") or NONE, status.get("phase") or UNKNOWN, age_of(metadata, now),
        status.get("message", ""),
    ]  # fmt: skip


def _role_cells(document: Document, _now: datetime) -> list[Any]:
    metadata = document["metadata"]
    return [metadata["name"], metadata.get("creationTimestamp") or UNKNOWN]


def _binding_cells(document: Document, now: datetime) -> list[Any]:
    metadata, role = document["metadata"], document.get("roleRef") or {}
    names: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in document.get("subjects") or ():
        name, namespace = subject.get("name", ""), subject.get("namespace")
        shown = f"{namespace}/{name}" if namespace else name
        names.setdefault(subject.get("kind", ""), []).append(shown)
    listed = [", ".join(names[kind]) for kind in ("User", "Group", "ServiceAccount")]
    named = f"{role.get('kind', '')}/{role.get('name', '')}"
    return [metadata["name"], named, age_of(metadata, now), *listed]


STORAGE_CELLS: dict[str, Cells] = {
    "storageclasses": _class_cells,
    "volumeattachments": _attachment_cells,
    "csidrivers": _driver_cells,
    "csinodes": _csi_node_cells,
    "csistoragecapacities": _capacity_cells,
    "leases": _lease_cells,
    "endpoints": _endpoints_cells,
    "volumesnapshots": _snapshot_cells,
    "volumesnapshotclasses": _snapshot_class_cells,
    "volumesnapshotcontents": _content_cells,
    "fencings": _fencing_cells,
    "roles": _role_cells,
    "clusterroles": _role_cells,
    "rolebindings": _binding_cells,
    "clusterrolebindings": _binding_cells,
}
