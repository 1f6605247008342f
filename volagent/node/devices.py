"""Waiting for a device that is not there yet: the kernel tells when one appears.

Nothing is loaded or watched before the first volume misses its device: the netlink library is
large. An event never says that it is the right device; it only has those who wait look again.
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from volagent.drivers.contract import VolumeKey
from volagent.host.contract import Closeable
from volagent.host.errors import HostError
from volagent.host.uevents import DeviceEvent
from volagent.observe.logs import get_logger

WatchDevices = Callable[[Callable[[DeviceEvent], None]], Awaitable[Closeable]]

_log = get_logger("node")


@dataclass(slots=True)
class DeviceWaiter:
    """The volumes that wait for a device."""

    watch: WatchDevices | None
    start: Callable[[str, Coroutine[Any, Any, None]], object]
    mark: Callable[[VolumeKey], None]
    _waiting: set[VolumeKey] = field(default_factory=set)
    _watch: Closeable | None = None
    _begun: bool = False

    def expect(self, key: VolumeKey) -> None:
        """Have this volume looked at when a device appears."""
        self._waiting.add(key)
        if not self._begun and self.watch is not None:
            self._begun = True
            self.start("watch devices", self._begin(self.watch))

    def close(self) -> None:
        """Stop watching; idempotent."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    async def _begin(self, watch: WatchDevices) -> None:
        try:
            self._watch = await watch(self._appeared)
        except HostError as error:
            _log.info("device events not available, retries go on", error=str(error))

    def _appeared(self, event: DeviceEvent) -> None:
        if event.action == "remove" or not self._waiting:
            return
        waiting, self._waiting = self._waiting, set()
        _log.info("device appeared", device=event.device, action=event.action, waiting=len(waiting))
        for key in waiting:
            self.mark(key)
