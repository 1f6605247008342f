"""The contract between the controller of a storage node and what shows its volumes to other nodes.

ControllerPublish and ControllerUnpublish of CSI, where the data is. The controller decides when,
one call at a time for a volume; a shower does the one thing it is asked, idempotently.

1. `show` returns when the node can reach the volume, and it alone of those that were not let in.
2. `hide` returns when the node cannot reach it any more and what it had open is ended, as read back
   from the kernel: the text is that evidence. It may be called for a node that is writing.
3. What was shown is shown again after a reboot by `restore`, from the storage node's own records,
   before any server is asked.

Errors: `drivers/errors.py`.
"""

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec


class Peer(msgspec.Struct, frozen=True):
    """A node that is to reach a volume."""

    name: str
    initiator: str = ""
    """The name of its iSCSI initiator."""
    addresses: tuple[str, ...] = ()


class Shower(Protocol):
    """Shows the volumes of one provisioner."""

    async def restore(self) -> str:
        """Show what is on record, and nothing else; in words. (3)"""

    async def show(self, volume: str, peer: Peer) -> str:
        """Let a node in; as what it finds the volume. (1)"""

    async def hide(self, volume: str, node: str) -> str:
        """Keep a node out; the evidence. (2)"""

    async def fence(self, volume: str, node: str) -> str:
        """As `hide`, and `show` refuses the node until `hide` was asked for: it was detached."""

    async def list_shown(self) -> Mapping[str, Collection[str]]:
        """The nodes that may be let in, or were and are fenced, by volume."""

    async def fetch_credentials(self, volume: str) -> Mapping[str, str]:
        """The data of the Secret with which nodes log in; empty when they need none."""


ShowerTable = Mapping[str, Shower]
"""The showers of a storage node, by the provisioner of the volumes."""
