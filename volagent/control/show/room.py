"""Says on the Node what a storage node's volumes have room for, for people and their tools."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from volagent.client.contract import NODES, ApiError, Client
from volagent.client.events import EventRecorder, Subject
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.objects.storage import PersistentVolume
from volagent.objects.storage_nodes import NEARLY_FULL_PERCENT, STORAGE_ROOM, storage_node_of
from volagent.observe.logs import get_logger

Measure = Callable[[], Awaitable[Mapping[str, int]]]
"""The room by what it is: in bytes, or, as its name says, in percent of what is taken. Raises
`OSError`."""

GATHER_S: Final = 1.0
LOOK_AGAIN_S: Final = 300.0
"""What is free changes without anybody saying so."""
_STEP_BYTES: Final = 64 << 20
"""Changes of free space below this are not worth a write."""
_STEP_PERCENT: Final = 5
_PERCENT: Final = "_percent"

_log = get_logger("show")


class RoomReporter:
    """Writes one annotation of this node's Node."""

    def __init__(
        self, copies: SharedCopies, client: Client, events: EventRecorder, measure: Measure,
        node: str,
    ) -> None:  # fmt: skip
        """Before `copies.run`."""
        self._copies = copies
        self._client = client
        self._events = events
        self._measure = measure
        self._node = node
        self._said: Mapping[str, int] = {}
        self._changed = asyncio.Event()
        copies.volumes.listen(self._volume_changed)

    def _volume_changed(
        self, _key: Key, old: PersistentVolume | None, new: PersistentVolume | None
    ) -> None:
        known = new or old
        if known is not None and storage_node_of(known.metadata) == self._node:
            self._changed.set()

    async def run(self) -> None:
        """Write it when volumes come and go, for ever."""
        await self._copies.wait_synced()
        while True:
            self._changed.clear()
            try:
                await self._say(await self._measure())
            except (OSError, ApiError) as error:
                _log.warning("room not told", error=str(error))
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(GATHER_S)

    async def _say(self, room: Mapping[str, int]) -> None:
        await self._warn(room)
        if not any(self._is_news(name, value) for name, value in room.items()):
            return
        text = msgspec.json.encode(dict(room)).decode()
        change = {"metadata": {"annotations": {STORAGE_ROOM: text}}}
        await self._client.patch(NODES, self._node, change)
        self._said = room

    def _is_news(self, name: str, value: int) -> bool:
        step = _STEP_PERCENT if name.endswith(_PERCENT) else _STEP_BYTES
        return abs(value - self._said.get(name, -step)) >= step

    async def _warn(self, room: Mapping[str, int]) -> None:
        """Tell what is nearly full, each time that it is looked at."""
        full = [
            f"{name.removesuffix(_PERCENT)} {value} %"
            for name, value in room.items()
            if name.endswith(_PERCENT) and value >= NEARLY_FULL_PERCENT
        ]
        if not full:
            return
        _log.warning("thin pool nearly full", taken=", ".join(full))
        metadata = (await self._client.get(NODES, self._node))["metadata"]
        self._events.warning(
            Subject("Node", "", self._node, metadata["uid"]), "ThinPoolNearlyFull",
            f"of the thin pool with this node's disks is taken: {', '.join(full)}; make it larger"
            " (lvextend), or empty the trash",
        )  # fmt: skip
