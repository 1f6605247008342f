"""The reservations of the disks that this node has: taken once, looked for ever after, given back.

Taking one, before the disk becomes a device:

1. it is noted that a key is about to be registered;
2. the key is registered by every path, whatever this node had registered there in an earlier life;
3. the cluster is asked once more whether this node may have the disk. Whoever takes the disk from
   the node withdraws that first and removes its key then, and a node that is frozen here and thaws
   later finds that it can do nothing with a key that is gone;
4. every other key of ours is removed, with what its node has under way: the cluster gives an
   exclusive disk to one node, so those are of nodes that were fenced, died or were given up on;
5. the reservation is taken over with the last of them, or made;
6. what stands is read back, and it is noted that the disk is reserved.

From (6) on nothing is registered for this disk again, by no path, until it is given back: a key
that is missing means that somebody keeps this node out. A path that comes up later would have to be
registered, and between the look whether the node is fenced and the registration it could be fenced;
so no session is opened while a disk is reserved. A session that the kernel heals is the same nexus
and has its key. For the same reason a path that does not answer when the disk is taken is deleted:
without a key it would fail writes, in a map of multipath-tools too, which passes a conflict on.
That map is why the key is registered by the paths and before it is made; `mpathpersist` and a
`reservation_key` need a line in multipath.conf, which is the operator's, and register paths that
come up later by themselves.

A disk that was ever taken from somebody is never left open: whoever had it may be frozen, with
writes in its memory, and may thaw after the next node has given the disk back. So its key says that
it is guarded, and when it is given back the node's guard takes the key's place and keeps the
reservation. What takes part in this with no exclusive right registers when a reservation stands.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from volagent.host.errors import HostError, Unsupported
from volagent.host.iscsi.contract import Claim, Fenced, LunHandle, Reserved, Withdrawn
from volagent.host.iscsi.known import KnownClaims, NotedClaim
from volagent.host.iscsi.persistent import Persistent, remove_key
from volagent.host.iscsi.sysfs import Path
from volagent.host.reservations import Kind, Order, Standing
from volagent.objects.reservation_keys import guarded, is_guarded, is_ours, show_key

KEPT: Final = (Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY, Kind.EXCLUSIVE_ACCESS_REGISTRANTS_ONLY)
_TRIES_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Claims:
    """What this node has registered."""

    persistent: Persistent
    known: KnownClaims

    def find(self, iqn: str, lun: int, interface: str) -> NotedClaim | None:
        """What is noted of a disk that is reserved for this node."""
        noted = self.known.find(iqn, lun, interface)
        return noted if noted is not None and noted.registered else None

    async def take(
        self, claim: Claim | None, handle: LunHandle, paths: Sequence[Path]
    ) -> tuple[LunHandle, str]:
        """Be known to the disk's storage; the handle with the key, and what to tell.

        Raises `Fenced`, `Reserved`, `HostError`.
        """
        noted = self.find(handle.iqn, handle.lun, handle.interface)
        if noted is not None:
            return await self._take_again(claim, handle, noted, paths)
        if claim is None:
            return handle, ""
        try:
            can = await self.persistent.capabilities(paths[0])
            before = await self.persistent.standing(paths[0])
        except Unsupported:
            return handle, _cannot("it has no persistent reservations")
        if can.kinds and Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY not in can.kinds:
            return handle, _cannot("it has no reservations of type 5")
        refuse_foreign(handle, before)
        if not claim.exclusive and not before.kind:
            return handle, ""
        took = replace(handle, key=_choose_key(claim, before), guard=claim.guard)
        noted = NotedClaim(took.key, took.guard, can.outlives_power, registered=False)
        self.known.note(took, noted)  # (1)
        for path in paths:  # (2)
            await self._register(path, noted)
        await self._confirm(claim, took, paths, noted)  # (3)
        text = await self._reserve(took, paths[0], exclusive=claim.exclusive)
        self.known.note(took, replace(noted, registered=True))  # (6)
        if not can.outlives_power:
            text += ", until its storage loses power"
        return took, text

    async def _take_again(
        self, claim: Claim | None, handle: LunHandle, noted: NotedClaim, paths: Sequence[Path]
    ) -> tuple[LunHandle, str]:
        took = replace(handle, key=noted.key, guard=noted.guard)
        if claim is not None and guarded(claim.key) != guarded(noted.key):
            text = f"it is reserved here by {show_key(noted.key)}, of an earlier attachment"
            raise Fenced("attach", handle.wwid, 0, text)
        for path in paths:
            # Changes nothing where the key stands, and conflicts where it does not.
            if not await self._exchange(path, noted, noted.key):
                raise _fenced(took, path)
        return took, f"key {show_key(noted.key)} is registered"

    async def _register(self, path: Path, noted: NotedClaim) -> None:
        if not await self.persistent.order(
            path, Order.REGISTER_AND_IGNORE, (0, noted.key), outlives_power=noted.outlives_power
        ):
            text = f"its storage refuses {show_key(noted.key)}"
            raise HostError("register", path.device, 0, text)

    async def _confirm(
        self, claim: Claim, took: LunHandle, paths: Sequence[Path], noted: NotedClaim
    ) -> None:
        why = await claim.confirm()
        if not why:
            return
        stands = await self.persistent.standing(paths[0])
        after = took.guard if stands.kind and stands.holder == took.key else 0
        for path in paths:
            await self._exchange(path, noted, after)
        self.known.forget(took)
        raise Withdrawn("reserve", took.wwid, 0, why)

    async def _exchange(self, path: Path, noted: NotedClaim, key: int) -> bool:
        """Without the word about power cuts an order would take it back, for everybody."""
        return await self.persistent.order(
            path, Order.REGISTER, (noted.key, key), outlives_power=noted.outlives_power
        )

    async def _reserve(self, took: LunHandle, path: Path, *, exclusive: bool) -> str:
        stands = await self.persistent.standing(path)
        for _ in range(_TRIES_MAX):
            others = {key for key in stands.keys if key != took.key}
            if took.key not in stands.keys:
                raise _fenced(took, path)
            if stands.kind in KEPT and (not exclusive or not others):
                by = f"reserved (type {stands.kind}) for {show_key(took.key)}"
                return f"{by}, guarded" if is_guarded(took.key) else by
            refuse_foreign(took, stands)
            if exclusive:
                for other in sorted(others):  # (4)
                    await remove_key(self.persistent, path, took.key, other)
            await self.persistent.order(path, Order.RESERVE, (took.key, 0))  # (5)
            stands = await self.persistent.standing(path)
        raise HostError(
            "reserve", path.device, 0, f"it does not stay reserved: {show_standing(stands)}"
        )

    async def check(self, handle: LunHandle, paths: Sequence[Path]) -> None:
        """That the key stands. Raises `Fenced`, and `HostError` when no path answers."""
        failure: HostError | None = None
        for path in paths:
            try:
                stands = await self.persistent.standing(path)
            except HostError as error:
                failure = error
                continue
            if handle.key not in stands.keys:
                raise _fenced(handle, path)
            return
        if failure is not None:
            raise failure

    async def is_fenced(self, handle: LunHandle, paths: Sequence[Path]) -> bool:
        """Whether the storage says that the key is gone; False while nobody can say."""
        if not handle.key:
            return False
        try:
            await self.check(handle, [path for path in paths if path.usable])
        except Fenced:
            return True
        except HostError:
            return False
        return False

    async def give_back(self, handle: LunHandle, paths: Sequence[Path]) -> str:
        """Register no more by these paths, of which nothing is written any more; what to tell."""
        noted = self.find(handle.iqn, handle.lun, handle.interface)
        if noted is None or noted.key != handle.key:
            return ""
        after = handle.guard if is_guarded(handle.key) else 0
        done = 0
        for path in paths:
            with contextlib.suppress(HostError):
                done += await self._exchange(path, noted, after)
        if not done:
            return f"key {show_key(handle.key)} may be left on the storage"
        return f"guarded by {show_key(after)}" if after else "no longer reserved"


def _choose_key(claim: Claim, before: Standing) -> int:
    """Guarded when the disk is, or when somebody else's key is removed from it."""
    marked = guarded(claim.key)
    others = any(key not in (claim.key, marked) for key in before.keys)
    return marked if others or marked in before.keys else claim.key


def refuse_foreign(handle: LunHandle, stands: Standing) -> None:
    """Raises `Reserved` for what volagent has not made."""
    foreign = [key for key in stands.keys if not is_ours(key)]
    if foreign or (stands.kind and stands.kind not in KEPT):
        raise Reserved("reserve", handle.wwid, 0, show_standing(stands))


def show_standing(stands: Standing) -> str:
    """What stands, in words."""
    keys = ", ".join(sorted({show_key(key) for key in stands.keys})) or "no key"
    by = f"type {stands.kind} by {show_key(stands.holder)}" if stands.kind else "no reservation"
    return f"{keys}; {by}"


def _fenced(handle: LunHandle, path: Path) -> Fenced:
    text = f"key {show_key(handle.key)} is not registered any more: this node was fenced"
    return Fenced("reservation", f"{path.device} ({handle.wwid})", 0, text)


def _cannot(why: str) -> str:
    return f"nobody can be kept out by the storage: {why}"
