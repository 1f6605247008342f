"""Writes `status.volumesAttached` of nodes: the permission to use a disk, and its withdrawal.

A lost node is given nothing, nor is one that is being kept out of the disk by a Fencing. The proof
of a Fencing counts while the Node's annotation `WITHHELD` says that no permission was given since;
when the disk is taken by it, the annotation is written with the attachment's uid, so that whoever
was about to give the permission notices that, too.

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

from volagent.client.contract import (
    FENCINGS,
    NODES,
    VOLUME_ATTACHMENTS,
    WITH_STATUS,
    Client,
    Conflict,
    NotFound,
)
from volagent.control.attach.decide import Standing, find_proof, is_in_use
from volagent.control.nodes.decide import is_lost
from volagent.objects.fencing import (
    WITHHELD,
    Fencing,
    fencing_name,
    withheld_from,
)
from volagent.objects.meta import Document
from volagent.objects.storage import Node

_TRIES = 20


class AttachedLists:
    """The lists of all nodes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def add(self, volume: str, standing: Standing) -> bool:
        """Name a disk; False when it is not attached any more, or the node is lost or fenced.

        Raises `ApiError`.
        """
        async with self._locks[standing.node]:
            for _ in range(_TRIES):
                document = await self._client.get(NODES, standing.node)
                listed = _listed(document)
                if any(each["name"] == volume for each in listed):
                    return True
                node = msgspec.convert(document, Node)
                if is_lost(node) or not await self._is_attached(standing):
                    return False
                if await self._find_fencing(standing) is not None:
                    return False
                listed.append({"name": volume, "devicePath": ""})
                withheld = withheld_from(node)
                withheld.pop(volume, None)
                if await self._write(document, listed, withheld):
                    return True
        raise Conflict(f"node {standing.node} changes all the time")

    async def remove(self, volume: str, standing: Standing) -> bool:
        """Name it no more; False while the node uses it, or may. Raises `ApiError`."""
        async with self._locks[standing.node]:
            for _ in range(_TRIES):
                fencing = await self._find_fencing(standing)
                try:
                    document = await self._client.get(NODES, standing.node)
                except NotFound:
                    return bool(find_proof(None, fencing))
                node = msgspec.convert(document, Node)
                withheld = withheld_from(node)
                if is_in_use(node, volume):
                    if not find_proof(node, fencing):
                        return False
                    if fencing is not None:
                        withheld[volume] = standing.uid
                listed = _listed(document)
                left = [each for each in listed if each["name"] != volume]
                done = left == listed and withheld == withheld_from(node)
                if done or await self._write(document, left, withheld):
                    return True
        raise Conflict(f"node {standing.node} changes all the time")

    async def _find_fencing(self, standing: Standing) -> Fencing | None:
        """The Fencing of this very attachment."""
        if not standing.uid:
            return None
        try:
            document = await self._client.get(FENCINGS, fencing_name(standing.uid))
        except NotFound:
            return None
        fencing = msgspec.convert(document, Fencing)
        return fencing if fencing.spec.attachment.uid == standing.uid else None

    async def _is_attached(self, standing: Standing) -> bool:
        try:
            document = await self._client.get(VOLUME_ATTACHMENTS, standing.attachment)
        except NotFound:
            return False
        metadata, status = document["metadata"], document.get("status") or {}
        going = metadata.get("deletionTimestamp") is not None
        return metadata["uid"] == standing.uid and not going and bool(status.get("attached"))

    async def _write(
        self, document: Document, listed: list[Any], withheld: Mapping[str, str]
    ) -> bool:
        metadata = document["metadata"]
        annotation = msgspec.json.encode(withheld).decode() if withheld else None
        change = {
            "metadata": {
                "resourceVersion": metadata["resourceVersion"],
                "annotations": {WITHHELD: annotation},
            },
            "status": {"volumesAttached": listed or None},
        }
        try:
            await self._client.patch(NODES, metadata["name"], change, subresource=WITH_STATUS)
        except Conflict:
            return False
        return True


def _listed(document: Document) -> list[Any]:
    return list((document.get("status") or {}).get("volumesAttached") or ())
