"""Says on the Node what a storage node's volumes have room for, for people and their tools."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from volagent.client.contract import NODES, ApiError, Client
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.objects.storage import PersistentVolume
from volagent.objects.storage_nodes import STORAGE_ROOM, storage_node_of
from volagent.observe.logs import get_logger

Measure = Callable[[], Awaitable[Mapping[str, int]]]
"""The room, in bytes by what it is. Raises `OSError`."""

GATHER_S: Final = 1.0
LOOK_AGAIN_S: Final = 300.0
"""What is free changes without anybody saying so."""
_STEP_BYTES: Final = 64 << 20
"""Changes of free space below this are not worth a write."""

_log = get_logger("show")


class RoomReporter:
    """Writes one annotation of this node's Node."""

    def __init__(self, copies: SharedCopies, client: Client, measure: Measure, node: str) -> None:
        """Before `copies.run`."""
        self._copies = copies
        self._client = client
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
        worth = any(abs(room[name] - self._said.get(name, -_STEP_BYTES)) >= _STEP_BYTES
                    for name in room)  # fmt: skip
        if not worth:
            return
        text = msgspec.json.encode(dict(room)).decode()
        change = {"metadata": {"annotations": {STORAGE_ROOM: text}}}
        await self._client.patch(NODES, self._node, change)
        self._said = room
