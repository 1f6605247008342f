"""Asks the storages of this node's exclusive disks, again and again, whether it may still write.

A Fencing that is proven tells a node what it has lost (`fence_keeper.py`). Two things take a disk
without one: a fence that was called off, because the node was heard again, when its storage had
done the first step already; and a storage that forgets who has its disks. The kernel only fails the
next write then, for ever, and the pod would count as ready. So each disk is asked about, and
one that is refused is given up and, if the cluster permits it, attached anew.

Each disk by itself: a storage that hangs delays no other's answer.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from volagent.client.fencings import Start
from volagent.drivers.contract import TellsIfFenced, VolumeKey
from volagent.drivers.errors import DriverError
from volagent.node.records import Held, VolumeRecord
from volagent.node.surrender import Surrender

if TYPE_CHECKING:
    from volagent.node.agent import NodeAgent

LOOK_S: Final = 5.0
"""What a disk costs in that time is two commands that write nothing."""
AGAIN_S: Final = 1.0
"""A refusal is asked about twice: an array whose controllers change over may say anything once."""
ANSWER_TIMEOUT_S: Final = 30.0


class KeptOutWatch:
    """Notices disks that this node is kept out of."""

    def __init__(self, agent: "NodeAgent", surrender: Surrender, start: Start) -> None:
        self._agent = agent
        self._surrender = surrender
        self._start = start
        self._asking: set[VolumeKey] = set()

    async def run(self) -> None:
        """Ask, for ever."""
        await self._agent.recovered.wait()
        actual = self._agent.actual
        while True:
            for record in list(map(actual.get, actual.keys())):
                if record is not None and record.key not in self._asking and self._is_asked(record):
                    self._asking.add(record.key)
                    self._start(f"kept out of {record.key}?", self._ask(record))
            await asyncio.sleep(LOOK_S)

    def _is_asked(self, record: VolumeRecord) -> bool:
        settled = record.attached is Held.YES and record.exclusive and not record.lost
        return settled and isinstance(self._agent.drivers.get(record.driver), TellsIfFenced)

    async def _ask(self, record: VolumeRecord) -> None:
        driver: Any = self._agent.drivers[record.driver]
        device = record.device
        assert device is not None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                fenced = await driver.is_fenced(device)
                if fenced:
                    await asyncio.sleep(AGAIN_S)
                    fenced = await driver.is_fenced(device)
        except (DriverError, TimeoutError):
            return  # its own steps tell what is wrong with it
        finally:
            self._asking.discard(record.key)
        now = self._agent.actual.get(record.key)
        if fenced and now is not None and self._is_asked(now) and now.device == device:
            self._surrender.discard_kept_out(now)
