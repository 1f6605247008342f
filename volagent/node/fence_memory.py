"""What the next agent of this boot has to know of the promise: one small file on tmpfs.

An agent that is killed and started again must neither forget when the lease was last renewed nor
that the machine is promised to be reset. It names the boot, and is worth nothing in another one.
"""

import contextlib
import os

import msgspec

from volagent.node.fence import Contact
from volagent.observe.logs import get_logger

_log = get_logger("fence")


class _Noted(msgspec.Struct, frozen=True):
    boot: str
    renewed_s: float
    """On the clock that counts suspensions, which is the same in all processes."""
    promised: bool


class FenceMemory:
    """Reads and writes the file."""

    def __init__(self, path: str, boot_id: str) -> None:
        self._path = path
        self._boot_id = boot_id

    def recall(self, now_s: float) -> Contact:
        """How this node stood when the last process ended; without a promise it begins anew."""
        try:
            with open(self._path, "rb") as file:
                noted = msgspec.json.decode(file.read(), type=_Noted)
        except FileNotFoundError:
            return Contact(now_s)
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("memory of the fence cannot be read", path=self._path, error=str(error))
            return Contact(now_s)
        if noted.boot != self._boot_id or not noted.promised:
            return Contact(now_s)
        return Contact(min(noted.renewed_s, now_s), promised=True)

    def write(self, contact: Contact) -> None:
        """Replace it. What could not be written is older, so that more is given up, not less."""
        noted = _Noted(self._boot_id, contact.renewed_s, contact.promised)
        fresh = f"{self._path}.new"
        try:
            with open(fresh, "wb") as file:
                file.write(msgspec.json.encode(noted))
            os.rename(fresh, self._path)
        except OSError as error:
            _log.warning("memory of the fence not written", path=self._path, error=str(error))

    def forget(self) -> None:
        """Nothing is promised any more."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
