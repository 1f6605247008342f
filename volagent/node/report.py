"""Failures and repairs as events on the pods they concern, in Kubernetes' words."""

from collections.abc import Callable
from dataclasses import dataclass

from volagent.client.events import EventRecorder, Subject, subject_of
from volagent.drivers.contract import VolumeKey
from volagent.node.actual import Actual
from volagent.node.plan import Wanted
from volagent.node.records import VolumeRecord
from volagent.node.status import Blocker
from volagent.node.trace import StepTrace, Trace
from volagent.objects.meta import PodUid
from volagent.objects.pod import Pod
from volagent.observe.logs import get_logger

_log = get_logger("node")

_EVENTS = {
    "attach": ("FailedAttachVolume", "AttachVolume.Attach failed"),
    "prepare": ("FailedMount", "MountVolume.MountDevice failed"),
    "stage": ("FailedMount", "MountVolume.MountDevice failed"),
    "publish": ("FailedMount", "MountVolume.SetUp failed"),
    "refresh": ("FailedMount", "MountVolume.SetUp failed"),
    "expand": ("FileSystemResizeFailed", "MountVolume.NodeExpandVolume failed"),
    "cut": ("FailedDetachVolume", "cutting a lost disk off failed"),
    "unpublish": ("FailedUnmount", "UnmountVolume.TearDown failed"),
    "unstage": ("FailedUnmount", "UnmountDevice failed"),
    "detach": ("FailedDetachVolume", "DetachVolume.Detach failed"),
}
"""Step → reason and the beginning of the sentence; the kubelet's where it has one."""


@dataclass(slots=True)
class EventReporter:
    """Tells pods about their volumes."""

    events: EventRecorder
    actual: Actual
    trace: Trace
    find_pod: Callable[[PodUid], Pod | None]

    def step_failed(self, subject: Wanted | VolumeRecord, step: str, pods: list[PodUid]) -> None:
        """A step of a volume failed; the trace says how."""
        if isinstance(subject, Wanted):
            key, name = subject.spec.key, subject.spec.name
        else:
            key, name = subject.key, subject.name
        only = pods[0] if len(pods) == 1 else None
        steps = self.trace.steps(key)
        trace = steps.get((step, only)) or steps.get((step, None))
        if trace is None:
            return
        reason, beginning = _EVENTS[step]
        message = f'{beginning} for volume "{name}" : {_sentence(trace)}'
        _log.warning(
            "volume step failed", volume=key, step=step, error=trace.error, remedy=trace.remedy,
            attempts=trace.attempts, took_ms=trace.took_ms,
        )  # fmt: skip
        for uid in pods:
            self._warn(uid, reason, message)

    def step_recovered(self, key: VolumeKey, step: str) -> None:
        """A step that had failed is done."""
        record = self.actual.get(key)
        if record is None:
            return
        reason, beginning = _EVENTS[step]
        text = f'{beginning.replace("failed", "succeeded")} for volume "{record.name}"'
        for uid in record.uses:
            subject = self._subject(uid)
            if subject is not None:
                self.events.normal(subject, reason.replace("Failed", "Successful"), text)

    def mount_lost(self, key: VolumeKey, pod: PodUid | None, path: str) -> None:
        """Somebody unmounted a volume; it is being mounted again."""
        self._tell_users(
            key, pod, "VolumeUnmounted",
            f'volume "{{}}" was unmounted by somebody else at {path}; mounting it again',
        )  # fmt: skip

    def mount_covered(self, key: VolumeKey, pod: PodUid | None, path: str) -> None:
        """Somebody mounted something over a volume."""
        self._tell_users(
            key, pod, "VolumeCovered",
            f'volume "{{}}" is covered by another mount at {path} (umount {path})',
        )  # fmt: skip

    def problem(self, pod: Pod, blocker: Blocker) -> None:
        """A volume cannot be set up as it is declared."""
        text = f"{blocker.error} ({blocker.remedy})" if blocker.remedy else blocker.error
        if blocker.volume and not text.startswith(("MountVolume", "error processing")):
            text = f'MountVolume.SetUp failed for volume "{blocker.volume}" : {text}'
        self.events.warning(subject_of("Pod", pod.metadata), "FailedMount", text)

    def _tell_users(self, key: VolumeKey, pod: PodUid | None, reason: str, text: str) -> None:
        record = self.actual.get(key)
        if record is None:
            return
        for uid in (pod,) if pod is not None else tuple(record.uses):
            self._warn(uid, reason, text.format(record.name))

    def _warn(self, uid: PodUid, reason: str, message: str) -> None:
        subject = self._subject(uid)
        if subject is not None:
            self.events.warning(subject, reason, message)

    def _subject(self, uid: PodUid) -> Subject | None:
        pod = self.find_pod(uid)
        return subject_of("Pod", pod.metadata) if pod is not None else None


def _sentence(trace: StepTrace) -> str:
    return f"{trace.error} ({trace.remedy})" if trace.remedy else trace.error
