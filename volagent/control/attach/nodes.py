"""Writes `status.volumesAttached` of nodes: the permission to use a disk, and its withdrawal.

Each write is conditional on the version of the Node that was judged, because the node writes
`volumesInUse` into the same object. To give a permission, the Node is read before the
VolumeAttachment: a controller that has begun to take the disk back deletes the attachment first and
changes the Node then, so that of two controllers one must notice the other.
"""

import asyncio
from collections import defaultdict
from typing import Any

import msgspec

from volagent.client.contract import NODES, VOLUME_ATTACHMENTS, Client, Conflict, NotFound
from volagent.control.attach.decide import Standing, find_proof, is_in_use
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
                if not await self._is_attached(standing):
                    return False
                listed.append({"name": volume, "devicePath": ""})
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

    async def _is_attached(self, standing: Standing) -> bool:
        try:
            document = await self._client.get(VOLUME_ATTACHMENTS, standing.attachment)
        except NotFound:
            return False
        metadata, status = document["metadata"], document.get("status") or {}
        going = metadata.get("deletionTimestamp") is not None
        return metadata["uid"] == standing.uid and not going and bool(status.get("attached"))

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
