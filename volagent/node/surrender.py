"""Giving disks up while their pods stay declared, and having the pods back afterwards.

Two reasons: this node's lease is over (`fence_keeper.py`), so others may be given its exclusive
disks soon; or it was fenced off a disk, which a proven `Fencing` says or its storage does. In both
the pods' containers are stopped (quickly, or at once), then what is mounted of these disks is taken
down and they are given back; written out in the first case, unwritten in the second (`discard.py`).
All else that a pod has stays: files, local volumes, secrets. Nothing here waits for a server.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from volagent.client.events import subject_of
from volagent.drivers.contract import VolumeKey
from volagent.node.attachment import is_held, name_of
from volagent.node.pods import Hold, PodEntry
from volagent.node.records import Held, VolumeRecord
from volagent.objects.fencing import STORAGE, Fencing
from volagent.objects.meta import PodUid
from volagent.objects.pod import Pod
from volagent.observe.logs import get_logger
from volagent.observe.metrics import volumes_lost

if TYPE_CHECKING:
    from volagent.node.agent import NodeAgent

_log = get_logger("fence")


class Surrender:
    """Takes disks from this node's pods, and brings the pods back."""

    def __init__(self, agent: "NodeAgent") -> None:
        self._agent = agent

    def held(self) -> list[str]:
        """The exclusive disks that somebody here may write to, by their unique names."""
        found = (each for each in self._records() if each.exclusive and may_write(each))
        return sorted({name_of(each) for each in found})

    def give_up(self, grace_s: float) -> None:
        """Give up all exclusive disks; containers are killed after `grace_s`. Idempotent."""
        keys = {
            each.key for each in self._records() if each.exclusive and (is_held(each) or each.uses)
        }
        self._take_from_pods(
            keys, grace_s, "LeaseLost",
            "no server was reached for too long: its containers are stopped and its exclusive disks"
            " given up; it goes on when a server permits it",
        )  # fmt: skip
        self._break_writes_off()

    def discard(self, fencings: Collection[Fencing]) -> None:
        """Give up what these, which are proven, are about, or were. Idempotent."""
        lost: set[VolumeKey] = set()
        for record in self._records():
            fencing = next((each for each in fencings if is_about(each, record)), None)
            if fencing is None and not record.lost:
                continue
            lost.add(record.key)
            if fencing is not None and not record.lost:
                method, evidence = fencing.spec.method, fencing.status.message
                text = f"taken from this node while it was silent, by {method}: {evidence}"
                self._lose(record, method, text)
        self._take_lost(lost)

    def discard_kept_out(self, record: VolumeRecord) -> None:
        """Give up what its storage refuses this node, though no proven Fencing says so.

        A fence that was called off after its first step leaves that, and a storage that forgets.
        The disk may be attached anew afterwards, if the cluster still permits it.
        """
        text = "refused by its storage, which does not know this node's key any more"
        self._lose(record, STORAGE, text)
        self._take_lost({record.key})

    def _take_lost(self, keys: set[VolumeKey]) -> None:
        self._take_from_pods(
            keys, 0.0, "DiskLost",
            "a disk of it takes no more writes of this node: its containers are killed, and what"
            " was not written out is lost",
        )  # fmt: skip

    def bring_back(self) -> None:
        """Let pods have their disks again once nothing is left of what they had."""
        for uid, entry in self._agent.pods.entries.items():
            if entry.surrendered and not any(map(self._agent.actual.get, entry.surrendered)):
                self._bring_back(uid, entry)

    def _bring_back(self, uid: PodUid, entry: PodEntry) -> None:
        agent = self._agent
        _log.info("pod may have its disks again", pod=_name(entry.pod))
        subject = subject_of("Pod", entry.pod.metadata)
        agent.events.normal(subject, "DisksPermitted", "it may have its exclusive disks again")
        entry.surrendered, entry.hurried = frozenset(), None
        entry.hold, entry.containers_gone, entry.ready = Hold.CONTAINERS, False, False
        agent.index.keep(uid)
        agent.resolve(entry.pod)
        agent.pod_queue.mark(uid)

    def _lose(self, record: VolumeRecord, method: str, text: str) -> None:
        agent = self._agent
        agent.actual.set_lost(record.key, text)
        volumes_lost.labels(method).inc()
        _log.error(
            "disk lost to a fence", volume=record.key, disk=name_of(record), why=text,
            pods=len(record.uses),
            remedy="what was not written out is lost; the pods here have ended",
        )  # fmt: skip
        for uid in record.uses:
            entry = agent.pods.entries.get(uid)
            if entry is not None:
                subject = subject_of("Pod", entry.pod.metadata)
                agent.events.warning(subject, "VolumeFenced", f'volume "{record.name}" was {text}')

    def _take_from_pods(self, keys: set[VolumeKey], grace_s: float, reason: str, text: str) -> None:
        agent = self._agent
        fresh: set[VolumeKey] = set()
        for uid, entry in agent.pods.entries.items():
            mine = frozenset(keys & self._keys_of(uid))
            if mine <= entry.surrendered:
                continue
            fresh |= mine
            entry.surrendered |= mine
            entry.hurried = hurry(entry.hurried or entry.pod, grace_s)
            entry.hold = Hold.CONTAINERS
            agent.pod_queue.mark(uid)
            agent.events.warning(subject_of("Pod", entry.pod.metadata), reason, text)
            _log.warning("stopping a pod to give its disks up", pod=_name(entry.pod),
                         disks=sorted(mine), grace_s=round(grace_s, 1))  # fmt: skip
        unused = {key for key in keys if not agent.volume_queue.is_waiting(key)}
        agent.mark_volumes(fresh | self._without_pods(unused))

    def _break_writes_off(self) -> None:
        """No server answers: nobody shall wait for that while there is something to give up."""
        for entry in self._agent.pods.entries.values():
            entry.writing.break_off()

    def _without_pods(self, keys: set[VolumeKey]) -> set[VolumeKey]:
        """Those that no pod keeps any more, so that only their own workers have to try again."""
        found = ((key, self._agent.actual.get(key)) for key in keys)
        return {key for key, record in found if record is not None and not record.uses}

    def _keys_of(self, uid: PodUid) -> set[VolumeKey]:
        agent = self._agent
        resolved = agent.index.pod(uid)
        wanted = {each.spec.key for each in resolved.volumes.values()} if resolved else set()
        return wanted | set(agent.actual.keys_of(uid))

    def _records(self) -> list[VolumeRecord]:
        actual = self._agent.actual
        found = (actual.get(key) for key in actual.keys())  # noqa: SIM118  # a method
        return [record for record in found if record is not None]


def may_write(record: VolumeRecord) -> bool:
    """Whether anybody here could write to a disk: by a mount, a device node, a tool of ours.

    A device that may be there, but that no step got to know, has no user.
    """
    if record.cut:
        return False
    return bool(record.uses) or record.staged is not Held.NO or record.device is not None


def is_about(fencing: Fencing, record: VolumeRecord) -> bool:
    """Whether what a node has of a disk is what it was fenced off.

    The uid tells attachments of one disk to one node apart; where it is not known (noted by an
    older agent), the disk does.
    """
    if not fencing.proven or not record.exclusive or name_of(record) != fencing.spec.volume:
        return False
    return record.attachment_uid in ("", fencing.spec.attachment.uid)


def hurry(pod: Pod, grace_s: float) -> Pod:
    """The pod, with no more than so long for its containers to end."""
    metadata = pod.metadata
    asked = metadata.deletion_grace_period_seconds
    if asked is None:
        asked = pod.spec.termination_grace_period_seconds
    grace = int(grace_s) if asked is None else min(asked, int(grace_s))
    metadata = msgspec.structs.replace(metadata, deletion_grace_period_seconds=grace)
    return msgspec.structs.replace(pod, metadata=metadata)


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}"
