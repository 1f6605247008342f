"""Gives back what drivers attached to this machine and nobody uses or knows of any more.

Records say what is attached here, and outlive the agent. When they are lost with the run
directory, or a node that kept another one out of a disk was killed on its way, a session or a
device stays that nothing would ever end. So what the drivers recognise as theirs is compared with
the records and with what is wanted, and what has been nobody's for two looks is detached as any
other device: written out, and not while anybody holds it.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from volagent.drivers.contract import DriverName, HeldDevice, ListsAttached
from volagent.drivers.errors import DriverError, Transient
from volagent.observe.logs import get_logger

if TYPE_CHECKING:
    from volagent.node.agent import NodeAgent

LOOK_S: Final = 15.0
_log = get_logger("node")

Place = tuple[DriverName, str]
"""A driver, and what it calls the disk."""


class LeftOverSweep:
    """Looks for devices that are left over, for the agent's life."""

    def __init__(self, agent: "NodeAgent", look_s: float = LOOK_S) -> None:
        self._agent = agent
        self._look_s = look_s
        self._told: set[Place] = set()

    async def run(self) -> None:
        """Look, for ever."""
        await self._agent.recovered.wait()
        before: set[Place] = set()
        while True:
            found = self._find()
            self._told &= found.keys()
            for place in sorted(before & found.keys()):
                await self._give_back(place)
            before = set(found)
            await asyncio.sleep(self._look_s)

    def _find(self) -> dict[Place, HeldDevice]:
        """What nobody uses or knows of."""
        ours = self._places()
        left: dict[Place, HeldDevice] = {}
        for name, driver in self._agent.drivers.items():
            if not isinstance(driver, ListsAttached) or (name, "") in ours:
                continue  # a record of a version that did not note what its disk is called
            try:
                found = driver.list_attached()
            except DriverError:
                continue  # which the disk's own steps tell
            left |= {
                (name, identity): device
                for identity, device in found.items()
                if (name, identity) not in ours
            }
        return left

    def _places(self) -> set[Place]:
        """What is recorded, or wanted: that may be under way."""
        actual, index = self._agent.actual, self._agent.index
        records = map(actual.get, actual.keys())
        wishes = map(index.wanted, index.keys())
        return {(each.driver, each.identity) for each in records if each is not None} | {
            (each.spec.driver, each.spec.identity) for each in wishes if each is not None
        }

    async def _give_back(self, place: Place) -> None:
        name, identity = place
        device = self._find().get(place)
        if device is None:
            return
        driver: Any = self._agent.drivers[name]
        try:
            await self._demand_unopened(device)
            done = await driver.detach(identity, device)
        except DriverError as error:
            if place not in self._told:
                self._told.add(place)
                _log.warning(
                    "a device that no volume has is in use, and stays",
                    driver=name, disk=identity, device=device.path, error=str(error),
                    remedy=error.remedy,
                )  # fmt: skip
            return
        _log.info(
            "a device that no volume has was given back",
            driver=name, disk=identity, device=device.path, evidence=done.evidence,
        )  # fmt: skip

    async def _demand_unopened(self, device: HeldDevice) -> None:
        """A container of a pod that nobody knows any more may be writing to it."""
        if not device.number:
            return  # a session without a disk
        openers = await self._agent.host.holders.find_openers(device.number)
        if openers:
            who = "; ".join(map(str, openers))
            raise Transient(f"held by {who}", remedy="stop the process that holds it")
