"""The VolumeAttachments that the controller writes. Pure."""

from collections.abc import Mapping

import msgspec

from volagent.control.attach.wants import Want
from volagent.objects.attachments import (
    ATTACHER,
    DETACH_FINALIZER,
    EXCLUSIVE,
    VOLUME,
    VolumeAttachment,
    attachment_name,
)
from volagent.objects.meta import Document


def attachment_document(want: Want) -> Document:
    """The attachment of a disk to the node of a pod that wants it."""
    source = {
        key: value for key, value in msgspec.to_builtins(want.source).items() if value is not None
    }
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": {
            "name": attachment_name(want.volume, want.node, exclusive=want.exclusive),
            "annotations": {
                VOLUME: want.volume,
                EXCLUSIVE: "true" if want.exclusive else "false",
            },
            "finalizers": [DETACH_FINALIZER],
        },
        "spec": {"attacher": ATTACHER, "nodeName": want.node, "source": source},
    }


def status_attached(attachment: VolumeAttachment, facts: Mapping[str, str]) -> Document:
    """The patch that says that the storage has attached the disk."""
    return {
        "metadata": {"resourceVersion": attachment.metadata.resource_version},
        "status": {
            "attached": True,
            "attachmentMetadata": dict(facts) or None,
            "attachError": None,
        },
    }


def status_lost(attachment: VolumeAttachment) -> Document:
    """The patch that says that the storage has it attached no more."""
    version = attachment.metadata.resource_version
    return {"metadata": {"resourceVersion": version}, "status": {"attached": False}}


def status_error(attachment: VolumeAttachment, text: str, now: str) -> Document:
    """The patch that says why the storage did not attach, or did not detach, the disk."""
    field = "attachError" if attachment.metadata.deletion_timestamp is None else "detachError"
    attached = attachment.status.attached
    return {"status": {"attached": attached, field: {"time": now, "message": text}}}


def without_finalizer(attachment: VolumeAttachment) -> Document:
    """The patch that lets the attachment go."""
    left = [each for each in attachment.metadata.finalizers or () if each != DETACH_FINALIZER]
    return {
        "metadata": {
            "resourceVersion": attachment.metadata.resource_version,
            "finalizers": left or None,
        }
    }
