"""By which VolumeAttachment this node has a disk: asked of a server when the disk is attached.

Where the storage is told who has a disk, the permission itself is asked for, not taken from a copy:
before this node makes itself known there, and again afterwards. Whoever takes the disk from the
node withdraws the permission first and removes it from the storage then; so either the node's key
is removed, or the node finds that it has no permission, before it writes anything.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec

from volagent.client.contract import NODES, VOLUME_ATTACHMENTS, ApiError, Client, NotFound
from volagent.drivers.contract import Permission, VolumeSpec
from volagent.drivers.errors import Transient, Waiting
from volagent.node.attachment import attachment_of
from volagent.objects.attachments import VolumeAttachment, attachment_name
from volagent.objects.storage import Node

TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class AttachmentFinder:
    """Finds the attachment of an exclusive disk."""

    client: Client
    node: str

    async def find(self, spec: VolumeSpec) -> str:
        """Its uid; "" when there is none of this node, or when no server answers."""
        name = attachment_name(attachment_of(spec), self.node, exclusive=True)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                document = await self.client.get(VOLUME_ATTACHMENTS, name)
        except (ApiError, TimeoutError):
            return ""
        found = msgspec.convert(document, VolumeAttachment)
        return found.metadata.uid if found.spec.node_name == self.node else ""

    async def fetch_permission(self, spec: VolumeSpec) -> Permission:
        """That this node may have a disk, as the server says now.

        Raises `Waiting` when it may not, `Transient` when no server answers.
        """
        volume = attachment_of(spec)
        name = attachment_name(volume, self.node, exclusive=not spec.shared)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                documents = await asyncio.gather(
                    self.client.get(VOLUME_ATTACHMENTS, name), self.client.get(NODES, self.node)
                )
        except NotFound:
            raise _refuse(spec) from None
        except (ApiError, TimeoutError) as error:
            said = error.message if isinstance(error, ApiError) else "it takes too long"
            raise Transient(
                f"{spec.identity} may be this node's or not: no server says so ({said})",
                remedy="see why the server does not answer; what is mounted already stays",
            ) from error
        attachment = msgspec.convert(documents[0], VolumeAttachment)
        node = msgspec.convert(documents[1], Node)
        attached = {each.name for each in node.status.volumes_attached or ()}
        if (
            attachment.spec.node_name != self.node
            or attachment.metadata.deletion_timestamp is not None
            or volume not in attached.intersection(node.status.volumes_in_use or ())
        ):
            raise _refuse(spec)
        return Permission(attachment.metadata.uid, self.node, exclusive=not spec.shared)


def _refuse(spec: VolumeSpec) -> Waiting:
    return Waiting(
        f"{spec.identity} is not attached to this node any more",
        remedy=f"see `volagent describe pv {spec.name}` for who has it",
    )
