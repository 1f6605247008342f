"""Takes down what is here of a disk that is another node's now: nothing may be written to it.

1. the device is cut off, under whatever is mounted or open: what the page cache still holds fails;
2. containers are killed (the pods' own worker does it);
3. mounts are taken down; one that will not go because its disk answers nothing is detached from the
   tree instead (MNT_DETACH), since there is nothing left that it could write;
4. the device is given back, unwritten.

What was proved to the cluster does not depend on this: it keeps errors out of this node's log, and
gives its pods and its word for the disk (`volumesInUse`) free. Records are kept as in `execute.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from volagent.drivers.contract import (
    Attaches,
    Discards,
    Done,
    DriverTable,
    HeldMount,
    Publishes,
    Stages,
)
from volagent.drivers.errors import DriverError
from volagent.host.contract import MountId, Mounts
from volagent.host.errors import Absent, HostError
from volagent.node.actual import Actual, replace
from volagent.node.plan import Detach, Unpublish, Unstage
from volagent.node.records import Held, VolumeRecord
from volagent.observe.logs import get_logger

_TakeDown = Callable[[HeldMount], Awaitable[Done]]
UNMOUNT_TIMEOUT_S: Final = 15.0
"""How long a mount of a dead disk may take to go the ordinary way."""

_log = get_logger("node")


@dataclass(frozen=True, slots=True)
class Discarder:
    """Does to a lost volume what the executor does to others."""

    drivers: DriverTable
    actual: Actual
    mounts: Mounts

    async def cut(self, found: VolumeRecord) -> str:
        """(1)"""
        assert found.device is not None
        driver: Any = self.drivers[found.driver]
        evidence = ""
        if isinstance(driver, Discards):
            evidence = (await driver.cut(found.device)).evidence
        self.actual.set_cut(self.actual.get(found.key) or found)
        return evidence

    async def take_down(self, step: Unpublish | Unstage | Detach, found: VolumeRecord) -> str:
        """(3) and (4)"""
        match step:
            case Unpublish():
                return (await self._unpublish(step, found)).evidence
            case Unstage():
                return (await self._unstage(step, found)).evidence
            case Detach():
                return (await self._detach(step, found)).evidence

    async def _unpublish(self, step: Unpublish, found: VolumeRecord) -> Done:
        use = found.uses.get(step.pod)
        if use is None:
            return Done()
        driver = cast("Publishes", self.drivers[found.driver])
        mount = self._as_it_stands(use.mount, use.held)
        self.actual.set_use(found, step.pod, Held.UNKNOWN, mount)
        done = await self._go(step, mount, driver.unpublish)
        self.actual.drop_use(self.actual.get(step.key) or found, step.pod)
        return done

    async def _unstage(self, step: Unstage, found: VolumeRecord) -> Done:
        done = Done()
        if found.stage is not None:
            driver = cast("Stages", self.drivers[found.driver])
            stage = self._as_it_stands(found.stage, found.staged)
            self.actual.set_staged(found, Held.UNKNOWN, stage)
            done = await self._go(step, stage, driver.unstage)
        self.actual.set_staged(self.actual.get(step.key) or found, Held.NO, None)
        return done

    async def _detach(self, step: Detach, found: VolumeRecord) -> Done:
        done = Done()
        if found.device is not None:
            driver: Any = self.drivers[found.driver]
            self.actual.set_attached(found, Held.UNKNOWN, found.device)
            if isinstance(driver, Discards):
                done = await driver.discard(found.name, found.device)
            else:
                done = await cast("Attaches", driver).detach(found.name, found.device)
        self.actual.set_attached(self.actual.get(step.key) or found, Held.NO)
        return done

    async def _go(self, step: Unpublish | Unstage, mount: HeldMount, take_down: _TakeDown) -> Done:
        try:
            async with asyncio.timeout(UNMOUNT_TIMEOUT_S):
                return await take_down(mount)
        except (DriverError, HostError, TimeoutError) as error:
            if self.mounts.find_mount(MountId(mount.mount_id)) is None:
                raise
            _log.warning(
                "mount of a lost disk detached from the tree", volume=step.key, path=mount.path,
                error=str(error) or "it took too long",
            )  # fmt: skip
        await self._detach_from_tree(step, mount)
        return await take_down(mount)

    async def _detach_from_tree(self, step: Unpublish | Unstage, mount: HeldMount) -> None:
        """MNT_DETACH; only here, where the device is cut off and the containers are dead."""
        try:
            await self.mounts.unmount_slowly(
                mount.path, backend=f"lost:{step.key}", timeout_s=UNMOUNT_TIMEOUT_S,
                force=False, lazy=True,
            )  # fmt: skip
        except Absent:
            return

    def _as_it_stands(self, mount: HeldMount, held: Held) -> HeldMount:
        if held is not Held.UNKNOWN or mount.mount_id or not mount.path:
            return mount
        standing = [
            entry.mount_id
            for entry in self.mounts.read_table().entries
            if entry.mount_point == mount.path
        ]
        return replace(mount, mount_id=standing[-1] if standing else 0)
