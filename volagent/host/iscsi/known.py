"""Who the attached disks are: noted when one is attached, until it is given back.

Kept in memory of the machine (`/run`), as the disks are: it outlives the daemon and not the boot.
A number that shows another disk than the noted one was given away on the storage while it was in
use here; whatever it shows now is not what anybody asked for.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from volagent.host.errors import HostError
from volagent.host.iscsi.contract import LunHandle


@dataclass(frozen=True, slots=True)
class KnownDisks:
    """One small file for each attached LUN. All methods raise `HostError`."""

    directory: str

    def find(self, iqn: str, lun: int, interface: str) -> str:
        """The noted name; "" when none is."""
        try:
            with open(self._file(iqn, lun, interface)) as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise HostError("read", self.directory, error.errno or 0) from error

    def note(self, handle: LunHandle) -> None:
        """Note who a disk is."""
        file = self._file(handle.iqn, handle.lun, handle.interface)
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            with open(f"{file}.new", "w") as stream:
                stream.write(f"{handle.wwid}\n")
            os.rename(f"{file}.new", file)
        except OSError as error:
            raise HostError("write", file, error.errno or 0) from error

    def forget(self, handle: LunHandle) -> None:
        """The disk was given back."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(handle.iqn, handle.lun, handle.interface))

    def _file(self, iqn: str, lun: int, interface: str) -> str:
        return f"{self.directory}/{iqn},{lun},{interface}"


_CLAIM: Final = ",claim"


@dataclass(frozen=True, slots=True)
class NotedClaim:
    """What this node has registered on a disk."""

    key: int
    guard: int
    outlives_power: bool
    """The storage keeps it through a power cut."""
    registered: bool
    """False: it was about to, and nothing has been written to the disk yet."""


@dataclass(frozen=True, slots=True)
class KnownClaims:
    """One small file for each disk that is reserved for this node. All methods raise `HostError`.

    It outlives the daemon, and not the kernel that has the disk's pages in its memory.
    """

    directory: str

    def find(self, iqn: str, lun: int, interface: str) -> NotedClaim | None:
        """What is noted of a disk."""
        noted = self._read(f"{iqn},{lun},{interface}{_CLAIM}")
        return noted[1] if noted is not None else None

    def all(self) -> Iterator[LunHandle]:
        """Every disk that is reserved, with its key."""
        try:
            names = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return
        except OSError as error:
            raise HostError("read", self.directory, error.errno or 0) from error
        for name in names:
            noted = self._read(name) if name.endswith(_CLAIM) else None
            if noted is not None and noted[1].registered:
                iqn, lun, interface = name.removesuffix(_CLAIM).rsplit(",", 2)
                wwid, claim = noted
                yield LunHandle(iqn, int(lun), wwid, interface, claim.key, claim.guard)

    def note(self, handle: LunHandle, claim: NotedClaim) -> None:
        """Note what is registered, or about to be."""
        file = self._file(handle)
        text = {
            "wwid": handle.wwid, "key": claim.key, "guard": claim.guard,
            "outlives_power": claim.outlives_power, "registered": claim.registered,
        }  # fmt: skip
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            with open(f"{file}.new", "w") as stream:
                json.dump(text, stream)
            os.rename(f"{file}.new", file)
        except OSError as error:
            raise HostError("write", file, error.errno or 0) from error

    def forget(self, handle: LunHandle) -> None:
        """The disk was given back."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._file(handle))

    def _read(self, name: str) -> tuple[str, NotedClaim] | None:
        try:
            with open(f"{self.directory}/{name}") as file:
                found = json.load(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            # Unknown is not "nothing": then a key could be registered twice.
            raise HostError("read", f"{self.directory}/{name}", 0, str(error)) from error
        wwid = found.pop("wwid")
        return wwid, NotedClaim(**found)

    def _file(self, handle: LunHandle) -> str:
        return f"{self.directory}/{handle.iqn},{handle.lun},{handle.interface}{_CLAIM}"
