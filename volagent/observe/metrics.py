"""Metrics under the kubelet's names, so that existing dashboards and alerts keep working.

Source of the names: Kubernetes' metrics reference. Children are looked up once per label set and
kept: the per-volume path costs a dictionary lookup and two additions.
"""

from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

REGISTRY = CollectorRegistry()
_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
    120,
    600,
)

_OPERATION = {
    "attach": "volume_attach", "prepare": "volume_prepare", "stage": "mount_device",
    "publish": "volume_mount", "refresh": "volume_mount", "expand": "volume_fs_resize",
    "unpublish": "volume_unmount", "unstage": "unmount_device", "detach": "volume_detach",
    "cut": "volume_cut",
}  # fmt: skip

_duration = Histogram(
    "storage_operation_duration_seconds",
    "Storage operation duration",
    ("volume_plugin", "operation_name", "status", "migrated"),
    buckets=_BUCKETS,
    registry=REGISTRY,
)
_errors = Counter(
    "volume_operation_errors",
    "Storage operations that failed",
    ("plugin_name", "operation_name"),
    registry=REGISTRY,
)
_volumes = Gauge(
    "volume_manager_total_volumes",
    "Number of volumes in Volume Manager",
    ("plugin_name", "state"),
    registry=REGISTRY,
)


class ClaimUsage(NamedTuple):
    """Space and inodes of a claim's volume; the fields are the metrics, in their order."""

    capacity_bytes: int
    available_bytes: int
    used_bytes: int
    inodes: int
    inodes_free: int
    inodes_used: int


_claim_usage = tuple(
    Gauge(
        f"kubelet_volume_stats_{name}",
        f"{description} of the volume",
        ("namespace", "persistentvolumeclaim"),
        registry=REGISTRY,
    )
    for name, description in zip(
        ClaimUsage._fields,
        (
            "Capacity in bytes", "Number of available bytes", "Number of used bytes",
            "Maximum number of inodes", "Number of free inodes", "Number of used inodes",
        ),
        strict=True,
    )
)  # fmt: skip

drift_repairs = Counter(
    "volagent_drift_repairs", "Mounts that somebody else removed and that were made again",
    registry=REGISTRY,
)  # fmt: skip
pod_ready_seconds = Histogram(
    "volagent_pod_volumes_ready_seconds",
    "From the moment the node saw the pod until all its volumes were mounted",
    buckets=_BUCKETS,
    registry=REGISTRY,
)
recovery_seconds = Gauge(
    "volagent_recovery_seconds", "How long the last start took until everything was known",
    registry=REGISTRY,
)  # fmt: skip

_programs = Histogram(
    "volagent_program_seconds",
    "How long the programs take that the node starts; `volagent`: its own, in a process apart",
    ("program",),
    buckets=_BUCKETS,
    registry=REGISTRY,
)

volumes_lost = Counter(
    "volagent_volumes_lost", "Disks of this node that were taken from it by a fence",
    ("method",), registry=REGISTRY,
)  # fmt: skip
fence_armed = Gauge(
    "volagent_fence_armed", "1 while a watchdog is armed that resets this machine without a lease",
    registry=REGISTRY,
)  # fmt: skip
fence_give_ups = Counter(
    "volagent_fence_give_ups", "How often the lease was over and exclusive disks were given up",
    registry=REGISTRY,
)  # fmt: skip
fence_give_up_seconds = Histogram(
    "volagent_fence_give_up_seconds", "How long giving exclusive disks up took",
    buckets=_BUCKETS,
    registry=REGISTRY,
)  # fmt: skip

_children: dict[tuple[str, str, bool], Histogram] = {}


def observe_step(plugin: str, step: str, took_s: float, *, failed: bool) -> None:
    """One finished operation on a volume."""
    child = _children.get((plugin, step, failed))
    if child is None:
        child = _children[(plugin, step, failed)] = _duration.labels(
            plugin, _OPERATION[step], "fail-unknown" if failed else "success", "false"
        )
    child.observe(took_s)


def count_failure(plugin: str, step: str) -> None:
    """One failed operation on a volume."""
    _errors.labels(plugin, _OPERATION[step]).inc()


def observe_program(program: str, took_s: float) -> None:
    """A child process that ended by itself."""
    _programs.labels(program).observe(took_s)


def set_volumes(counts: Mapping[tuple[str, str], int]) -> None:
    """How many volumes there are, by plugin and `actual_` or `desired_state_of_world`."""
    _volumes.clear()
    for labels, count in counts.items():
        _volumes.labels(*labels).set(count)


def set_claim_usage(namespace: str, claim: str, usage: ClaimUsage) -> None:
    """How full the volume of a claim is."""
    for gauge, value in zip(_claim_usage, usage, strict=True):
        gauge.labels(namespace, claim).set(value)


def forget_claim_usage(namespace: str, claim: str) -> None:
    """The volume of a claim cannot be measured any more; it was set before."""
    for gauge in _claim_usage:
        gauge.remove(namespace, claim)


def render_metrics() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
