"""What a table shows of each kind: the columns and cells of kube-apiserver's printers.

Source: Kubernetes `pkg/printers/internalversion/printers.go`. Pure. A column of priority 1 is shown
by `-o wide` only.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from volagent.aio.clock import parse_time
from volagent.client.contract import Resource
from volagent.objects.meta import Document

_NONE = "<none>"
_UNKNOWN = "<unknown>"
_UNSET = "<unset>"
_ACCESS = {
    "ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}  # fmt: skip

Cells = Callable[[Document, datetime], list[Any]]


def _column(name: str, kind: str = "string", *, wide: bool = False) -> Document:
    form = "name" if name == "Name" else ""
    return {
        "name": name, "type": kind, "format": form, "description": "", "priority": int(wide),
    }  # fmt: skip


_NAME = _column("Name")
_AGE = _column("Age")
_DEFAULT_COLUMNS = [_NAME, _column("Created At", "date")]
_COLUMNS: dict[str, list[Document]] = {
    "pods": [
        _NAME, _column("Ready"), _column("Status"), _column("Restarts"), _AGE,
        _column("IP", wide=True), _column("Node", wide=True),
        _column("Nominated Node", wide=True), _column("Readiness Gates", wide=True),
    ],
    "persistentvolumes": [
        _NAME, _column("Capacity"), _column("Access Modes"), _column("Reclaim Policy"),
        _column("Status"), _column("Claim"), _column("StorageClass"),
        _column("VolumeAttributesClass"), _column("Reason"), _AGE,
        _column("VolumeMode", wide=True),
    ],
    "persistentvolumeclaims": [
        _NAME, _column("Status"), _column("Volume"), _column("Capacity"),
        _column("Access Modes"), _column("StorageClass"), _column("VolumeAttributesClass"), _AGE,
        _column("VolumeMode", wide=True),
    ],
    "nodes": [
        _NAME, _column("Status"), _column("Roles"), _AGE, _column("Version"),
        _column("Internal-IP", wide=True), _column("External-IP", wide=True),
        _column("OS-Image", wide=True), _column("Kernel-Version", wide=True),
        _column("Container-Runtime", wide=True),
    ],
    "secrets": [_NAME, _column("Type"), _column("Data", "integer"), _AGE],
    "configmaps": [_NAME, _column("Data", "integer"), _AGE],
    "serviceaccounts": [_NAME, _column("Secrets", "integer"), _AGE],
    "namespaces": [_NAME, _column("Status"), _AGE],
    "events": [
        _column("Last Seen"), _column("Type"), _column("Reason"), _column("Object"),
        _column("Subobject", wide=True), _column("Source", wide=True), _column("Message"),
        _column("First Seen", wide=True), _column("Count", "integer", wide=True),
        _column("Name", wide=True),
    ],
}  # fmt: skip


def columns_of(resource: Resource) -> list[Document]:
    """The `columnDefinitions` of a resource's table."""
    return _COLUMNS.get(resource.plural, _DEFAULT_COLUMNS)


def describe_cells(resource: Resource, document: Document, now: datetime) -> list[Any]:
    """The cells of an object's row."""
    return _CELLS.get(resource.plural, _default_cells)(document, now)


def format_age(since: Any, now: datetime) -> str:
    """`5s`, `3m12s`, `4h`, `12d`, ...: a duration as Kubernetes' `HumanDuration` prints it."""
    if not isinstance(since, str):
        return _UNKNOWN
    try:
        seconds = int((now - parse_time(since)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return "<invalid>"
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    for unit, small, limit, per, count in (
        ("m", "s", 10, 60, seconds), ("h", "m", 8, 60, minutes), ("d", "h", 8, 24, hours),
        ("y", "d", 8, 365, days),
    ):  # fmt: skip
        first_limit = 120 if unit == "m" else 180 if unit == "h" else 48 if unit == "d" else 730
        if count < first_limit:
            return f"{count}{small}"
        whole, rest = divmod(count, per)
        if whole < limit:
            return f"{whole}{unit}{rest}{small}" if rest else f"{whole}{unit}"
    return f"{days // 365}y"


def _default_cells(document: Document, _now: datetime) -> list[Any]:
    metadata = document["metadata"]
    return [metadata["name"], metadata.get("creationTimestamp") or _UNKNOWN]


def _pod_cells(document: Document, now: datetime) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec") or {}
    status = document.get("status") or {}
    statuses = status.get("containerStatuses") or []
    ready = sum(1 for container in statuses if container.get("ready"))
    restarts = sum(container.get("restartCount", 0) for container in statuses)
    return [
        metadata["name"], f"{ready}/{len(spec.get('containers') or ())}",
        _pod_status(metadata, status, statuses), str(restarts), _age(metadata, now),
        status.get("podIP") or _NONE, spec.get("nodeName") or _NONE,
        status.get("nominatedNodeName") or _NONE, _NONE,
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
    phase = status.get("phase") or _UNKNOWN
    return [
        metadata["name"], (spec.get("capacity") or {}).get("storage", ""),
        _access_modes(spec), spec.get("persistentVolumeReclaimPolicy", ""),
        "Terminating" if metadata.get("deletionTimestamp") else phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _storage_class(metadata, spec), spec.get("volumeAttributesClassName") or _UNSET,
        status.get("reason", ""), _age(metadata, now), spec.get("volumeMode") or _UNSET,
    ]  # fmt: skip


def _claim_cells(document: Document, now: datetime) -> list[Any]:
    metadata, spec = document["metadata"], document.get("spec") or {}
    status = document.get("status") or {}
    bound = bool(spec.get("volumeName"))
    phase = status.get("phase") or _UNKNOWN
    return [
        metadata["name"], "Terminating" if metadata.get("deletionTimestamp") else phase,
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        _access_modes(status) if bound else "", _storage_class(metadata, spec),
        spec.get("volumeAttributesClassName") or _UNSET, _age(metadata, now),
        spec.get("volumeMode") or _UNSET,
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
        metadata["name"], ready, ",".join(roles) or _NONE, _age(metadata, now),
        info.get("kubeletVersion", ""), addresses.get("InternalIP") or _NONE,
        addresses.get("ExternalIP") or _NONE, info.get("osImage") or _UNKNOWN,
        info.get("kernelVersion") or _UNKNOWN, info.get("containerRuntimeVersion") or _UNKNOWN,
    ]  # fmt: skip


def _secret_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    size = len(document.get("data") or ())
    return [metadata["name"], document.get("type", "Opaque"), size, _age(metadata, now)]


def _config_map_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    size = len(document.get("data") or ()) + len(document.get("binaryData") or ())
    return [metadata["name"], size, _age(metadata, now)]


def _account_cells(document: Document, now: datetime) -> list[Any]:
    metadata = document["metadata"]
    return [metadata["name"], len(document.get("secrets") or ()), _age(metadata, now)]


def _namespace_cells(document: Document, now: datetime) -> list[Any]:
    metadata, status = document["metadata"], document.get("status") or {}
    return [metadata["name"], status.get("phase", ""), _age(metadata, now)]


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


def _age(metadata: Document, now: datetime) -> str:
    return format_age(metadata.get("creationTimestamp"), now)


def _access_modes(holder: Document) -> str:
    given = holder.get("accessModes") or ()
    return ",".join(short for mode, short in _ACCESS.items() if mode in given)


def _storage_class(metadata: Document, spec: Document) -> str:
    beta = (metadata.get("annotations") or {}).get("volume.beta.kubernetes.io/storage-class")
    return str(beta if beta is not None else spec.get("storageClassName") or "")


_CELLS: dict[str, Cells] = {
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
