"""Who the attached disks are: noted when one is attached, until it is given back.

Kept in memory of the machine (`/run`), as the disks are: it outlives the daemon and not the boot.
A number that shows another disk than the noted one was given away on the storage while it was in
use here; whatever it shows now is not what anybody asked for.
"""

import contextlib
import os
from dataclasses import dataclass

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
