"""Keeps a lost node from a LUN, from a node that can reach it: `Excludes` by reservations.

1. log in and look: nothing here makes a device of the disk or mounts it;
2. this node's guard is registered, so that it may give orders; then whoever wants this is asked
   once more: one that freezes here and thaws later finds its guard gone, and removes nobody;
3. every other key is removed, with what its node has under way. The order is about a disk that is
   the lost node's alone, so whatever else is registered is of an earlier life of somebody, and
   could be that node's;
4. the reservation is taken over with the last of them, or made, under the guard;
5. where no key was removed, an earlier try may have done that a moment ago: a LUN RESET ends
   whatever is under way still;
6. the session is closed, a new one opened, and what stands is read. A target that forgets with the
   session that it was told by keeps nobody out, and is found out by this.

The guard stays on the storage until the next node takes the disk: there is one on a disk at most.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from volagent.host.errors import Busy, HostError, Unsupported
from volagent.host.iscsi.claims import KEPT, refuse_foreign, show_standing
from volagent.host.iscsi.contract import Exclusion, LunHandle, LunWish, Withdrawn
from volagent.host.iscsi.initiator import RealInitiator
from volagent.host.iscsi.persistent import Persistent, remove_key
from volagent.host.iscsi.sysfs import Path
from volagent.host.reservations import Capabilities, Kind, Order, Standing
from volagent.objects.reservation_keys import is_attachment, is_guard, show_key

_TRIES_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Excluder:
    """`Excludes` on this machine."""

    initiator: RealInitiator

    @property
    def persistent(self) -> Persistent:
        """What gives orders to disks."""
        return self.initiator.persistent

    async def keep_out(self, wish: LunWish, exclusion: Exclusion) -> str:
        """Have the storage refuse a node's writes, and read back that it does."""
        here = self.initiator.is_present(wish)
        handle, paths = await self.initiator.reach(wish)  # (1)
        if self.initiator.is_claimed(handle):
            raise Busy("keep out", handle.wwid, 0, "this node has the disk itself")
        try:
            done = await self._exclude(paths[0], handle, exclusion, fresh=not here)
        finally:
            left = "" if here else await self._leave(handle, paths)
        if not here and not left:
            handle, paths = await self.initiator.reach(wish)  # (6)
        try:
            stands = await self.persistent.standing(paths[0])
        finally:
            if not here and not left:
                left = await self._leave(handle, paths)
        if not _keeps_out(stands, exclusion.keys):
            text = f"the target forgot who is kept out: {show_standing(stands)}"
            raise Unsupported("keep out", handle.wwid, 0, text)
        said = f"{handle.wwid} by {paths[0].session.portal} has {show_standing(stands)}"
        return "; ".join(filter(None, (done, f"asked again, {said}", left)))

    async def _exclude(
        self, path: Path, handle: LunHandle, exclusion: Exclusion, *, fresh: bool
    ) -> str:
        """What was done, in words."""
        can = await self.persistent.capabilities(path)
        if can.kinds and Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY not in can.kinds:
            raise Unsupported("keep out", handle.wwid, 0, "it has no reservations of type 5")
        stands = await self.persistent.standing(path)
        removed: set[int] = set()
        for _ in range(_TRIES_MAX):
            refuse_foreign(handle, stands)
            if _keeps_out(stands, exclusion.keys):
                break
            await self._register(path, exclusion.guard, can, fresh=fresh)  # (2)
            await self._confirm(path, exclusion, can)
            for key in sorted({*stands.keys} - {exclusion.guard}):  # (3)
                if await remove_key(self.persistent, path, exclusion.guard, key):
                    removed.add(key)
            await self.persistent.order(path, Order.RESERVE, (exclusion.guard, 0))  # (4)
            stands = await self.persistent.standing(path)
        else:
            text = f"it does not stay as it is told: {show_standing(stands)}"
            raise HostError("keep out", handle.wwid, 0, text)
        if any(is_attachment(key) for key in removed):
            return f"{', '.join(map(show_key, sorted(removed)))} removed, its commands aborted"
        await self.persistent.reset(path)  # (5)
        return "no key of the node was registered; all commands under way aborted"

    async def _register(self, path: Path, guard: int, can: Capabilities, *, fresh: bool) -> None:
        """A session of our own may have a key of an earlier life; one that others use keeps it."""
        tries = (
            [(Order.REGISTER_AND_IGNORE, (0, guard))]
            if fresh
            else [(Order.REGISTER, (guard, guard)), (Order.REGISTER, (0, guard))]
        )
        for order, keys in tries:
            if await self.persistent.order(path, order, keys, outlives_power=can.outlives_power):
                return
        raise Busy("keep out", path.device, 0, "the disk is in use here, under another key")

    async def _confirm(self, path: Path, exclusion: Exclusion, can: Capabilities) -> None:
        why = await exclusion.confirm()
        if not why:
            return
        stands = await self.persistent.standing(path)
        if stands.holder != exclusion.guard:
            keys = (exclusion.guard, 0)
            await self.persistent.order(
                path, Order.REGISTER, keys, outlives_power=can.outlives_power
            )
        raise Withdrawn("keep out", path.device, 0, why)

    async def _leave(self, handle: LunHandle, paths: Sequence[Path]) -> str:
        """Take it away again; why that failed, if it did."""
        try:
            await self.initiator.leave(handle, paths)
        except HostError as error:
            return f"the disk is still to be seen on this node ({error})"
        return ""


def _keeps_out(stands: Standing, barred: Collection[int]) -> bool:
    """Whether only guards may write, and none of the barred node."""
    known = all(is_guard(key) and key not in barred for key in stands.keys)
    return bool(stands.keys) and known and stands.kind in KEPT
