"""The section [storage] of the settings: what a storage node is made of."""

from typing import Annotated, Final, Literal

import msgspec

_THIN_POOL: Final = "^([A-Za-z0-9+_.][A-Za-z0-9+_.-]*/[A-Za-z0-9+_.][A-Za-z0-9+_.-]*)?$"


class StorageSettings(msgspec.Struct, frozen=True):
    """Volumes of this machine's disk for the whole cluster: the role of `volagent storage`."""

    enabled: bool = False
    directory: str = ""
    """Where the volumes are; filled with `<state_dir>/storage`. One that is named must exist."""
    kinds: tuple[Literal["iscsi", "nfs"], ...] = ("iscsi", "nfs")
    """What is made: disks for `iscsi.volagent.dev`, shared directories for `nfs.volagent.dev`."""
    address: str = ""
    """Where nodes reach this machine's NFS server; its first address if empty."""
    portals: tuple[str, ...] = ()
    """`address:port` where nodes reach this machine's iSCSI target; `address`, port 3260 if
    empty."""
    iqn: str = ""
    """What targets' names begin with; `iqn.2026-01.dev.volagent:<node>` if empty."""
    thin_pool: Annotated[str, msgspec.Meta(pattern=_THIN_POOL)] = ""
    """`VG/POOL`, an LVM thin pool for the content of disks; empty: files in the directory."""
    overcommit: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """How many times the size of the file system, or of the thin pool, may be promised."""
