"""The permission for disks whose storage is told who has them: asked for, and confirmed.

Between the two the driver makes this node known to the storage. A permission that does not stand
any more then is no failure: the disk is given back, and nothing was written.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from volagent.drivers.contract import (
    Attaches,
    DriverTable,
    HeldDevice,
    Permission,
    Reserves,
    VolumeSpec,
)
from volagent.drivers.errors import DriverError, Transient, Uncertain, Waiting

FetchPermission = Callable[[VolumeSpec], Awaitable[Permission]]
"""Asks a server whether this node may have a disk; raises `Waiting`, `Transient`."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Asks for them where the driver of a disk wants to know."""

    drivers: DriverTable
    fetch: FetchPermission

    async def ask(self, spec: VolumeSpec) -> Permission | None:
        """Before a disk is attached; None: its driver tells nobody. Raises as `FetchPermission`."""
        driver = self.drivers[spec.driver]
        if not spec.identity or not isinstance(driver, Reserves) or not driver.reserves:
            return None
        return await self.fetch(spec)

    async def confirm(
        self, spec: VolumeSpec, permission: Permission, device: HeldDevice, *, again: bool
    ) -> None:
        """After it was attached, and before anything is written to it.

        `again`: it had been attached before, and may be in use. Raises `Uncertain` when no server
        answers or it cannot be given back: then it stays, in doubt; `Transient` when it was
        given back.
        """
        try:
            if await self.fetch(spec) == permission:
                return
            why = f"{spec.identity} was taken from this node and given to it anew"
        except Transient as error:
            raise Uncertain(error.message, remedy=error.remedy) from error
        except Waiting as error:
            why = error.message
        if again:
            raise Uncertain(why, remedy="it is taken down when its pods are gone")
        try:
            await cast("Attaches", self.drivers[spec.driver]).detach(spec.name, device)
        except DriverError as error:
            raise Uncertain(f"{why}; {error.message}", remedy=error.remedy) from error
        raise Transient(why, remedy="it is attached again when the cluster says so")
