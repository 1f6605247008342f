"""The permission for disks whose storage is told who has them, as its driver is given it.

The driver has it confirmed in the middle of attaching: when this node is known to the storage and
has not done anything by that yet. It is read from a server each time, never from a copy.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from volagent.drivers.contract import DriverTable, Permission, Reserves, VolumeSpec
from volagent.drivers.errors import Transient, Waiting

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
        permission = await self.fetch(spec)

        async def confirm() -> str:
            try:
                again = await self.fetch(spec)
            except (Transient, Waiting) as error:
                return error.message
            same = again.attachment_uid == permission.attachment_uid
            return "" if same else f"{spec.identity} was taken from this node, and given to it anew"

        return msgspec.structs.replace(permission, confirm=confirm)
