"""Which pods a change may concern, and which nodes a provisioner has refused.

A pod without a node is marked when it changes itself, or one of its claims, or a volume that is
reserved for one. What could make room (nodes, free volumes, classes, pods that leave or arrive)
marks only pods that are `stuck`; when these are many, at most every `SWEEP_S`. All methods are for
the event loop's thread.
"""

import asyncio
from collections.abc import Callable

from volagent.aio.clock import Clock
from volagent.client.informer import Key
from volagent.client.shared import Followed, SharedCopies
from volagent.control.schedule.decide import is_ours
from volagent.control.schedule.volumes import claims_of, is_bound
from volagent.control.schedule.world import is_finished
from volagent.objects.annotations import SELECTED_NODE
from volagent.objects.pod import Pod
from volagent.objects.storage import (
    CSINode,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)

REFUSED_FOR_S = 300.0
"""How long a node where a claim's volume could not be made is left out for that claim."""
SWEEP_AT_ONCE = 32
"""Up to so many stuck pods are looked at for every single change."""
SWEEP_S = 0.25


class Triggers:
    """Listens to the copies and marks pods."""

    def __init__(
        self,
        copies: SharedCopies,
        csi_nodes: Followed[CSINode],
        clock: Clock,
        mark: Callable[[Key], None],
    ) -> None:
        self.stuck: set[Key] = set()
        """Pods for which there was no node when they were last looked at."""
        self._clock = clock
        self._mark = mark
        self._claims_of: dict[Key, frozenset[Key]] = {}
        self._users: dict[Key, set[Key]] = {}
        """Claim → the pods without a node that use it."""
        self._refused: dict[tuple[str, str], float] = {}
        """Claim's uid and node → until when, by the monotonic clock."""
        self._sweep: asyncio.TimerHandle | None = None
        self._copies = copies
        copies.pods.listen(self._pod_changed)
        copies.claims.listen(self._claim_changed)
        copies.volumes.listen(self._volume_changed)
        copies.nodes.listen(self._node_changed)
        copies.classes.listen(self._class_changed)
        csi_nodes.listen(self._csi_node_changed)

    def is_refused(self, claim_uid: str, node: str) -> bool:
        """Whether a claim's volume lately could not be made on a node."""
        until_s = self._refused.get((claim_uid, node))
        return until_s is not None and self._clock.monotonic() < until_s

    def refusal_ends_s(self, pod: Pod) -> float | None:
        """Seconds until the first refusal of one of a pod's claims is over, or None."""
        uids = {
            claim.metadata.uid
            for name, _ in claims_of(pod)
            if (claim := self._copies.claims.get(pod.metadata.namespace, name)) is not None
        }
        now_s = self._clock.monotonic()
        left_s = [
            until_s - now_s
            for (uid, _), until_s in self._refused.items()
            if uid in uids and until_s > now_s
        ]
        return min(left_s, default=None)

    # -- changes -----------------------------------------------------------------------------

    def _pod_changed(self, key: Key, old: Pod | None, new: Pod | None) -> None:
        ours = new is not None and is_ours(new)
        self._note_claims(key, new if ours else None)
        if ours:
            if old is None or new is None or _differs(old, new):
                self._mark(key)
        else:
            self._mark(key)  # to forget it
        if (old is not None and bool(old.spec.node_name)) or (new and new.spec.node_name):
            self._pod_elsewhere(old, new)

    def _pod_elsewhere(self, old: Pod | None, new: Pod | None) -> None:
        """A pod came to a node, left it, finished, or changed its labels."""
        if _place(old) != _place(new):
            self._mark_stuck()

    def _note_claims(self, key: Key, pod: Pod | None) -> None:
        claims = (
            frozenset((pod.metadata.namespace, name) for name, _ in claims_of(pod))
            if pod is not None
            else frozenset()
        )
        for claim in self._claims_of.pop(key, frozenset()) - claims:
            users = self._users[claim]
            users.discard(key)
            if not users:
                del self._users[claim]
        if claims:
            self._claims_of[key] = claims
            for claim in claims:
                self._users.setdefault(claim, set()).add(key)

    def _claim_changed(
        self, key: Key, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
    ) -> None:
        if old is not None and new is not None and not is_bound(new):
            self._note_refusal(old, new)
        for pod in sorted(self._users.get(key, ())):
            self._mark(pod)

    def _note_refusal(self, old: PersistentVolumeClaim, new: PersistentVolumeClaim) -> None:
        """Only a provisioner takes the annotation away: it could not do it there."""
        node = (old.metadata.annotations or {}).get(SELECTED_NODE)
        if not node or (new.metadata.annotations or {}).get(SELECTED_NODE):
            return
        now_s = self._clock.monotonic()
        for each in [each for each, until_s in self._refused.items() if until_s <= now_s]:
            del self._refused[each]
        self._refused[new.metadata.uid, node] = now_s + REFUSED_FOR_S

    def _volume_changed(
        self, _key: Key, old: PersistentVolume | None, new: PersistentVolume | None
    ) -> None:
        for volume in (old, new):
            reference = volume.spec.claim_ref if volume is not None else None
            if reference is not None:
                for pod in sorted(self._users.get((reference.namespace, reference.name), ())):
                    self._mark(pod)
        if new is not None and new.spec.claim_ref is None and new.status.phase == "Available":
            self._mark_stuck()

    def _node_changed(self, _key: Key, old: Node | None, new: Node | None) -> None:
        if _offer(old) != _offer(new):
            self._mark_stuck()

    def _class_changed(
        self, _key: Key, _old: StorageClass | None, _new: StorageClass | None
    ) -> None:
        self._mark_stuck()

    def _csi_node_changed(self, _key: Key, _old: CSINode | None, _new: CSINode | None) -> None:
        self._mark_stuck()

    def _mark_stuck(self) -> None:
        if self._sweep is not None:
            return
        if len(self.stuck) <= SWEEP_AT_ONCE:
            self._sweep_now()
        else:
            loop = asyncio.get_running_loop()
            self._sweep = loop.call_later(SWEEP_S, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweep = None
        for key in sorted(self.stuck):
            self._mark(key)


def _differs(old: Pod, new: Pod) -> bool:
    """Whether more than the status has changed."""
    before, after = old.metadata, new.metadata
    return (old.spec, before.labels, before.uid) != (new.spec, after.labels, after.uid)


def _place(pod: Pod | None) -> object:
    if pod is None or not pod.spec.node_name or is_finished(pod):
        return None
    return pod.spec.node_name, pod.metadata.labels, pod.metadata.deletion_timestamp


def _offer(node: Node | None) -> object:
    """What of a node a decision looks at."""
    if node is None:
        return None
    ready = [each.status for each in node.status.conditions or () if each.type == "Ready"]
    return node.metadata.labels, node.spec, node.status.allocatable, ready
