"""Metrics of fail-over."""

from prometheus_client import Counter, Histogram

from volagent.observe.metrics import REGISTRY

_BUCKETS = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 45, 60, 120, 300, 900)

fencings = Counter(
    "volagent_fencings",
    "Disks of lost nodes that were to be fenced, by method and outcome",
    ("method", "outcome"),
    registry=REGISTRY,
)
proven_seconds = Histogram(
    "volagent_failover_proven_seconds",
    "From a node's being lost to the proof that it cannot write to a disk",
    ("method",),
    buckets=_BUCKETS,
    registry=REGISTRY,
)
moved_seconds = Histogram(
    "volagent_failover_moved_seconds",
    "From a node's being lost to its disk's being attached to another one",
    buckets=_BUCKETS,
    registry=REGISTRY,
)
pods_moved = Counter(
    "volagent_failover_pods",
    "Pods of lost nodes, by what became of them",
    ("outcome",),
    registry=REGISTRY,
)
braked = Counter(
    "volagent_failover_brakes",
    "Times that nothing was taken because too many nodes were lost at once",
    registry=REGISTRY,
)
