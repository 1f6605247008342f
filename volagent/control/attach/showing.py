"""Volumes of storage nodes: whoever has the data is asked, by the VolumeAttachment, to show them.

The wish is an annotation, the storage node's word that the volume may be shown is a finalizer of
its own (`objects/storage_nodes.py`, docs/adr/0012). Each write is conditional on the version that
was read: a wish is taken back unnoticed by nobody.
"""

from volagent.client.contract import VOLUME_ATTACHMENTS, Client
from volagent.drivers.errors import Transient
from volagent.objects.attachments import VolumeAttachment
from volagent.objects.storage_nodes import (
    SHOW,
    SHOW_ERROR,
    SHOWN_AS,
    asked_to_show,
    may_be_shown_by,
)


async def ask_to_show(client: Client, attachment: VolumeAttachment, storage_node: str) -> str:
    """As what the volume is shown, "" while the storage node has not answered.

    Raises `ApiError`; `Transient` with what the storage node says stands in the way.
    """
    if asked_to_show(attachment) != storage_node:
        await _write(client, attachment, storage_node)
        return ""
    annotations = attachment.metadata.annotations or {}
    if may_be_shown_by(attachment) and annotations.get(SHOWN_AS):
        return annotations[SHOWN_AS]
    if annotations.get(SHOW_ERROR):
        raise Transient(f"storage node {storage_node}: {annotations[SHOW_ERROR]}")
    return ""


async def ask_to_hide(client: Client, attachment: VolumeAttachment) -> bool:
    """Whether the node cannot reach the volume any more, by the storage node's word.

    Raises `ApiError`; `Transient` with what the storage node says stands in the way.
    """
    storage_node = asked_to_show(attachment)
    if storage_node:
        await _write(client, attachment, None)
        return False
    holder = may_be_shown_by(attachment)
    error = (attachment.metadata.annotations or {}).get(SHOW_ERROR)
    if holder and error:
        raise Transient(f"storage node {holder}: {error}")
    return not holder


async def _write(client: Client, attachment: VolumeAttachment, storage_node: str | None) -> None:
    metadata = attachment.metadata
    change = {
        "resourceVersion": metadata.resource_version,
        "annotations": {SHOW: storage_node, SHOW_ERROR: None},
    }
    await client.patch(VOLUME_ATTACHMENTS, metadata.name, {"metadata": change})
