"""Withholds a lost node's permission for its disks, before anybody seeks a proof.

What a node may touch is said by one version of its Node (docs/adr/0008). A proof says that it could
not write at one moment; it stays true only if the node gets no permission after that. So the disks
leave `status.volumesAttached` first, whatever the node says that it uses, and the annotation
`WITHHELD` names for each the version in which they did: it goes in the very write that gives
permission again, so a proof that was sought before that has another name in it than the Node.
"""

from collections.abc import Collection, Mapping

import msgspec

from volagent.client.contract import NODES, WITH_STATUS, Client
from volagent.control.nodes.decide import is_lost
from volagent.objects.fencing import WITHHELD, withheld_from
from volagent.objects.meta import Document
from volagent.objects.storage import Node


class NotLost(Exception):
    """The node is heard of again, or has booted anew."""


async def withhold(
    client: Client, name: str, boot_id: str, volumes: Collection[str]
) -> Mapping[str, str]:
    """Since when each of the disks is withheld. Raises `NotLost`, `ApiError`."""
    document = await client.get(NODES, name)
    node = msgspec.convert(document, Node)
    if not is_lost(node) or node.status.node_info.boot_id != boot_id:
        raise NotLost(name)
    told = {each.name for each in node.status.volumes_attached or ()}
    withheld = withheld_from(node)
    missing = {volume for volume in volumes if volume in told or volume not in withheld}
    if missing:
        withheld |= dict.fromkeys(sorted(missing), node.metadata.resource_version)
        await _write(client, document, withheld, missing)
    return {volume: withheld[volume] for volume in volumes}


async def end_withholding(client: Client, name: str, volume: str) -> None:
    """Forget about a disk that the node has given up. Raises `ApiError`."""
    document = await client.get(NODES, name)
    withheld = withheld_from(msgspec.convert(document, Node))
    if withheld.pop(volume, None) is not None:
        await _write(client, document, withheld, ())


async def _write(
    client: Client, document: Document, withheld: Mapping[str, str], missing: Collection[str]
) -> None:
    metadata = document["metadata"]
    listed = (document.get("status") or {}).get("volumesAttached") or ()
    text = msgspec.json.encode(withheld).decode() if withheld else None
    change = {
        "metadata": {
            "resourceVersion": metadata["resourceVersion"],
            "annotations": {WITHHELD: text},
        },
        "status": {
            "volumesAttached": [each for each in listed if each["name"] not in missing] or None
        },
    }
    await client.patch(NODES, metadata["name"], change, subresource=WITH_STATUS)
