"""Which key stands on a disk, for whom, and what a node does that finds its own gone."""

import asyncio
import random

import pytest

from tests.simulation.fake_reservations import FakeDisk, FakeReservations, make_path
from volagent.host.errors import HostError
from volagent.host.iscsi.claims import Claims
from volagent.host.iscsi.contract import Claim, Fenced, LunHandle, Reserved, Withdrawn, always
from volagent.host.iscsi.known import KnownClaims
from volagent.host.reservations import Order
from volagent.objects.reservation_keys import (
    attachment_key,
    guard_key,
    guarded,
    is_guard,
    is_ours,
)

HANDLE = LunHandle("iqn.lab:a", 1, "naa.1")
PATHS = (make_path(), make_path("10.0.1.5:3260", session="session2"))


class Node:
    """A machine that has a disk, or wants it."""

    def __init__(self, disk, directory, name, chance=None):
        self.name = name
        self.disk = disk
        self.reservations = FakeReservations(disk, f"iqn.lab:{name}", chance)
        self.claims = Claims(self.reservations, KnownClaims(f"{directory}/{name}"))
        self.handle = HANDLE

    def claim(self, uid, *, exclusive=True, confirm=always):
        key, guard = attachment_key(uid, self.name), guard_key(self.name)
        return Claim(key, guard, exclusive=exclusive, confirm=confirm)

    async def take(self, uid, paths=PATHS, **more):
        self.handle, text = await self.claims.take(self.claim(uid, **more), HANDLE, paths)
        return text

    async def give_back(self, paths=PATHS):
        text = await self.claims.give_back(self.handle, paths)
        self.claims.known.forget(self.handle)
        return text

    def drop(self):
        """What a node does with a disk that it was fenced from."""
        self.claims.known.forget(self.handle)

    def may_write(self):
        return all(self.disk.may_write(self.reservations.nexus(path)) for path in PATHS)


@pytest.fixture
def disk():
    return FakeDisk()


@pytest.fixture
def one(disk, tmp_path):
    return Node(disk, tmp_path, "node01")


@pytest.fixture
def two(disk, tmp_path):
    return Node(disk, tmp_path, "node02")


async def test_disk_is_written_by_every_path_and_by_nobody_else(disk, one, two):
    text = await one.take("a1")
    assert "reserved (type 5)" in text
    assert len(disk.keys) == 2
    assert disk.kept
    assert one.may_write()
    assert not two.may_write()


async def test_disk_is_open_again_when_nobody_was_kept_out(disk, one, two):
    await one.take("a1")
    assert await one.give_back() == "no longer reserved"
    assert not disk.keys
    assert two.may_write()


async def test_next_node_removes_whoever_is_left_and_stays_on_guard_when_it_gives_back(
    disk, one, two
):
    await one.take("a1")
    text = await two.take("a2")
    assert text.endswith("guarded")
    assert set(disk.keys.values()) == {two.handle.key}
    assert disk.aborted == [one.handle.key]
    assert not one.may_write()
    assert "guarded by" in await two.give_back()
    assert all(map(is_guard, disk.keys.values()))
    assert not one.may_write()
    one.drop()
    await one.take("a3")
    assert set(disk.keys.values()) == {guarded(attachment_key("a3", "node01"))}


async def test_guard_is_not_forgotten_by_a_machine_that_boots_anew(disk, one, two, tmp_path):
    await one.take("a1")
    await two.take("a2")
    reborn = Node(disk, tmp_path / "again", "node02")
    paths = [make_path(session="session7")]
    await reborn.take("a2", paths)
    assert set(disk.keys.values()) == {guarded(attachment_key("a2", "node02"))}
    assert "guarded by" in await reborn.give_back(paths)


async def test_missing_key_is_never_registered_again(disk, one, two):
    await one.take("a1")
    await two.take("a2")
    before = dict(disk.keys)
    for _ in range(2):
        with pytest.raises(Fenced, match="was fenced"):
            await one.take("a1")
    with pytest.raises(Fenced):
        await one.claims.check(one.handle, PATHS)
    assert disk.keys == before
    assert await one.claims.is_fenced(one.handle, PATHS)


async def test_disk_that_is_held_for_an_earlier_attachment_is_not_taken_for_the_next(one):
    await one.take("a1")
    with pytest.raises(Fenced, match="earlier attachment"):
        await one.take("a3")


async def test_storage_that_forgot_everything_counts_as_a_fence(disk, one):
    disk.persists = False
    assert "until its storage loses power" in await one.take("a1")
    disk.cut_power()
    assert await one.claims.is_fenced(one.handle, PATHS)


async def test_reservation_outlives_power_also_after_it_was_looked_at_and_given_back(
    disk, one, two
):
    await two.take("a0")
    two.drop()
    await one.take("a1")
    await one.take("a1")
    disk.cut_power()
    assert one.may_write()
    assert not two.may_write()
    await one.give_back()
    disk.cut_power()
    assert not two.may_write()


async def test_nobody_is_fenced_while_the_storage_does_not_answer(one):
    await one.take("a1")
    one.reservations.silent = {path.session.portal for path in PATHS}
    assert not await one.claims.is_fenced(one.handle, PATHS)
    with pytest.raises(HostError):
        await one.claims.check(one.handle, PATHS)


async def test_somebody_elses_reservation_is_left_alone(disk, one):
    stranger = ("iqn.lab:stranger,1", "10.0.0.5:3260")
    disk.order(stranger, Order.REGISTER_AND_IGNORE, (0, 0xABC), 0, kept=False)
    before = dict(disk.keys)
    with pytest.raises(Reserved, match="0x0000000000000abc"):
        await one.take("a1")
    assert disk.keys == before


async def test_key_is_taken_back_when_the_permission_is_gone_meanwhile(disk, one, two):
    await two.take("a2")
    before = dict(disk.keys)

    async def refuse():
        assert len(disk.keys) == 4
        return "it was withdrawn"

    with pytest.raises(Withdrawn, match="withdrawn"):
        await one.take("a1", confirm=refuse)
    assert disk.keys == before
    assert not disk.aborted
    two.drop()
    with pytest.raises(Withdrawn):
        await two.take("a3", confirm=refuse_quietly)
    assert all(map(is_guard, disk.keys.values()))  # it held the reservation, and nobody is let in


async def refuse_quietly():
    return "it was withdrawn"


async def test_storage_without_reservations_is_told(disk, one):
    disk.supported = False
    assert "nobody can be kept out" in await one.take("a1")
    assert one.handle.key == 0
    assert await one.give_back() == ""


async def test_node_that_shares_a_disk_joins_a_reservation_and_makes_none(disk, one, two):
    assert await one.take("s1", exclusive=False) == ""
    assert not disk.keys
    await two.take("a2")
    await one.take("s1", exclusive=False)
    assert one.may_write()
    assert two.may_write()


async def test_disk_that_cannot_abort_is_reset_after_the_key_is_removed(disk, one, two):
    disk.aborts = False
    await one.take("a1")
    await two.take("a2")
    assert set(disk.keys.values()) == {two.handle.key}
    assert disk.resets == 1


async def test_taking_converges_when_it_is_interrupted_anywhere(tmp_path):
    for moment in range(1, 12):
        disk = FakeDisk()
        old, new = (Node(disk, tmp_path / str(moment), name) for name in ("node01", "node02"))
        await old.take("a1")
        left = moment

        def pass_moment():
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt

        new.reservations.on_order = pass_moment
        try:
            await new.take("a2")
        except KeyboardInterrupt:
            new.reservations.on_order = lambda: None
            await new.take("a2")
        assert new.may_write()
        assert not old.may_write()
        assert set(disk.keys.values()) == {guarded(attachment_key("a2", "node02"))}


@pytest.mark.parametrize("seed", range(200))
async def test_no_write_of_the_old_node_comes_after_the_first_of_the_new_one(tmp_path, seed):
    """The old node may be frozen anywhere: before it registers, or around its look at its
    permission, which was withdrawn before anybody sought to take the disk from it. The new one,
    once it has the disk, keeps it."""
    chance = random.Random(seed)
    disk = FakeDisk()
    old, new = (Node(disk, tmp_path, name, chance) for name in ("node01", "node02"))
    permitted, written = True, []

    async def confirm():
        said = "" if permitted else "it was withdrawn"
        await freeze(60)
        return said

    def write(node):
        if node.may_write():
            written.append(node.name)

    async def live_old():
        await freeze(40)
        try:
            await old.take("a1", confirm=confirm)
        except HostError:
            return
        for _ in range(30):
            await freeze(3)
            write(old)

    async def move():
        nonlocal permitted
        await freeze(60)
        permitted = False
        while True:
            try:
                await new.take("a2")
            except HostError:
                continue  # fenced by the old node, in the middle of it
            break
        for _ in range(30):
            await freeze(3)
            write(new)

    async def freeze(longest):
        for _ in range(chance.randrange(longest)):
            await asyncio.sleep(0)

    await asyncio.gather(live_old(), move())
    first = written.index("node02")
    assert "node01" not in written[first:]
    assert written.count("node02") == 30
    assert all(map(is_ours, disk.keys.values()))
