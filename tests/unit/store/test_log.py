"""The change log and the bell."""

import asyncio

import pytest

from volagent.store.contract import Change, Compacted, Stored
from volagent.store.log import Bell, ChangeLog


def change(revision, key="/things/a", previous=None):
    return Change(key, revision, previous, Stored(key, b"x" * 100, revision, revision))


def filled(*revisions):
    log = ChangeLog(floor=10)
    for revision in revisions:
        log.append(change(revision))
    return log


def test_log_is_read_from_any_revision_it_remembers():
    log = filled(11, 15, 20)

    for after, expected in ((10, [11, 15, 20]), (11, [15, 20]), (14, [15, 20]), (20, []), (99, [])):
        found = [each.revision for each in log.read(log.position_after(after))]
        assert found == expected, after
    with pytest.raises(Compacted):
        log.position_after(9)


def test_log_refuses_positions_and_revisions_that_it_dropped():
    log = filled(11, 15, 20)
    position = log.position_after(11)
    log.drop(1)
    assert [each.revision for each in log.read(position)] == [15, 20]

    log.drop(1)

    with pytest.raises(Compacted):
        log.read(position)
    with pytest.raises(Compacted):
        log.position_after(14)
    assert [each.revision for each in log.read(log.position_after(15))] == [20]


def test_log_knows_its_size():
    log = filled(11, 15, 20)
    assert log.size_bytes > 300

    log.drop(3)

    assert (len(log), log.size_bytes) == (0, 0)


def test_log_undoes_changes_back_to_a_revision():
    log = ChangeLog(floor=0)
    first = change(1)
    log.append(first)
    log.append(change(2, previous=first.current))
    log.append(Change("/things/a", 3, log.read(1)[0].current, None))
    log.append(change(4, key="/things/b"))

    assert log.undo_to(1) == {"/things/a": first.current, "/things/b": None}
    assert log.undo_to(3) == {"/things/b": None}
    assert log.undo_to(0)["/things/a"] is None


async def test_bell_wakes_all_who_wait_and_nobody_who_left():
    bell = Bell()
    waiting = [asyncio.ensure_future(bell.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait([waiting[1]])

    bell.ring()

    assert await waiting[0] is True
    assert await waiting[2] is True
    assert await bell.wait(0.0) is False
    bell.ring()
