"""Writes `status.volumesAttached` of nodes: the permission to use a disk, and its withdrawal.

Each write is conditional on the version of the Node that was judged, because the node writes
`volumesInUse` into the same object. To give a permission, the Node is read before the
VolumeAttachment: a controller that has begun to take the disk back deletes the attachment first and
changes the Node then, so that of two controllers one must notice the other.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import msgspec

from volagent.client.contract import NODES, VOLUME_ATTACHMENTS, Client, Conflict, NotFound
from volagent.control.attach.decide import Standing, find_proof, is_in_use
from volagent.objects.attachments import DEVICE_PATH
from volagent.objects.meta import Document
from volagent.objects.storage import Node

_TRIES = 20


class AttachedLists:
    """The lists of all nodes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def add(self, volume: str, standing: Standing) -> bool:
        """Name a disk; False when it is not attached any more. Raises `ApiError`."""
        node = standing.node
        async with self._locks[node]:
            for _ in range(_TRIES):
                document = await self._client.get(NODES, node)
                listed = _listed(document)
                if any(each["name"] == volume for each in listed):
                    return True
                facts = await self._read_facts(standing)
                if facts is None:
                    return False
                listed.append({"name": volume, "devicePath": facts.get(DEVICE_PATH, "")})
                if await self._write(document, listed):
                    return True
        raise Conflict(f"node {node} changes all the time")

    async def remove(self, node: str, volume: str) -> bool:
        """Name it no more; False while the node uses it, or may. Raises `ApiError`."""
        async with self._locks[node]:
            for _ in range(_TRIES):
                try:
                    document = await self._client.get(NODES, node)
                except NotFound:
                    return False
                seen = msgspec.convert(document, Node)
                if is_in_use(seen, volume) and not find_proof(seen):
                    return False
                listed = _listed(document)
                left = [each for each in listed if each["name"] != volume]
                if left == listed or await self._write(document, left):
                    return True
        raise Conflict(f"node {node} changes all the time")

    async def _read_facts(self, standing: Standing) -> Mapping[str, str] | None:
        """What the storage said when it attached the disk; None when it is not attached."""
        try:
            document = await self._client.get(VOLUME_ATTACHMENTS, standing.attachment)
        except NotFound:
            return None
        metadata, status = document["metadata"], document.get("status") or {}
        going = metadata.get("deletionTimestamp") is not None
        if metadata["uid"] != standing.uid or going or not status.get("attached"):
            return None
        return status.get("attachmentMetadata") or {}

    async def _write(self, document: Document, listed: list[Any]) -> bool:
        metadata = document["metadata"]
        change = {
            "metadata": {"resourceVersion": metadata["resourceVersion"]},
            "status": {"volumesAttached": listed or None},
        }
        try:
            await self._client.patch(NODES, metadata["name"], change, subresource="status")
        except Conflict:
            return False
        return True


def _listed(document: Document) -> list[Any]:
    return list((document.get("status") or {}).get("volumesAttached") or ())
