"""What keeps nodes apart at disks that several of them can reach, as the settings have it."""

from typing import Annotated

import msgspec


class IscsiSettings(msgspec.Struct, frozen=True):
    """Disks of iSCSI targets."""

    reservations: bool = True
    """Have a target that can do so keep other nodes out of an exclusive disk."""


class HookSettings(msgspec.Struct, frozen=True):
    """The operator's programs that switch machines off (`drivers/fencing/hooks.py`)."""

    directory: str = "/etc/volagent/fence.d"
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    """Of one program."""
