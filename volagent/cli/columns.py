"""The columns in which `get` shows each kind of object. Pure.

A column is a title, whether only `-o wide` shows it, and a function from the document to a text;
the functions cope with whatever is missing, because a listing must never fail on one odd object.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from volagent.cli.output import NONE, format_age
from volagent.cli.progress import VOLUMES_READY
from volagent.objects.meta import Document

_MODES = {
    "ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}  # fmt: skip
_NOT_SOURCES = frozenset(
    {
        "accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity",
        "persistentVolumeReclaimPolicy", "storageClassName", "volumeMode",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a listing."""

    title: str
    text: Callable[[Document], str]
    wide: bool = False


def choose_columns(kind: str, *, wide: bool, with_namespace: bool) -> list[Column]:
    """The columns for a kind; every kind has at least NAME and AGE."""
    columns = _COLUMNS.get(kind, (_NAME, _AGE))
    chosen = [column for column in columns if wide or not column.wide]
    return [_NAMESPACE, *chosen] if with_namespace else chosen


def format_pod_status(pod: Document) -> str:
    """One word: Terminating, a container's reason, or the phase."""
    if pod.get("metadata", {}).get("deletionTimestamp"):
        return "Terminating"
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        reason = (state.get("waiting") or {}).get("reason")
        reason = reason or (state.get("terminated") or {}).get("reason")
        if reason and status.get("phase") != "Succeeded":
            return str(reason)
    return str(status.get("reason") or status.get("phase") or "Pending")


def format_volumes(pod: Document) -> str:
    """Whether the pod's volumes are ready, in one word."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == VOLUMES_READY:
            return "Ready" if condition.get("status") == "True" else str(condition.get("reason"))
    return "Ready" if not (pod.get("spec") or {}).get("volumes") else "Pending"


def format_ready(pod: Document) -> str:
    """`1/2` containers; `-` when nobody here starts containers."""
    statuses = (pod.get("status") or {}).get("containerStatuses")
    if not statuses:
        return "-"
    ready = sum(1 for container in statuses if container.get("ready"))
    return f"{ready}/{len(statuses)}"


def format_source(volume: Document, known: Iterable[str] = _NOT_SOURCES) -> str:
    """Which kind of source a volume has, with what tells it apart."""
    for kind, body in volume.items():
        if kind in known or kind == "name" or not isinstance(body, dict):
            continue
        match kind:
            case "nfs":
                return f"nfs {body.get('server')}:{body.get('path')}"
            case "csi":
                return f"{body.get('driver')} {body.get('volumeHandle') or ''}".rstrip()
            case "hostPath" | "local":
                return f"{kind} {body.get('path')}"
            case "secret":
                return f"secret {body.get('secretName')}"
            case "configMap":
                return f"configMap {body.get('name')}"
            case "persistentVolumeClaim":
                return f"claim {body.get('claimName')}"
            case "emptyDir" if body.get("medium"):
                return f"emptyDir {body['medium']}"
        return kind
    return "emptyDir"


def _meta(name: str) -> Callable[[Document], str]:
    return lambda document: str(document.get("metadata", {}).get(name) or "")


def _spec(name: str, default: str = "") -> Callable[[Document], str]:
    return lambda document: str((document.get("spec") or {}).get(name) or default)


def _phase(document: Document) -> str:
    if document.get("metadata", {}).get("deletionTimestamp"):
        return "Terminating"
    return str((document.get("status") or {}).get("phase") or "")


def _modes(document: Document) -> str:
    modes = (document.get("spec") or {}).get("accessModes") or ()
    return ",".join(_MODES.get(mode, str(mode)) for mode in modes)


def _claim(document: Document) -> str:
    claim = (document.get("spec") or {}).get("claimRef") or {}
    return f"{claim.get('namespace')}/{claim.get('name')}" if claim else ""


def _capacity(where: str) -> Callable[[Document], str]:
    return lambda document: str(
        ((document.get(where) or {}).get("capacity") or {}).get("storage") or ""
    )


def _keys(*fields: str) -> Callable[[Document], str]:
    return lambda document: str(sum(len(document.get(field) or ()) for field in fields))


def _node_status(node: Document) -> str:
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Ready":
            return "Ready" if condition.get("status") == "True" else "NotReady"
    return "Unknown"


def _node_info(name: str) -> Callable[[Document], str]:
    return lambda node: str(((node.get("status") or {}).get("nodeInfo") or {}).get(name) or "")


def _in_use(node: Document) -> str:
    return str(len((node.get("status") or {}).get("volumesInUse") or ()))


def _last_seen(event: Document) -> str:
    when = event.get("lastTimestamp") or event.get("eventTime")
    return format_age(when or event.get("metadata", {}).get("creationTimestamp"))


def _involved(event: Document) -> str:
    what = event.get("involvedObject") or event.get("regarding") or {}
    return f"{str(what.get('kind') or '').lower()}/{what.get('name')}"


_NAMESPACE = Column("NAMESPACE", _meta("namespace"))
_NAME = Column("NAME", _meta("name"))
_AGE = Column("AGE", lambda document: format_age(document["metadata"].get("creationTimestamp")))

_COLUMNS: dict[str, tuple[Column, ...]] = {
    "Pod": (
        _NAME, Column("READY", format_ready), Column("STATUS", format_pod_status),
        Column("VOLUMES", format_volumes), _AGE, Column("NODE", _spec("nodeName"), wide=True),
        Column("UID", _meta("uid"), wide=True),
    ),
    "PersistentVolume": (
        _NAME, Column("CAPACITY", _capacity("spec")), Column("ACCESS", _modes),
        Column("RECLAIM", _spec("persistentVolumeReclaimPolicy")), Column("STATUS", _phase),
        Column("CLAIM", _claim), Column("CLASS", _spec("storageClassName")), _AGE,
        Column("MODE", _spec("volumeMode", "Filesystem"), wide=True),
        Column("SOURCE", lambda volume: format_source(volume.get("spec") or {}), wide=True),
    ),
    "PersistentVolumeClaim": (
        _NAME, Column("STATUS", _phase), Column("VOLUME", _spec("volumeName")),
        Column("CAPACITY", _capacity("status")), Column("ACCESS", _modes),
        Column("CLASS", _spec("storageClassName")), _AGE,
        Column("MODE", _spec("volumeMode", "Filesystem"), wide=True),
    ),
    "Secret": (
        _NAME, Column("TYPE", lambda secret: str(secret.get("type") or "Opaque")),
        Column("DATA", _keys("data")), _AGE,
    ),
    "ConfigMap": (_NAME, Column("DATA", _keys("data", "binaryData")), _AGE),
    "Namespace": (_NAME, Column("STATUS", _phase), _AGE),
    "Node": (
        _NAME, Column("STATUS", _node_status), Column("IN-USE", _in_use), _AGE,
        Column("VERSION", _node_info("kubeletVersion")),
        Column("KERNEL", _node_info("kernelVersion"), wide=True),
        Column("OS", _node_info("osImage"), wide=True),
        Column("RUNTIME", _node_info("containerRuntimeVersion"), wide=True),
    ),
    "Event": (
        Column("LAST SEEN", _last_seen), Column("TYPE", lambda event: str(event.get("type") or "")),
        Column("REASON", lambda event: str(event.get("reason") or "")),
        Column("OBJECT", _involved),
        Column("COUNT", lambda event: str(event.get("count") or 1), wide=True),
        Column("MESSAGE", lambda event: str(event.get("message") or event.get("note") or NONE)),
    ),
}  # fmt: skip
