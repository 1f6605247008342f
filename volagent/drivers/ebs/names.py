"""Names of EBS volumes, of instances, and of the devices under which they are attached. Pure."""

import re
from collections.abc import Iterable
from string import ascii_lowercase
from typing import Final, NamedTuple

from volagent.drivers.errors import Rejected

DEVICE_NAMES: Final = tuple(
    f"/dev/xvd{first}{second}" for first in "bc" for second in ascii_lowercase
)
"""What AWS leaves to data volumes, and no image or instance store uses by itself."""
_VOLUME: Final = re.compile(r"(?:aws://([a-z0-9-]*)/)?(vol-[0-9a-z]{4,40})")
_PROVIDER_ID: Final = re.compile(r"aws:///([a-z0-9-]+)/(i-[0-9a-z-]{1,40})")
_LINK: Final = "nvme-Amazon_Elastic_Block_Store_"


class Place(NamedTuple):
    """A machine, as the API knows it."""

    instance_id: str
    zone: str


class VolumeName(NamedTuple):
    """What `volumeID` says."""

    id: str
    """`vol-...`."""
    zone: str = ""


def parse_volume_name(text: str) -> VolumeName:
    """`vol-1`, `aws:///vol-1`, `aws://us-east-1a/vol-1`. Raises `Rejected`."""
    found = _VOLUME.fullmatch(text)
    if found is None:
        raise Rejected(
            f"awsElasticBlockStore.volumeID: {text!r} is no volume's id",
            remedy="such as vol-0123456789abcdef0 or aws://us-east-1a/vol-0123456789abcdef0",
        )
    return VolumeName(found[2], found[1] or "")


def format_volume_name(id: str, zone: str) -> str:
    """The `volumeID` of a volume in a zone."""
    return f"aws://{zone}/{id}"


def format_provider_id(instance_id: str, zone: str) -> str:
    """What a Node says that its machine is: `aws:///us-east-1a/i-0123456789abcdef0`."""
    return f"aws:///{zone}/{instance_id}"


def parse_provider_id(text: str) -> Place | None:
    """The instance and its zone; None when the text names none of this cloud."""
    found = _PROVIDER_ID.fullmatch(text)
    return Place(found[2], found[1]) if found is not None else None


def choose_device_name(used: Iterable[str]) -> str | None:
    """The first free name, None without one. `/dev/sdba` and `/dev/xvdba` are the same."""
    taken = {_canonical(name) for name in used}
    return next((name for name in DEVICE_NAMES if name not in taken), None)


def _canonical(name: str) -> str:
    bare = name.removeprefix("/dev/")
    return f"/dev/xvd{bare.removeprefix('sd')}" if bare.startswith("sd") else f"/dev/{bare}"


def xen_name(device: str) -> str:
    """What a Xen instance's kernel calls the device attached under this name: `xvdba`."""
    return _canonical(device).removeprefix("/dev/")


def serial_of(id: str) -> str:
    """What an NVMe disk says of itself: the volume's id without the dash."""
    return id.replace("-", "")


def link_of(id: str) -> str:
    """udev's link to the NVMe disk of a volume, below /dev/disk/by-id."""
    return f"{_LINK}{serial_of(id)}"
