"""What a fanotify group of mount marks reads."""

import struct

import pytest

from volagent.host import libc
from volagent.host.mountwatch import parse_events


def event(mask, mount_id):
    return struct.pack("=IBBHQiiBBH4xQ", 40, 3, 0, 24, mask, -1, 0, 7, 0, 16, mount_id)


def overflow():
    return struct.pack("=IBBHQii", 24, 3, 0, 24, libc.FAN_Q_OVERFLOW, -1, 0)


def test_events_are_read_in_their_order():
    data = event(libc.FAN_MNT_ATTACH, 1 << 40) + event(libc.FAN_MNT_DETACH, 7)
    assert list(parse_events(data)) == [(libc.FAN_MNT_ATTACH, 1 << 40), (libc.FAN_MNT_DETACH, 7)]


def test_overflow_has_no_mount():
    data = event(libc.FAN_MNT_ATTACH, 5) + overflow()
    assert list(parse_events(data)) == [(libc.FAN_MNT_ATTACH, 5), (libc.FAN_Q_OVERFLOW, None)]


def test_unknown_records_are_stepped_over():
    longer = struct.pack("=IBBHQiiBBHQ", 36, 3, 0, 24, libc.FAN_MNT_ATTACH, -1, 0, 99, 0, 12, 8)
    assert list(parse_events(longer + event(libc.FAN_MNT_ATTACH, 5))) == [
        (libc.FAN_MNT_ATTACH, None),
        (libc.FAN_MNT_ATTACH, 5),
    ]


def test_nothing_is_read_from_nothing():
    assert list(parse_events(b"")) == []


@pytest.mark.parametrize("size", [40])
def test_event_is_as_long_as_the_kernel_makes_it(size):
    assert len(event(libc.FAN_MNT_ATTACH, 1)) == size
