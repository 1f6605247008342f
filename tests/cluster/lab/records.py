"""What the writers of `guest/writer.c` left on a disk, judged: one writer at every moment.

Each writer goes on after the last record that it finds, so a disk that has moved from node to node
holds the records of the first, then those of the second, and so on. A node that still wrote when
the next one had begun shows: its records stand after the first of its successor, or in place of
some that were acknowledged to the successor. Pure.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RECORD_BYTES = 4096
_SUM_BYTES = 9
_HEAD = re.compile(rb"volagent record (\d+) (\S+) ")
_ACKNOWLEDGED = re.compile(r"^\+(\S+) (\d+)\r?$", re.M)
_REFUSED = re.compile(r"^-(\S+) (\d+) (\d+)\r?$", re.M)


@dataclass(frozen=True, slots=True)
class Record:
    """One good record."""

    number: int
    writer: str


def read_records(image: bytes) -> list[Record | None]:
    """What stands in each place, None for what is no good record; without the blank end."""
    found: list[Record | None] = []
    for start in range(0, len(image) - RECORD_BYTES + 1, RECORD_BYTES):
        block = image[start : start + RECORD_BYTES]
        found.append(_read_record(block) if any(block) else None)
    while found and found[-1] is None and not any(_block(image, len(found) - 1)):
        found.pop()
    return found


def _block(image: bytes, number: int) -> bytes:
    return image[number * RECORD_BYTES : (number + 1) * RECORD_BYTES]


def _read_record(block: bytes) -> Record | None:
    head = _HEAD.match(block)
    total = b"%08x" % zlib.crc32(block[:-_SUM_BYTES])
    if head is None or block[-_SUM_BYTES:-1] != total:
        return None
    return Record(int(head[1]), head[2].decode())


def read_acknowledged(console: str) -> dict[str, list[int]]:
    """The numbers that each writer was told are durable, from what machines' consoles show."""
    found: dict[str, list[int]] = {}
    for writer, number in _ACKNOWLEDGED.findall(console):
        found.setdefault(writer, []).append(int(number))
    return found


def read_refused(console: str) -> dict[str, set[int]]:
    """The errnos that each writer saw."""
    found: dict[str, set[int]] = {}
    for writer, _, code in _REFUSED.findall(console):
        found.setdefault(writer, set()).add(int(code))
    return found


def find_faults(
    records: Sequence[Record | None],
    acknowledged: Mapping[str, Sequence[int]],
    writers: Sequence[str],
) -> list[str]:
    """What is wrong with a disk that was written by these, in this order; empty: nothing."""
    faults = [
        f"place {place} holds {f'record {record.number}' if record else 'something torn'}"
        for place, record in enumerate(records)
        if record is None or record.number != place
    ]
    order = {writer: turn for turn, writer in enumerate(writers)}
    turn = 0
    for place, record in enumerate(records):
        if record is None:
            continue
        if record.writer not in order:
            faults.append(f"record {place} is of {record.writer}, who should not write")
        elif order[record.writer] < turn:
            faults.append(f"record {place} of {record.writer} stands after those of its successor")
        else:
            turn = order[record.writer]
    for writer, numbers in acknowledged.items():
        lost = [
            number
            for number in numbers
            if number >= len(records) or records[number] != Record(number, writer)
        ]
        if lost:
            faults.append(f"{len(lost)} records acknowledged to {writer} are lost, first {lost[0]}")
    return faults
