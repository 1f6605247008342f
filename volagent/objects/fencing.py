"""Fencing: a lost node is to be kept from writing to a disk, and the proof that it is. Pure.

One for each exclusive VolumeAttachment that is to be taken from a lost node. It is about that
attachment's uid only, and named by it: the next attachment of the disk, which has the same name,
may have to be fenced while this one still is (docs/adr/0009).
"""

from typing import Final

import msgspec

from volagent.objects.attachments import AttachmentSource
from volagent.objects.meta import TypedObject, View
from volagent.objects.storage import Node

PENDING: Final = "Pending"
PROVEN: Final = "Proven"
IMPOSSIBLE: Final = "Impossible"
"""This method gives no proof here; another one, or a person, may."""
STORAGE: Final = "Storage"
HOOK: Final = "Hook"
WATCHDOG: Final = "Watchdog"
METHODS: Final = (STORAGE, HOOK, WATCHDOG)
PHASES: Final = (PENDING, PROVEN, IMPOSSIBLE)
FENCES_ITSELF: Final = "volagent.dev/fences-itself"
"""Annotation of a Node: `SelfFencing` as JSON, written by its agent while a watchdog is armed."""
WITHHELD: Final = "volagent.dev/withheld"
"""Annotation of a Node: JSON, disks that it may not begin to use, each with its `FencingSpec.seal`
or the uid of the attachment that was taken from it."""
FAIL_OVER: Final = "volagent.dev/fail-over"
"""Annotation of a Node: a person's word for one boot of it that its disks are to be taken although
many nodes are lost; of their being off it says nothing."""


class FencedAttachment(View, frozen=True):
    """Which attachment it is about."""

    name: str = ""
    uid: str = ""


class TriedMethod(View, frozen=True):
    """What was tried before, and why it gave no proof."""

    method: str = ""
    executor: str = ""
    message: str = ""

    def describe(self) -> str:
        """`Storage by node02: the portal does not answer`."""
        by = self.executor or "a server"
        return f"{self.method} by {by}: {self.message}"


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
    seal: str = ""
    """Since when the node's permission is withheld: what `WITHHELD` of its Node says of the disk.
    A proof was sought after that, and counts only while it still says so."""
    tried: list[TriedMethod] | None = None


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


class SelfFencing(View, frozen=True):
    """What a node says of its watchdog."""

    within_seconds: float = 0.0
    """It resets the machine at most so long after its agent has sent the last renewal of its lease
    that was answered."""
    by: str = ""
    boot_id: str = msgspec.field(default="", name="bootID")


def fencing_name(attachment_uid: str) -> str:
    """The name of the Fencing of an attachment: at any time there is one at most."""
    return f"volagent-{attachment_uid}"


def read_self_fencing(node: Node) -> SelfFencing | None:
    """The watchdog of a node, if it is armed in the boot that the Node is of."""
    text = (node.metadata.annotations or {}).get(FENCES_ITSELF, "")
    try:
        found = msgspec.json.decode(text, type=SelfFencing) if text else None
    except msgspec.MsgspecError:
        return None
    if found is None or found.within_seconds <= 0 or not found.boot_id:
        return None
    return found if found.boot_id == node.status.node_info.boot_id else None


def withheld_from(node: Node) -> dict[str, str]:
    """The disks that a node may not begin to use, by their unique names."""
    text = (node.metadata.annotations or {}).get(WITHHELD, "")
    try:
        return msgspec.json.decode(text, type=dict[str, str]) if text else {}
    except msgspec.MsgspecError:
        return {}


def is_withheld(node: Node, fencing: Fencing) -> bool:
    """Whether the node has got no permission for the disk since the Fencing was decided on."""
    spec = fencing.spec
    if any(each.name == spec.volume for each in node.status.volumes_attached or ()):
        return False
    return withheld_from(node).get(spec.volume, "") in (spec.seal or None, spec.attachment.uid)
