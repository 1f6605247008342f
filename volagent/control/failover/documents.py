"""The Fencings and conditions that fail-over writes. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from volagent.control.failover.decide import Start
from volagent.control.failover.world import Stranded, volume_of
from volagent.objects.fencing import PROVEN, Fencing, fencing_name
from volagent.objects.meta import Document

CONDITION: Final = "volagent.dev/FailOver"
"""Of a Node: what becomes of the exclusive disks that it had when it was lost."""


def fencing_document(stranded: Stranded, step: Start, boot_id: str, seal: str) -> Document:
    """The wish that a node be kept out of a disk."""
    attachment = stranded.attachment
    metadata, spec = attachment.metadata, attachment.spec
    source = msgspec.to_builtins(spec.source)
    return {
        "apiVersion": "volagent.dev/v1",
        "kind": "Fencing",
        "metadata": {"name": fencing_name(metadata.uid)},
        "spec": {
            "attachment": {"name": metadata.name, "uid": metadata.uid},
            "volume": volume_of(attachment),
            "source": {key: value for key, value in source.items() if value is not None},
            "nodeName": spec.node_name,
            "bootId": boot_id,
            "method": step.way.method,
            "executor": step.way.executor,
            "seal": seal,
            "tried": [msgspec.to_builtins(each) for each in step.tried],
        },
    }


def status_proven(fencing: Fencing, evidence: str, now: str) -> Document:
    """The patch that says that a proof is there; of that very Fencing only."""
    metadata = fencing.metadata
    return {
        "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
        "status": {"phase": PROVEN, "message": evidence, "provenAt": now},
    }


def condition_patch(
    document: Document, told: tuple[str, str, str] | None, now: str
) -> Document | None:
    """The patch that gives a Node its condition (status, reason, message), or takes it away.

    None when nothing changes.
    """
    conditions: Sequence[Any] = (document.get("status") or {}).get("conditions") or ()
    held = next((each for each in conditions if each.get("type") == CONDITION), None)
    shown = held and (held.get("status"), held.get("reason"), held.get("message"))
    if shown == told:
        return None
    others = [each for each in conditions if each is not held]
    if told is not None:
        status, reason, message = told
        others.append({
            "type": CONDITION, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": now,
        })  # fmt: skip
    return {
        "metadata": {"resourceVersion": document["metadata"]["resourceVersion"]},
        "status": {"conditions": others or None},
    }
