"""What a storage node does about one VolumeAttachment, from what stands on it. Pure.

The server asks by an annotation, and takes that off when the node is to lose the volume; the
attachment stays until our finalizer is off. Both sides write the attachment only in the version
that they have read, so a wish that is taken back meets no volume that is shown unnoticed:
(1) the finalizer goes on before the volume is shown, (2) the volume is shown and the answer
written, and back (3) it is hidden, which is read back from the kernel, before the finalizer goes.
"""

from dataclasses import dataclass

from volagent.objects.attachments import VolumeAttachment
from volagent.objects.storage_nodes import SHOWN, SHOWN_AS, asked_to_show, may_be_shown_by


@dataclass(frozen=True, slots=True)
class Hold:
    """Put the finalizer on: step (1)."""


@dataclass(frozen=True, slots=True)
class Show:
    """Let the node in, and say so: step (2)."""

    told: bool
    """The answer is written already: it is only seen to that it is true."""


@dataclass(frozen=True, slots=True)
class Hide:
    """Keep the node out, then take the finalizer off: step (3)."""


Step = Hold | Show | Hide


def decide_showing(attachment: VolumeAttachment, node: str, *, verified: bool) -> Step | None:
    """The next step of the storage node `node`.

    `verified`: since this process began the volume was seen to be shown for this attachment.
    """
    holder = may_be_shown_by(attachment)
    if holder not in ("", node) or (not holder and SHOWN in _finalizers(attachment)):
        return None  # another storage node's
    if asked_to_show(attachment) != node:
        return Hide() if holder else None
    if not holder:
        # A finalizer cannot be put on what is going.
        return Hold() if attachment.metadata.deletion_timestamp is None else None
    told = SHOWN_AS in (attachment.metadata.annotations or {})
    return None if told and verified else Show(told)


def _finalizers(attachment: VolumeAttachment) -> list[str]:
    return list(attachment.metadata.finalizers or ())
