"""What a table shows of each kind: the columns and cells of kube-apiserver's printers.

Source: Kubernetes `pkg/printers/internalversion/printers.go`. Pure. A column of priority 1 is shown
by `-o wide` only.
"""

from datetime import datetime
from typing import Any

from volagent.api.cells import AGE, NAME, NONE, UNKNOWN, UNSET, Cells, age_of, column, format_age
from volagent.api.columns_storage import STORAGE_CELLS, STORAGE_COLUMNS
from volagent.client.contract import Resource
from volagent.objects.meta import Document

_ACCESS = {
    "ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}  # fmt: skip


_DEFAULT_COLUMNS = [NAME, column("Created At", "date")]
_COLUMNS: dict[str, list[Document]] = {
    **STORAGE_COLUMNS,
    "pods": [
        NAME, column("Ready"), column("Status"), column("Restarts"), AGE,
        column("IP", wide=True), column("Node", wide=True),
        column("Nominated Node", wide=True), column("Readiness Gates", wide=True),
    ],
    "persistentvolumes": [
        NAME, column("Capacity"), column("Access Modes"), column("Reclaim Policy"),
        column("Status"), column("Claim"), column("StorageClass"),
        column("VolumeAttributesClass"), column("Reason"), AGE,
        column("VolumeMode", wide=True),
    ],
    "persistentvolumeclaims": [
        NAME, column("Status"), column("Volume"), column("Capacity"),
        column("Access Modes"), column("StorageClass"), column("VolumeAttributesClass"), AGE,
        column("VolumeMode", wide=True),
    ],
    "nodes": [
        NAME, column("Status"), column("Roles"), AGE, column("Version"),
        column("Internal-IP", wide=True), column("External-IP", wide=True),
        column("OS-Image", wide=True), column("Kernel-Version", wide=True),
        column("Container-Runtime", wide=True),
    ],
    "secrets": [NAME, column("Type"), column("Data", "integer"), AGE],
    "configmaps": [NAME, column("Data", "integer"), AGE],
    "serviceaccounts": [NAME, column("Secrets", "integer"), AGE],
    "namespaces": [NAME, column("Status"), AGE],
    "events": [
        column("Last Seen"), column("Type"), column("Reason"), column("Object"),
        column("Subobject", wide=True), column("Source", wide=True), column("Message"),
        column("First Seen", wide=True), column("Count", "integer", wide=True),
        column("Name", wide=True),
    ],
}  # fmt: skip


def columns_of(resource: Resource) -> list[Document]:
    """The `columnDefinitions` of a resource's table."""
    return _COLUMNS.get(resource.plural, _DEFAULT_COLUMNS)


def describe_cells(resource: Resource, document: Document, now: datetime) -> list[Any]:
    """The cells of an object's row."""
    return _CELLS.get(resource.plural, _default_cells)(document, now)


def _default_cells(document: Document, _now: datetime) -> list[Any]:
    metadata = document["metadata"]
    return [metadata["name"], metadata.get("creationTimestamp") or UNKNOWN]


def _pod_cells(document: Document, now: datetime) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec") or {}
    status = document.get("status") or {}
    statuses = status.get("containerStatuses") or []
    ready = sum(1 for container in statuses if container.get("ready"))
    restarts = sum(container.get("restartCount", 0) for container in statuses)
    return [
        metadata["name"], f"{ready}/{len(spec.get('containers') or ())}",
        _pod_status(metadata, status, statuses), str(restarts), age_of(metadata, now),
        status.get("podIP") or NONE, spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE, NONE,
    ]  # fmt: skip


def _pod_status(metadata: Document, status: Document, statuses: list[Document]) -> str:
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    shown = status.get("reason") or status.get("phase") or "Unknown"
    for container in reversed(statuses):
        state = container.get("state") or {}
        waiting, terminated = state.get("waiting") or {}, state.get("terminated") or {}
        if waiting.get("reason"):
            shown = waiting["reason"]
        elif terminated:
            code = f"ExitCode:{terminated.get('exitCode', 0)}"
            shown = terminated.get("reason") or code
    return str(shown)


def _volume_cells(document: Document, now: datetime) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec") or {}
    status, claim = document.get("status") or {}, (document.get("spec") or {}).get("claimRef")
    phase = status.get("phase") or UNKNOWN
    return [
        metadata["name"], (spec.get("capacity") or {}).get("storage", ""),
        _access_modes(spec), spec.get("persistentVolumeReclaimPolicy", ""),
        "Terminating" if metadata.get("deletionTimestamp") else phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _storage_class(metadata, spec), spec.get("volumeAttributesClassName") or UNSET,
        status.get("reason", ""), age_of(metadata, now), spec.get("volumeMode") or UNSET,
    ]  # fmt: skip


def _claim_cells(document: Document, now: datetime) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec") or {}
    status = document.get("status") or {}
    bound = bool(spec.get("volumeName"))
    phase = status.get("phase") or UNKNOWN
    return [
        metadata["name"], "Terminating" if metadata.get("deletionTimestamp") else phase,
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _access_modes(status) if bound else "", _storage_class(metadata, spec),
        spec.get("volumeAttributesClassName") or UNSET, age_of(metadata, now),
        spec.get("volumeMode") or UNSET,
    ]  # fmt: skip


def _node_cells(document: Document, now: datetime) -> list[Any]:
    metadata, status = document["metadata"], document.get("status") or {}
    ready = "Unknown"
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            ready = "Ready" if condition.get("status") == "True" else "NotReady"
    if (document.get("spec") or {}).get("unschedulable"):
        ready += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = sorted(
        label.removeprefix(prefix) for label in metadata.get("labels") or () if prefix in label
    )
    info = status.get("nodeInfo") or {}
    addresses = {a.get("type"): a.get("address") for a in status.get("addresses") or ()}
    return [
        metadata["name"], ready, ",".join(roles) or NONE, age_of(metadata, now),
        info.get("kubeletVersion", ""), addresses.get("InternalIP") or NONE,
        addresses.get("ExternalIP") or NONE, info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN, info.get("containerRuntimeVersion") or UNKNOWN,
    ]  # fmt: skip


def _secret_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    size = len(document.get("data") or ())
    return [metadata["name"], document.get("type", "Opaque"), size, age_of(metadata, now)]


def _config_map_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    size = len(document.get("data") or ()) + len(document.get("binaryData") or ())
    return [metadata["name"], size, age_of(metadata, now)]


def _account_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    return [metadata["name"], len(document.get("secrets") or ()), age_of(metadata, now)]


def _namespace_cells(document: Document, now: datetime) -> list[Any]:
    metadata, status = document["metadata"], document.get("status") or {}
    return [metadata["name"], status.get("phase", ""), age_of(metadata, now)]


def _event_cells(document: Document, now: datetime) -> list[Any]:
    metadata, involved = document["metadata"], document.get("involvedObject") or {}
    source, when = document.get("source") or {}, document.get("eventTime")
    parts = (source.get("component"), source.get("host"))
    return [
        format_age(document.get("lastTimestamp") or when, now), document.get("type", ""),
        document.get("reason", ""),
        f"{involved.get('kind', '').lower()}/{involved.get('name', '')}",
        involved.get("fieldPath", ""), ", ".join(part for part in parts if part),
        document.get("message", "").strip(),
        format_age(document.get("firstTimestamp") or when, now), document.get("count", 1),
        metadata["name"],
    ]  # fmt: skip


def _access_modes(holder: Document) -> str:
    given = holder.get("accessModes") or ()
    return ",".join(short for mode, short in _ACCESS.items() if mode in given)


def _storage_class(metadata: Document, spec: Document) -> str:
    beta = (metadata.get("annotations") or {}).get("volume.beta.kubernetes.io/storage-class")
    return str(beta if beta is not None else spec.get("storageClassName") or "")


_CELLS: dict[str, Cells] = {
    **STORAGE_CELLS,
    "pods": _pod_cells,
    "persistentvolumes": _volume_cells,
    "persistentvolumeclaims": _claim_cells,
    "nodes": _node_cells,
    "secrets": _secret_cells,
    "configmaps": _config_map_cells,
    "serviceaccounts": _account_cells,
    "namespaces": _namespace_cells,
    "events": _event_cells,
}
