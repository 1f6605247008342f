"""How objects are told in a few words, and the columns that `get` adds to the server's. Pure.

The functions cope with whatever is missing: a listing must never fail on one odd object.
"""

from collections.abc import Callable
from dataclasses import dataclass

from volagent.cli.progress import VOLUMES_READY
from volagent.objects.meta import Document

_NO_SOURCES = frozenset({"capacity", "claimRef", "nodeAffinity"})


@dataclass(frozen=True, slots=True)
class ExtraColumn:
    """A column that the server's table lacks, put behind the one called `after`."""

    title: str
    after: str
    text: Callable[[Document], str]
    wide: bool = False


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
    return "Pending"


def format_ready(pod: Document) -> str:
    """`1/2` containers; `-` when nobody here starts containers."""
    statuses = (pod.get("status") or {}).get("containerStatuses")
    if not statuses:
        return "-"
    ready = sum(1 for container in statuses if container.get("ready"))
    return f"{ready}/{len(statuses)}"


def format_source(volume: Document) -> str:
    """Which kind of source a volume has, with what tells it apart."""
    for kind, body in volume.items():
        if kind in _NO_SOURCES or not isinstance(body, dict):
            continue
        tell = _TELLING.get(kind)
        return tell(body) if tell is not None else kind
    return "emptyDir"


_TELLING: dict[str, Callable[[Document], str]] = {
    "nfs": lambda body: f"nfs {body.get('server')}:{body.get('path')}",
    "csi": lambda body: f"{body.get('driver')} {body.get('volumeHandle') or ''}".rstrip(),
    "hostPath": lambda body: f"hostPath {body.get('path')}",
    "local": lambda body: f"local {body.get('path')}",
    "secret": lambda body: f"secret {body.get('secretName')}",
    "configMap": lambda body: f"configMap {body.get('name')}",
    "persistentVolumeClaim": lambda body: f"claim {body.get('claimName')}",
    "emptyDir": lambda body: f"emptyDir {body.get('medium') or ''}".rstrip(),
    "awsElasticBlockStore": lambda body: f"EBS {body.get('volumeID')}",
    "iscsi": lambda body: f"iscsi {body.get('iqn')} lun {body.get('lun')}",
}


def _source_of_volume(document: Document) -> str:
    return format_source(document.get("spec") or {})


EXTRA_COLUMNS: dict[str, tuple[ExtraColumn, ...]] = {
    "pods": (ExtraColumn("Volumes", "Status", format_volumes),),
    "persistentvolumes": (ExtraColumn("Source", "VolumeMode", _source_of_volume, wide=True),),
}
