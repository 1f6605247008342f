"""The well-kept tools for file systems: how they are called and what their answers mean. Pure.

Formatting is never forced, but mkfs is not relied upon to refuse: without a terminal, mke2fs
overwrites whatever it finds. What is on a device is judged before (`devices.py`). Sources:
mke2fs(8), mkfs.xfs(8), mkfs.btrfs(8), e2fsck(8), blkid(8), and the tools' own behaviour.
"""

import errno
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from volagent.host.contract import CheckReport, Signature
from volagent.host.errors import Busy, HostError, Unsupported

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Maker:
    """How one kind of file system is made."""

    argv: tuple[str, ...]
    package: str
    """Debian's package with the tools."""
    size_bytes_min: int


MAKERS: Final = {
    # -m 0: nothing reserved for root, who does not work on a volume; no -F: nothing is forced.
    "ext4": Maker(("mkfs.ext4", "-q", "-m", "0"), "e2fsprogs", 4 * _MIB),
    "xfs": Maker(("mkfs.xfs", "-q"), "xfsprogs", 300 * _MIB),
    "btrfs": Maker(("mkfs.btrfs", "-q"), "btrfs-progs", 114_294_784),
}

_BLKID_NOTHING: Final = 2
_BLKID_AMBIVALENT: Final = 8
_FSCK_CORRECTED: Final = 1 | 2
_FSCK_NOT_CORRECTED: Final = 4
_EXT_FAMILY: Final = ("ext2", "ext3", "ext4")


def find_maker(fs_type: str, device: str, size_bytes: int) -> Maker:
    """How to format; raises `Unsupported` for another type, `HostError` for too small a device."""
    maker = MAKERS.get(fs_type)
    if maker is None:
        detail = f"volagent formats {', '.join(MAKERS)}, not {fs_type!r}"
        raise Unsupported("mkfs", device, errno.EOPNOTSUPP, detail)
    if size_bytes < maker.size_bytes_min:
        need, have = -(-maker.size_bytes_min // _MIB), size_bytes // _MIB
        detail = f"{fs_type} needs at least {need} MiB, the device has {have} MiB"
        raise HostError(maker.argv[0], device, errno.ENOSPC, detail)
    return maker


def blkid_command(device: str) -> tuple[str, ...]:
    """Low-level probing: superblocks and partition tables, no cache."""
    return ("blkid", "-p", "-o", "export", "--", device)


def read_blkid(device: str, status: int, stdout: bytes, complaint: str) -> Signature | None:
    """What blkid found, or None when it found nothing: then the caller still has to look itself.

    Raises `HostError` when blkid could not tell.
    """
    if status == _BLKID_NOTHING and not complaint:
        return None
    if status == _BLKID_AMBIVALENT:
        return read_facts(None)
    if status != 0:
        raise HostError("blkid", device, 0, complaint or f"exit status {status}")
    lines = stdout.decode(errors="replace").splitlines()
    return read_facts(dict(line.split("=", 1) for line in lines if "=" in line))


def read_facts(facts: Mapping[str, str] | None) -> Signature | None:
    """As `read_blkid`, of the facts by blkid's names; None stands for several signatures."""
    if facts is None:
        return Signature(blank=False, found="several signatures at once")
    kind, usage, table = facts.get("TYPE", ""), facts.get("USAGE", ""), facts.get("PTTYPE", "")
    uuid, label = facts.get("UUID", ""), facts.get("LABEL", "")
    if kind and usage == "filesystem":
        return Signature(blank=False, fs_type=kind, uuid=uuid, label=label)
    if kind:
        return Signature(blank=False, found=f"{kind} ({usage or 'unknown use'})", uuid=uuid)
    if table:
        return Signature(blank=False, found=f"a partition table ({table})")
    return None  # a partition of which only the table's own entry is known


def check_command(fs_type: str, device: str) -> tuple[str, ...] | None:
    """How to check before mounting; None where mounting itself does what is safe to do.

    xfs and btrfs replay their logs when mounted, and their repair tools are not for routine use.
    """
    return ("e2fsck", "-p", device) if fs_type in _EXT_FAMILY else None


def read_check(device: str, status: int, complaint: str) -> CheckReport:
    """What the exit status of e2fsck -p means. Raises `Busy`, `HostError`."""
    if status == 0:
        return CheckReport(clean=True, detail="clean")
    if status > 0 and not status & ~_FSCK_CORRECTED:
        return CheckReport(clean=True, repaired=True, detail=complaint)
    if status & _FSCK_NOT_CORRECTED and status > 0:
        return CheckReport(clean=False, detail=complaint)
    if "is mounted" in complaint or "is in use" in complaint:
        raise Busy("e2fsck", device, errno.EBUSY, complaint)
    if "superblock" in complaint.lower():
        return CheckReport(clean=False, detail=complaint)
    raise HostError("e2fsck", device, 0, complaint or f"exit status {status}")


def grow_command(fs_type: str, device: str, mounted_at: str) -> tuple[tuple[str, ...], str]:
    """How to fill the device, online, and Debian's package. Raises `Unsupported`."""
    if fs_type in _EXT_FAMILY:
        return ("resize2fs", device), "e2fsprogs"
    if fs_type == "xfs":
        return ("xfs_growfs", "-d", mounted_at), "xfsprogs"
    if fs_type == "btrfs":
        return ("btrfs", "filesystem", "resize", "max", mounted_at), "btrfs-progs"
    raise Unsupported("grow", device, errno.EOPNOTSUPP, f"no tool to grow {fs_type!r} online")


SUPERBLOCKS_BYTES: Final = 0x10000 + 4096
"""How much of a device's beginning `read_size` wants to see."""


def read_size(fs_type: str, head: bytes) -> int:
    """How many bytes of its device a file system uses, from its superblock; 0 when unreadable."""
    if len(head) < SUPERBLOCKS_BYTES:
        return 0
    if fs_type in _EXT_FAMILY:
        low, log_block = struct.unpack_from("<I", head, 1028)[0], head[1048]
        is_64_bit = struct.unpack_from("<I", head, 1024 + 0x60)[0] & 0x80
        high = struct.unpack_from("<I", head, 1024 + 0x150)[0] if is_64_bit else 0
        return (high << 32 | low) << (10 + log_block) if log_block <= 6 else 0
    if fs_type == "xfs":
        magic, block_bytes, blocks = struct.unpack_from(">4sIQ", head)
        return block_bytes * blocks if magic == b"XFSB" else 0
    if fs_type == "btrfs" and head[0x10040:0x10048] == b"_BHRfS_M":
        # Of this device: dev_item.total_bytes.
        return int(struct.unpack_from("<Q", head, 0x10000 + 0xC9 + 8)[0])
    return 0
