"""How a storage node's thin volumes are called, and which links lead to them. Pure.

Standard library only: a helper process asks this, too.
"""

import errno
import hashlib
import re
from typing import Final

from volagent.host.errors import HostError
from volagent.host.export_records import VOLUME_NAME

PREFIX: Final = "volagent-"
_ROOM_MAX: Final = 70
"""What a name may take in device-mapper's own, of 127 bytes in all, where hyphens count twice."""
_DIGITS: Final = 40
_LINK: Final = re.compile(r"/dev/(?P<group>[A-Za-z0-9+_.][A-Za-z0-9+_.-]*)/(?P<name>[^/]+)")


def name_of(volume: str) -> str:
    """The logical volume with the content of a volume: its name, or a digest of a long one.

    Raises `HostError` for what is no name of a volume.
    """
    if not VOLUME_NAME.fullmatch(volume):
        raise HostError("name", volume, errno.EINVAL, "is no name of a volume")
    if len(volume) + volume.count("-") <= _ROOM_MAX:
        return f"{PREFIX}{volume}"
    return f"{PREFIX}{hashlib.sha256(volume.encode()).hexdigest()[:_DIGITS]}"


def device_of(group: str, volume: str) -> str:
    """Its device, as LVM and udev name it."""
    return f"/dev/{group}/{name_of(volume)}"


def group_of(link: str, volume: str) -> str:
    """The volume group that a volume's link leads to; "" when it is no link of that volume."""
    found = _LINK.fullmatch(link)
    return found["group"] if found and found["name"] == name_of(volume) else ""
