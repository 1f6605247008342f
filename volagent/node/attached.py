"""By which VolumeAttachment this node has a disk: asked of a server when the disk is attached."""

import asyncio
from dataclasses import dataclass
from typing import Final

import msgspec

from volagent.client.contract import VOLUME_ATTACHMENTS, ApiError, Client
from volagent.drivers.contract import VolumeSpec
from volagent.node.attachment import attachment_of
from volagent.objects.attachments import VolumeAttachment, attachment_name

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
