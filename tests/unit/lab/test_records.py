"""The judge of the writer test finds every way in which two nodes can meet on a disk."""

import zlib

import pytest

from tests.cluster.lab.records import (
    RECORD_BYTES,
    Record,
    find_faults,
    read_acknowledged,
    read_records,
    read_refused,
)


def block(number: int, writer: str) -> bytes:
    head = f"volagent record {number} {writer} ".encode()
    body = head + b"x" * (RECORD_BYTES - 9 - len(head))
    return body + b"%08x\n" % zlib.crc32(body)


def disk(*writers: str) -> bytes:
    return b"".join(block(number, writer) for number, writer in enumerate(writers)) + bytes(1 << 14)


def judge(image: bytes, acknowledged: dict[str, list[int]]) -> list[str]:
    return find_faults(read_records(image), acknowledged, ("one", "two"))


def test_records_are_read_up_to_the_blank_end():
    assert read_records(disk("one", "two")) == [Record(0, "one"), Record(1, "two")]
    assert read_records(bytes(1 << 14)) == []


def test_nothing_is_wrong_when_one_goes_on_after_the_other():
    image = disk("one", "one", "two", "two")
    assert judge(image, {"one": [0, 1], "two": [2, 3]}) == []


def test_what_was_not_acknowledged_may_be_there_or_not():
    assert judge(disk("one", "one", "two"), {"one": [0], "two": [2]}) == []


@pytest.mark.parametrize(
    ("image", "acknowledged", "fault"),
    [
        (disk("one", "two"), {"one": [0, 1], "two": [1]}, "acknowledged to one are lost, first 1"),
        (disk("one", "one"), {"one": [0, 1], "two": [1]}, "acknowledged to two are lost, first 1"),
        (disk("one"), {"one": [0, 1]}, "acknowledged to one are lost, first 1"),
        (disk("one", "two", "one"), {}, "record 2 of one stands after those of its successor"),
        (disk("one", "three"), {}, "record 1 is of three"),
        (block(0, "one") + b"\1" * RECORD_BYTES + block(2, "two"), {}, "place 1 holds something"),
        (block(0, "one") + bytes(RECORD_BYTES) + block(2, "two"), {}, "place 1 holds something"),
        (block(0, "one") + block(5, "one"), {}, "place 1 holds record 5"),
    ],
)
def test_two_writers_are_found(image, acknowledged, fault):
    assert any(fault in each for each in judge(image, acknowledged))


def test_consoles_are_read_among_other_lines():
    console = "boot\r\n+one 0\r\n+one 1\r\nkernel: sda\r\n-one 2 52\r\n-one 2 5\r\n+two 2\r\n+tw"
    assert read_acknowledged(console) == {"one": [0, 1], "two": [2]}
    assert read_refused(console) == {"one": {52, 5}}
