"""What an agent may do with Fencings: read those that name its node, end those that it executes.

To reach a disk that it has to keep another node out of it may need the secret of the disk's volume.
"""

from typing import Final

from volagent.client.contract import FENCINGS
from volagent.client.shared import SharedCopies
from volagent.objects.fencing import PENDING, Fencing
from volagent.objects.rbac import Action
from volagent.objects.references import Reference, login_references

_READ: Final = frozenset({"get", "list", "watch"})
_CHANGE: Final = frozenset({"get", "update", "patch"})


class FencingRights:
    """Answers for the agents of nodes."""

    def __init__(self, copies: SharedCopies) -> None:
        """Before `copies.run`."""
        self._volumes = copies.volumes
        self._fencings = copies.follow(FENCINGS, Fencing)

    def may(self, node: str, action: Action, field_selector: str) -> bool:
        """Whether a node's agent may do something with `fencings` or `fencings/status`."""
        named = self._fencings.get("", action.name) if action.name else None
        if action.resource == "fencings/status":
            return (
                action.verb in _CHANGE and named is not None and named.spec.executor == node
            )  # fmt: skip
        if action.verb not in _READ:
            return False
        if action.name:
            return named is not None and node in (named.spec.executor, named.spec.node_name)
        terms = field_selector.split(",")
        return f"spec.executor={node}" in terms or f"spec.nodeName={node}" in terms

    def needs(self, node: str, reference: Reference) -> bool:
        """Whether a node needs an object for the disks that it has to keep others out of."""
        return any(
            reference in self._logins_of(fencing)
            for fencing in self._fencings.values()
            if fencing.spec.executor == node and fencing.status.phase == PENDING
        )

    def _logins_of(self, fencing: Fencing) -> set[Reference]:
        name = fencing.spec.source.persistent_volume_name
        volume = self._volumes.get("", name) if name else None
        claim = volume.spec.claim_ref if volume is not None else None
        if volume is None or claim is None:
            return set()
        return login_references(volume, claim.namespace)
