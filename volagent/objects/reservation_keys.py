"""The keys of persistent reservations: who is who on a disk, in 64 bits each. Pure.

    0x7661 (16 bits: "va")   digest (47 bits)   guarded (1 bit)   of one attachment of one node
    0x7647 (16 bits: "vG")   digest (48 bits)                     of a guard

A node registers its attachment's key and nothing else. Whoever fences does it under the *guard* of
the node it runs on, and a disk that was ever taken by force from a node that had said nothing stays
reserved from then on, also while no node has it: by a guard. That a disk is such a one is told by
the storage alone, since it outlives everybody: a guard is registered, or a guarded key is.
"""

import hashlib
from typing import Final

_ATTACHMENT: Final = 0x7661 << 48
_GUARD: Final = 0x7647 << 48
_MARK: Final = 0xFFFF << 48
_DIGEST: Final = (1 << 48) - 1
_GUARDED: Final = 1


def attachment_key(attachment_uid: str, node: str) -> int:
    """Of a node that has a disk by the VolumeAttachment of that uid; not guarded."""
    return _ATTACHMENT | (_digest(f"{attachment_uid}\0{node}") & ~_GUARDED)


def guard_key(node: str) -> int:
    """What a node registers to keep others out."""
    return _GUARD | _digest(node)


def guarded(key: int) -> int:
    """An attachment's key on a disk that was taken by force once."""
    return key | _GUARDED


def is_guarded(key: int) -> bool:
    """Whether an attachment's key says so."""
    return key & _MARK == _ATTACHMENT and bool(key & _GUARDED)


def is_attachment(key: int) -> bool:
    """Whether it is the key of a node that has the disk."""
    return key & _MARK == _ATTACHMENT


def is_guard(key: int) -> bool:
    """Whether it is a key that only keeps others out."""
    return key & _MARK == _GUARD


def is_ours(key: int) -> bool:
    """Whether a key is of volagent at all."""
    return is_attachment(key) or is_guard(key)


def show_key(key: int) -> str:
    """As `sg_persist` shows it."""
    return f"{key:#018x}"


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") & _DIGEST
