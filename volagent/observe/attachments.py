"""Metrics of the attach/detach controller under Kubernetes' names. Counted when they are asked for.

Source of the names: Kubernetes `pkg/controller/volume/attachdetach/metrics`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from volagent.observe.metrics import REGISTRY

ACTUAL = "actual_state_of_world"
DESIRED = "desired_state_of_world"
OFF = "out-of-service"
FENCED = "fenced"


class AttachmentCounts(NamedTuple):
    """How many disks a controller sees."""

    volumes: Mapping[tuple[str, str], int]
    """By plugin and `ACTUAL` or `DESIRED`."""
    in_use: Mapping[tuple[str, str], int]
    """Wanted by pods, by node and plugin."""
    forced: Mapping[str, int]
    """Taken, since the start, from nodes that had said that they use them, by the proof."""


class _Counts(Collector):
    def __init__(self, count: Callable[[], AttachmentCounts]) -> None:
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        counts = self._count()
        total = GaugeMetricFamily(
            "attachdetach_controller_total_volumes",
            "Number of volumes in A/D Controller",
            labels=("plugin_name", "state"),
        )
        for labels, number in counts.volumes.items():
            total.add_metric(labels, number)
        yield total
        in_use = GaugeMetricFamily(
            "storage_count_attachable_volumes_in_use",
            "Measure number of volumes in use",
            labels=("node", "volume_plugin"),
        )
        for labels, number in counts.in_use.items():
            in_use.add_metric(labels, number)
        yield in_use
        forced = CounterMetricFamily(
            "attachdetach_controller_forced_detaches",
            "Number of times the A/D Controller performed a forced detach",
            labels=("reason",),
        )
        for reason in (OFF, FENCED):
            forced.add_metric((reason,), counts.forced.get(reason, 0))
        yield forced


@contextmanager
def showing_attachments(count: Callable[[], AttachmentCounts]) -> Iterator[None]:
    """Have scrapes ask `count`, in the thread of the event loop, while the block runs."""
    collector = _Counts(count)
    REGISTRY.register(collector)
    try:
        yield
    finally:
        REGISTRY.unregister(collector)
