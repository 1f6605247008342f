"""A node is kept out of a disk: what is removed, what stays, and what is no proof."""

import dataclasses

import pytest

from tests.simulation.fake_reservations import FakeDisk, FakeReservations, make_path
from volagent.host.errors import Busy, Unsupported
from volagent.host.iscsi.contract import Exclusion, LunHandle, LunWish, Reserved, Withdrawn
from volagent.host.iscsi.excluding import Excluder
from volagent.host.reservations import Kind, Order
from volagent.objects.reservation_keys import attachment_key, guard_key, guarded, show_key

WISH = LunWish("iqn.lab:a", 1, ("10.0.0.5:3260",))
KIND = Kind.WRITE_EXCLUSIVE_REGISTRANTS_ONLY
KEY = attachment_key("a1", "node01")
KEYS = (KEY, guarded(KEY), guard_key("node01"))
GUARD = guard_key("node02")
VICTIM = ("iqn.lab:node01,session1", "10.0.0.5:3260")


class FakeSessions:
    """Stands where `RealInitiator` does: each `reach` is a new session."""

    def __init__(self, disk):
        self.disk = disk
        self.persistent = FakeReservations(disk, "iqn.lab:node02")
        self.made = 0
        self.here = self.claimed = False
        self.stuck = False

    def is_present(self, _wish):
        return self.here

    def is_claimed(self, _handle):
        return self.claimed

    async def reach(self, _wish):
        self.made += not self.here
        return LunHandle("iqn.lab:a", 1, "naa.1"), [make_path(session=f"session{self.made}")]

    async def leave(self, _handle, paths):
        if self.stuck:
            raise Busy("delete", "/dev/sda", 16, "somebody uses it")
        self.disk.end_session(self.persistent.nexus(paths[0]))


@pytest.fixture
def disk():
    return FakeDisk()


@pytest.fixture
def sessions(disk):
    return FakeSessions(disk)


def attach_victim(disk, key=KEY):
    disk.order(VICTIM, Order.REGISTER_AND_IGNORE, (0, key), 0, kept=True)
    disk.order(VICTIM, Order.RESERVE, (key, 0), KIND, kept=True)


async def keep_out(sessions, **more):
    return await Excluder(sessions).keep_out(WISH, Exclusion(KEYS, GUARD, **more))


@pytest.mark.parametrize("key", [KEY, guarded(KEY)])
async def test_node_is_kept_out_with_what_it_had_under_way(disk, sessions, key):
    attach_victim(disk, key)
    text = await keep_out(sessions)
    assert not disk.may_write(VICTIM)
    assert disk.aborted == [key]
    assert disk.kept
    assert set(disk.keys.values()) == {GUARD}
    assert show_key(key) in text
    assert f"type 5 by {show_key(GUARD)}" in text
    assert sessions.made == 2  # asked again in another one


async def test_node_that_registered_nothing_is_kept_out_too(disk, sessions):
    text = await keep_out(sessions)
    assert not disk.may_write(VICTIM)
    assert disk.resets == 1
    assert "no key of the node" in text


async def test_keeping_out_again_changes_nothing_and_aborts_what_an_earlier_try_left(
    disk, sessions
):
    attach_victim(disk)
    await keep_out(sessions)
    before = dict(disk.keys)
    await keep_out(sessions)
    assert disk.keys == before
    assert disk.resets == 1


async def test_guards_do_not_add_up(disk, sessions):
    for node in ("node03", "node04"):
        nexus = (f"iqn.lab:{node},session1", "10.0.0.5:3260")
        disk.order(nexus, Order.REGISTER_AND_IGNORE, (0, guard_key(node)), 0, kept=True)
    attach_victim(disk)
    await keep_out(sessions)
    assert list(disk.keys.values()) == [GUARD]


async def test_guard_of_the_node_itself_is_no_protection_from_it(disk, sessions):
    attach_victim(disk, guard_key("node01"))
    await keep_out(sessions)
    assert not disk.may_write(VICTIM)


async def test_target_that_forgets_with_its_session_gives_no_proof(disk, sessions):
    disk.forgets_sessions = True
    attach_victim(disk)
    with pytest.raises(Unsupported, match="forgot"):
        await keep_out(sessions)


async def test_disk_that_stays_to_be_seen_is_told(disk, sessions):
    attach_victim(disk)
    sessions.stuck = True
    assert "still to be seen on this node" in await keep_out(sessions)


async def test_storage_without_reservations_gives_no_proof(disk, sessions):
    disk.supported = False
    with pytest.raises(Unsupported):
        await keep_out(sessions)


async def test_strangers_are_left_alone(disk, sessions):
    attach_victim(disk, 0xABC)
    with pytest.raises(Reserved):
        await keep_out(sessions)
    assert disk.may_write(VICTIM)
    assert sessions.persistent.nexus(make_path()) not in disk.keys


async def test_disk_that_this_node_has_itself_is_not_taken_from_it(disk, sessions):
    sessions.here = sessions.claimed = True
    with pytest.raises(Busy, match="itself"):
        await keep_out(sessions)


async def test_session_in_use_keeps_the_key_that_it_has(disk, sessions):
    attach_victim(disk)
    sessions.here = True
    nexus = sessions.persistent.nexus(make_path(session="session0"))
    mine = attachment_key("s1", "node02")
    disk.order(nexus, Order.REGISTER_AND_IGNORE, (0, mine), 0, kept=True)
    with pytest.raises(Busy, match="another key"):
        await keep_out(sessions)
    assert disk.keys[nexus] == mine


async def test_nobody_is_removed_for_an_order_that_is_withdrawn(disk, sessions):
    attach_victim(disk)

    async def refuse():
        assert GUARD in disk.keys.values()
        return "it is not wanted any more"

    with pytest.raises(Withdrawn, match="not wanted"):
        await keep_out(sessions, confirm=refuse)
    assert disk.may_write(VICTIM)
    assert list(disk.keys.values()) == [KEY]


async def test_order_that_comes_late_does_not_hit_the_next_owner(disk, sessions):
    """It froze after it was confirmed; meanwhile the disk went to another node."""
    attach_victim(disk)
    owner, key = ("iqn.lab:node03,session1", "10.0.0.5:3260"), attachment_key("a2", "node03")

    async def freeze():
        if owner in disk.keys:
            return "it is not wanted any more"
        disk.order(owner, Order.REGISTER_AND_IGNORE, (0, key), 0, kept=True)
        for other in (KEY, GUARD):
            disk.order(owner, Order.PREEMPT_AND_ABORT, (key, other), KIND, kept=True)
        return ""

    with pytest.raises(Withdrawn):
        await keep_out(sessions, confirm=freeze)
    assert list(disk.keys.values()) == [key]


def test_exclusions_are_equal_whoever_is_asked_again():
    async def ask():
        return ""

    exclusion = Exclusion(KEYS, GUARD)
    assert dataclasses.replace(exclusion, confirm=ask) == exclusion
