"""What a failed call of the host means for a volume, and what a person can do about it."""

import errno

from volagent.drivers.errors import DriverError, Transient, Uncertain
from volagent.host.contract import Host
from volagent.host.errors import Busy, HostError, TimedOut, Unsupported

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
BUSY_REASON = "FailedUnMount"


def explain_failure(error: HostError, target: str) -> DriverError:
    """A failed set-up below `target`: it may have happened in part, so it is looked at again."""
    remedy = ""
    if error.errno in _NO_ROOM:
        remedy = f"free space (or inodes) on the file system of {target}"
    elif error.errno == errno.EROFS:
        remedy = f"the file system of {target} has become read-only: see the kernel's log"
    elif error.errno == errno.ENOMEM:
        remedy = "free memory on this node"
    elif isinstance(error, TimedOut):
        remedy = f"see why the server or disk behind {target} does not answer"
    elif isinstance(error, Unsupported):
        remedy = "`volagent doctor` shows what this kernel can do"
    return Uncertain(str(error), remedy=remedy)


async def explain_busy(host: Host, error: Busy, target: str) -> Transient:
    """A refused unmount or removal, with everybody who keeps `target` busy."""
    holders = await host.holders.find_holders(target)
    if not holders:
        return Transient(str(error), reason=BUSY_REASON)
    who = "; ".join(str(holder) for holder in holders)
    return Transient(
        f"{error}; held by {who}", remedy="stop the process that holds it", reason=BUSY_REASON
    )
