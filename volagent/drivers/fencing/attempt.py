"""What an attempt to keep a node out means for its Fencing."""

from collections.abc import Awaitable

from volagent.drivers.errors import DriverError, Rejected
from volagent.drivers.fencing.contract import NoProof
from volagent.host.errors import HostError
from volagent.objects.fencing import IMPOSSIBLE, PENDING, PROVEN
from volagent.observe.logs import get_logger

_log = get_logger("fencing")


async def try_fence(fencing: Awaitable[str]) -> tuple[str, str]:
    """Phase and message: whatever happens, only what returned in order is a proof."""
    try:
        return PROVEN, await fencing
    except (NoProof, Rejected) as error:
        return IMPOSSIBLE, _tell(error)
    except DriverError as error:
        return PENDING, _tell(error)
    except HostError as error:
        return PENDING, str(error)
    except Exception as error:  # noqa: BLE001  # boundary: one disk's bug stays its own
        _log.exception("fencing failed in an unexpected way")
        return PENDING, f"unexpected {type(error).__name__}: {error}"


def _tell(error: DriverError) -> str:
    return f"{error.message} ({error.remedy})" if error.remedy else error.message
