"""Disks that nodes reach by themselves, with no word of their storage: iSCSI targets, NBD exports.

Attaching one is the cluster's permission, and nothing else. A storage node's word for its volumes
is asked for by the controller (`control/attach/showing.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from volagent.drivers.attaching.contract import Placed
from volagent.drivers.contract import VolumeSource


@dataclass(frozen=True, slots=True)
class Granted:
    """Permissions for disks of one kind."""

    read_identity: Callable[[VolumeSource], str]
    shares_files: bool = False

    def identify(self, source: VolumeSource) -> str:
        """By the rules of its driver. Raises `Rejected`."""
        return self.read_identity(source)

    async def attach(self, placed: Placed) -> Mapping[str, str]:
        """The permission is all there is."""
        return {}

    async def detach(self, placed: Placed) -> None:
        """The node has given the device up before."""
