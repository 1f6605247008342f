"""Persistent reservations by the paths of a disk, each command in a child that can be killed."""

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from volagent.host.errors import HostError, Unsupported
from volagent.host.iscsi.admin import backend_of
from volagent.host.iscsi.sysfs import Path
from volagent.host.reservations import Capabilities, Kind, Order, Registrant, Standing

if TYPE_CHECKING:
    from volagent.host.process import Helpers

ORDER_TIMEOUT_S: Final = 20.0


class Persistent(Protocol):
    """What can be said to a disk, by one of its paths. All raise `Unsupported`, `HostError`."""

    async def capabilities(self, path: Path) -> Capabilities:
        """What the disk can do."""

    async def standing(self, path: Path) -> Standing:
        """What is registered and reserved."""

    async def order(
        self, path: Path, order: Order, keys: tuple[int, int], *, outlives_power: bool = False
    ) -> bool:
        """Register or reserve (type 5), with this nexus' key and the one it is about.

        False when it conflicts with what stands.
        """

    async def reset(self, path: Path) -> None:
        """Abort everything that anybody has told the disk to do."""


@dataclass(frozen=True, slots=True)
class RealPersistent:
    """`Persistent` by SG_IO."""

    helpers: "Helpers"
    kind: Kind = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY

    async def capabilities(self, path: Path) -> Capabilities:
        """What the disk can do; one that does not tell may know reservations all the same."""
        try:
            answer = await self._call("fetch_capabilities", path)
        except Unsupported:
            await self.standing(path)
            return Capabilities(outlives_power=False, kinds=())
        return Capabilities(answer["outlives_power"], tuple(answer["kinds"]))

    async def standing(self, path: Path) -> Standing:
        """What is registered and reserved."""
        answer = await self._call("fetch_standing", path)
        return Standing(
            answer["generation"], tuple(answer["keys"]), answer["holder"], answer["kind"]
        )

    async def registrants(self, path: Path) -> tuple[Registrant, ...]:
        """Who is registered, by which session."""
        answer = await self._call("fetch_registrants", path)
        return tuple(Registrant(**each) for each in answer["registrants"])

    async def order(
        self, path: Path, order: Order, keys: tuple[int, int], *, outlives_power: bool = False
    ) -> bool:
        """Register or reserve."""
        registers = order in (Order.REGISTER, Order.REGISTER_AND_IGNORE)
        answer = await self._call(
            "give_order", path,
            order=int(order), kind=int(Kind.NONE if registers else self.kind), keys=keys,
            outlives_power=outlives_power,
        )  # fmt: skip
        return bool(answer["done"])

    async def reset(self, path: Path) -> None:
        """Abort everything."""
        await self._call("reset_disk", path)

    async def _call(self, operation: str, path: Path, **arguments: Any) -> dict[str, Any]:
        if not path.disk:
            raise HostError(operation, path.directory, errno.ENODEV, "it is no disk yet")
        return await self.helpers.call(
            operation,
            {"path": path.device, **arguments},
            backend=backend_of(path.session.portal),
            timeout_s=ORDER_TIMEOUT_S,
        )


async def remove_key(persistent: Persistent, path: Path, own: int, other: int) -> bool:
    """Take a key from whoever has registered it, and abort what they have under way.

    If it holds the reservation, `own` holds it from then on, without a moment in between. A storage
    that cannot do both at once is told the second thing afterwards. False when it was gone.
    """
    try:
        return await persistent.order(path, Order.PREEMPT_AND_ABORT, (own, other))
    except Unsupported:
        done = await persistent.order(path, Order.PREEMPT, (own, other))
        await persistent.reset(path)
        return done
