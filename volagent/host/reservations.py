"""Persistent reservations of a scsi disk: PERSISTENT RESERVE IN and OUT by ioctl.

The wire format, and one function for each command. A unit attention only says that something has
happened (a reservation was preempted, a power cut), so the command is sent again. A RESERVATION
CONFLICT is an answer, not an error: this nexus has not the key that it says. Each may hang with a
sick disk: not for the daemon. Needs CAP_SYS_RAWIO.
Sources: SPC-4 5.13, 6.15 and 6.16; the nexus is the session that the disk is seen by.
"""

import enum
import errno
from dataclasses import dataclass
from typing import Final

from volagent.host import scsi
from volagent.host.errors import HostError, Unsupported

KEY_BYTES: Final = 8
_IN: Final = 0x5E
_OUT: Final = 0x5F
_PARAMETERS_BYTES: Final = 24
_ANSWER_BYTES: Final = 8192
_TRIES_MAX: Final = 8
_CONFLICT: Final = 0x18
_CHECK: Final = 0x02
_BUSY: Final = (0x08, 0x28)
_ATTENTION: Final = 0x06
_ILLEGAL: Final = 0x05
_UNKNOWN_COMMAND: Final = (0x20, 0x24)
_APTPL: Final = 1
_CALL: Final = "persistent reserve"


class Query(enum.IntEnum):
    """Service actions of PERSISTENT RESERVE IN."""

    KEYS = 0
    RESERVATION = 1
    CAPABILITIES = 2
    FULL_STATUS = 3


class Order(enum.IntEnum):
    """Service actions of PERSISTENT RESERVE OUT."""

    REGISTER = 0
    """Exchange this nexus' key for another; from 0: it has none yet, to 0: it shall have none."""
    RESERVE = 1
    RELEASE = 2
    PREEMPT = 4
    PREEMPT_AND_ABORT = 5
    REGISTER_AND_IGNORE = 6
    """Whatever key this nexus has, it has another now."""


class Kind(enum.IntEnum):
    """Types of a reservation that keep nodes apart by their registration."""

    NONE = 0
    WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 5
    """Who is not registered reads, and does not write."""
    EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 6
    """Who is not registered does neither."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is registered and reserved on a disk, at one moment."""

    generation: int
    keys: tuple[int, ...]
    """One for each nexus."""
    holder: int = 0
    """The key that the reservation was made with, when `kind` is not 0."""
    kind: int = 0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a disk can do."""

    outlives_power: bool
    """Registrations and reservations may be told to survive a power cut of the storage (APTPL)."""
    kinds: tuple[int, ...]
    """The types of reservations, when the disk tells; else none."""


@dataclass(frozen=True, slots=True)
class Registrant:
    """A nexus with a key."""

    key: int
    holds: bool
    kind: int
    port: int
    """The target's port, by its relative number."""
    initiator: str
    """As the transport names it, with the session's id."""


def encode_order(order: Order, kind: int) -> bytes:
    """The command of PERSISTENT RESERVE OUT."""
    size = _PARAMETERS_BYTES.to_bytes(4, "big")
    return bytes((_OUT, order, kind, 0, 0)) + size + b"\0"


def encode_parameters(key: int, other: int, *, outlives_power: bool) -> bytes:
    """Its parameters: this nexus' key, and the key that the order is about."""
    flags = _APTPL if outlives_power else 0
    keys = key.to_bytes(KEY_BYTES, "big") + other.to_bytes(KEY_BYTES, "big")
    return (keys + bytes((0, 0, 0, 0, flags))).ljust(_PARAMETERS_BYTES, b"\0")


def encode_query(query: Query) -> bytes:
    """The command of PERSISTENT RESERVE IN."""
    size = _ANSWER_BYTES.to_bytes(2, "big")
    return bytes((_IN, query, 0, 0, 0, 0, 0)) + size + b"\0"


def read_keys(answer: bytes) -> tuple[int, tuple[int, ...]]:
    """The generation, and the key of each nexus."""
    end = min(len(answer), 8 + _number(answer[4:8]))
    places = range(8, end - KEY_BYTES + 1, KEY_BYTES)
    return _number(answer[:4]), tuple(_number(answer[at : at + KEY_BYTES]) for at in places)


def read_reservation(answer: bytes) -> tuple[int, int, int]:
    """The generation, and the holder's key and the type of the reservation; zeroes for none."""
    generation = _number(answer[:4])
    if _number(answer[4:8]) < 16 or len(answer) < 24:
        return generation, 0, 0
    return generation, _number(answer[8:16]), answer[21] & 0xF


def read_capabilities(answer: bytes) -> Capabilities:
    """What the disk can do."""
    if len(answer) < 6:
        return Capabilities(outlives_power=False, kinds=())
    mask = (answer[4], answer[5]) if answer[3] & 0x80 else (0, 0)
    bits = {1: (0, 0x02), 3: (0, 0x08), 5: (0, 0x20), 6: (0, 0x40), 7: (0, 0x80), 8: (1, 0x01)}
    kinds = tuple(kind for kind, (byte, bit) in bits.items() if mask[byte] & bit)
    return Capabilities(bool(answer[2] & 0x01), kinds)


def read_full_status(answer: bytes) -> tuple[Registrant, ...]:
    """Each nexus that is registered."""
    end = min(len(answer), 8 + _number(answer[4:8]))
    found = []
    at = 8
    while at + 24 <= end:
        holds = bool(answer[at + 12] & 0x01)
        length = _number(answer[at + 20 : at + 24])
        name = _read_transport(answer[at + 24 : at + 24 + length])
        port = _number(answer[at + 18 : at + 20])
        kind = answer[at + 13] & 0xF if holds else 0
        found.append(Registrant(_number(answer[at : at + 8]), holds, kind, port, name))
        at += 24 + length
    return tuple(found)


def _read_transport(name: bytes) -> str:
    """The name of an iSCSI initiator (SPC-4 7.6.4.6), else in hexadecimal."""
    if len(name) > 4 and name[0] & 0xF == 5:
        return name[4:].rstrip(b"\0").decode(errors="replace")
    return name.hex()


def _number(digits: bytes) -> int:
    return int.from_bytes(digits, "big")


# -- to the disk -------------------------------------------------------------------------------


def give_order(
    path: str, order: Order, kind: int, keys: tuple[int, int], *, outlives_power: bool = False
) -> bool:
    """Carry an order out on the disk at a path; False when it conflicts with what stands.

    `keys` as in `encode_parameters`. Raises `Absent`, `Unsupported`, `HostError`.
    """
    parameters = encode_parameters(*keys, outlives_power=outlives_power)
    return _send(path, encode_order(order, kind), parameters=parameters).status != _CONFLICT


def fetch_capabilities(path: str) -> Capabilities:
    """What the disk at a path can do. Raises `Absent`, `Unsupported`, `HostError`."""
    return read_capabilities(_ask(path, Query.CAPABILITIES))


def fetch_standing(path: str) -> Standing:
    """What is registered and reserved. Raises `Absent`, `Unsupported`, `HostError`."""
    for _ in range(_TRIES_MAX):
        before, keys = read_keys(_ask(path, Query.KEYS))
        after, holder, kind = read_reservation(_ask(path, Query.RESERVATION))
        if before == after:
            return Standing(before, keys, holder, kind)
    raise HostError(_CALL, path, errno.EAGAIN, "it changes all the time")


def fetch_registrants(path: str) -> tuple[Registrant, ...]:
    """Who is registered, one by one. Raises `Absent`, `Unsupported`, `HostError`."""
    return read_full_status(_ask(path, Query.FULL_STATUS))


def _ask(path: str, query: Query) -> bytes:
    answer = _send(path, encode_query(query), answer_bytes=_ANSWER_BYTES)
    if answer.status == _CONFLICT:
        raise HostError(_CALL, path, errno.EBUSY, "it is reserved by RESERVE(6)")
    return answer.data


def _send(
    path: str, command: bytes, *, answer_bytes: int = 0, parameters: bytes = b""
) -> scsi.Answer:
    """The answer: done, or a conflict."""
    answer = scsi.Answer(0, (0, 0, 0))
    with scsi.opened(path) as fd:
        for _ in range(_TRIES_MAX):
            try:
                answer = scsi.send(fd, command, answer_bytes=answer_bytes, payload=parameters)
            except OSError as error:
                raise HostError(_CALL, path, error.errno or 0) from error
            if answer.status in (0, _CONFLICT):
                return answer
            key, code, _qualifier = answer.sense
            if answer.status == _CHECK and key == _ILLEGAL and code in _UNKNOWN_COMMAND:
                raise Unsupported(_CALL, path, errno.EOPNOTSUPP, "the disk does not know it")
            if not (answer.status == _CHECK and key == _ATTENTION):
                break
    if answer.status in _BUSY:
        raise HostError(_CALL, path, errno.EAGAIN, "the disk is busy")
    sense = "/".join(f"{each:02x}" for each in answer.sense)
    raise HostError(_CALL, path, errno.EIO, f"status {answer.status:#04x}, sense {sense}")
