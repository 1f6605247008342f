"""How full the claims' volumes are, and how many volumes there are: what a scrape asks for.

Nothing is measured without a scrape, and nothing twice within a minute: an idle daemon that nobody
scrapes does nothing here. Volumes of this node's own disks are measured at once; those of a backend
that can hang (a server) by one operation per backend, behind its bulkhead. A scrape waits for these
only `SCRAPE_WAIT_S`; a dead backend costs its own series and nobody else's. Numbers are at most
`MEASURE_EVERY_S` plus `MEASURE_TIMEOUT_S` old.

A path is measured only while its volume stands there: before and after, the record is asked, so
that the file system below a mount that has just gone never passes for the volume. For the event
loop's thread.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final

from volagent.drivers.contract import VolumeKey, VolumeMode
from volagent.host.errors import HostError, TimedOut
from volagent.node.agent import NodeAgent, Start
from volagent.node.records import Held, VolumeRecord
from volagent.objects.meta import PodUid
from volagent.observe.metrics import (
    ClaimUsage,
    forget_claim_usage,
    render_metrics,
    set_claim_usage,
    set_volumes,
)

MEASURE_EVERY_S: Final = 60.0
MEASURE_TIMEOUT_S: Final = 10.0
SCRAPE_WAIT_S: Final = 2.0
"""A scrape is given up after ten seconds by default; what is not known by then comes next time."""
SLICE: Final = 32
"""Volumes measured in a row before the loop may do something else: about a millisecond."""
LOCAL: Final = "local"
DESIRED: Final = "desired_state_of_world"
ACTUAL: Final = "actual_state_of_world"

Claim = tuple[str, str]
"""Namespace and name."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a claim's volume can be measured."""

    claim: Claim
    key: VolumeKey
    pod: PodUid
    path: str
    mount_id: int
    backend: str


class VolumeStats:
    """Measures an agent's volumes on demand."""

    def __init__(self, agent: NodeAgent, start: Start) -> None:
        self._agent = agent
        self._start = start
        self._measured_at_s: float | None = None
        self._shown: set[Claim] = set()
        self._busy: set[str] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def render(self) -> bytes:
        """All metrics in Prometheus' text format, those of the volumes refreshed."""
        if not self._agent.recovered.is_set():
            return render_metrics()
        self._count_volumes()
        places = self._find_places()
        for claim in self._shown - places.keys():
            self._forget(claim)
        now_s = self._agent.clock.monotonic()
        if self._measured_at_s is None or now_s - self._measured_at_s >= MEASURE_EVERY_S:
            self._measured_at_s = now_s
            await self._measure_all(places)
        try:
            async with asyncio.timeout(SCRAPE_WAIT_S):
                await self._idle.wait()
        except TimeoutError:
            pass  # a backend does not answer: the others are not kept waiting
        return render_metrics()

    def _count_volumes(self) -> None:
        index, actual = self._agent.index, self._agent.actual
        counts: Counter[tuple[str, str]] = Counter()
        for key in index.keys():  # noqa: SIM118  # a method, not a mapping
            wanted = index.wanted(key)
            if wanted is not None:
                counts[(wanted.spec.driver, DESIRED)] += 1
        for key in actual.keys():  # noqa: SIM118
            record = actual.get(key)
            if record is not None:
                counts[(record.driver, ACTUAL)] += 1
        set_volumes(counts)

    async def _measure_all(self, places: dict[Claim, _Place]) -> None:
        by_backend: dict[str, list[_Place]] = {}
        for place in places.values():
            by_backend.setdefault(place.backend, []).append(place)
        await self._measure(by_backend.pop(LOCAL, []))
        for backend, group in by_backend.items():
            if backend not in self._busy:
                self._busy.add(backend)
                self._idle.clear()
                self._start(f"usage of {backend}", self._measure_backend(backend, group))

    def _find_places(self) -> dict[Claim, _Place]:
        """One place for each claim whose volume stands somewhere on this node."""
        index, actual = self._agent.index, self._agent.actual
        places: dict[Claim, _Place] = {}
        for key in actual.keys():  # noqa: SIM118  # a method, not a mapping
            record, wanted = actual.get(key), index.wanted(key)
            if record is None or wanted is None or not wanted.source.persistent:
                continue
            claim = self._claim_of(record)
            if claim is None or claim in places or record.mode is VolumeMode.BLOCK:
                continue
            for pod, use in record.uses.items():
                if use.held is Held.YES:
                    mount = use.mount
                    places[claim] = _Place(
                        claim, key, pod, mount.path, mount.mount_id, record.backend
                    )
                    break
        return places

    def _claim_of(self, record: VolumeRecord) -> Claim | None:
        volume = self._agent.world.volume(record.name)
        reference = volume.spec.claim_ref if volume is not None else None
        return (reference.namespace, reference.name) if reference is not None else None

    async def _measure_backend(self, backend: str, places: list[_Place]) -> None:
        try:
            await self._measure(places)
        finally:
            self._busy.discard(backend)
            if not self._busy:
                self._idle.set()

    async def _measure(self, places: list[_Place]) -> None:
        gauges = self._agent.host.gauges
        for number, place in enumerate(places):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            try:
                usage = await gauges.measure(
                    place.path, backend=place.backend, timeout_s=MEASURE_TIMEOUT_S
                )
            except TimedOut:
                for silent in places[number:]:
                    self._forget(silent.claim)
                return
            except HostError:
                self._forget(place.claim)
                continue
            if not self._stands(place):
                self._forget(place.claim)
                continue
            self._shown.add(place.claim)
            set_claim_usage(*place.claim, ClaimUsage(
                usage.capacity_bytes, usage.available_bytes, usage.used_bytes,
                usage.inodes, usage.inodes_free, usage.inodes - usage.inodes_free,
            ))  # fmt: skip

    def _stands(self, place: _Place) -> bool:
        """Whether what was measured is still what the pod has."""
        record = self._agent.actual.get(place.key)
        use = record.uses.get(place.pod) if record is not None else None
        return use is not None and use.held is Held.YES and use.mount.mount_id == place.mount_id

    def _forget(self, claim: Claim) -> None:
        if claim in self._shown:
            self._shown.discard(claim)
            forget_claim_usage(*claim)
