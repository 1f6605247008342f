"""Fencing: a lost node is to be kept from writing to a disk, and the proof that it is. Pure.

One for each exclusive VolumeAttachment that is to be taken from a lost node; it has that
attachment's name and is about that attachment's uid only (docs/adr/0009).
"""

from typing import Final

from volagent.objects.attachments import AttachmentSource
from volagent.objects.meta import TypedObject, View

PENDING: Final = "Pending"
PROVEN: Final = "Proven"
IMPOSSIBLE: Final = "Impossible"
"""This method gives no proof here; another one, or a person, may."""
STORAGE: Final = "Storage"
HOOK: Final = "Hook"
WATCHDOG: Final = "Watchdog"
METHODS: Final = (STORAGE, HOOK, WATCHDOG)
PHASES: Final = (PENDING, PROVEN, IMPOSSIBLE)


class FencedAttachment(View, frozen=True):
    """Which attachment it is about."""

    name: str = ""
    uid: str = ""


class FencingSpec(View, frozen=True):
    """`spec` of a Fencing: the wish."""

    attachment: FencedAttachment = FencedAttachment()
    volume: str = ""
    """The unique name of the disk."""
    source: AttachmentSource = AttachmentSource()
    node_name: str = ""
    """Who is to be kept out."""
    boot_id: str = ""
    """Of that node, when it was lost."""
    method: str = STORAGE
    executor: str = ""
    """The node whose agent does it; "": a server."""


class FencingStatus(View, frozen=True):
    """`status` of a Fencing: what came of it."""

    phase: str = PENDING
    message: str = ""
    """The evidence as it was read back, or what stands in the way and what helps."""
    attempts: int = 0
    proven_at: str | None = None


class Fencing(TypedObject, frozen=True):
    """A Fencing (cluster-scoped)."""

    spec: FencingSpec = FencingSpec()
    status: FencingStatus = FencingStatus()

    @property
    def proven(self) -> bool:
        """Whether the node cannot write to the disk any more."""
        return self.status.phase == PROVEN
