"""What to do about one volume, from what is wanted and what is found. Pure.

`plan` answers with the steps that lead from here to there, in order; the executor does the first,
records it, and may ask again at any time: a plan is recomputed, never resumed. Unknown is redone or
looked at, never trusted. Invariants:

- a publication goes before its stage, the stage before its device, each only when nothing uses it;
- nothing is torn down that is still wanted, and nothing set up that is not;
- a volume that is already published is refreshed in place, never unmounted and mounted;
- of a disk that is lost to another node nothing is set up; it is cut off before anything else, and
  taken down whoever wants it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from volagent.drivers.contract import Phase, Publication, VolumeKey, VolumeSource, VolumeSpec
from volagent.node.records import Held, VolumeRecord
from volagent.objects.meta import PodUid


@dataclass(frozen=True, slots=True)
class Wanted:
    """A volume as this node should have it, with every pod that uses it."""

    spec: VolumeSpec
    source: VolumeSource
    phases: tuple[Phase, ...]
    uses: Mapping[PodUid, Publication] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _VolumeStep:
    """What every step has: the volume it is about, and one phrase that says what it does."""

    key: VolumeKey
    what: ClassVar[str]

    def describe(self) -> str:
        """One phrase for logs, dry runs and `explain`."""
        return self.what


@dataclass(frozen=True, slots=True)
class _PodStep(_VolumeStep):
    """A step about one pod's use of the volume."""

    pod: PodUid


@dataclass(frozen=True, slots=True)
class Attach(_VolumeStep):
    """Make the device appear on this node."""

    what = "attach the device"


@dataclass(frozen=True, slots=True)
class Prepare(_VolumeStep):
    """Look for a signature, format what is provably blank, check."""

    what = "look for a signature, format only if provably blank, check the file system"


@dataclass(frozen=True, slots=True)
class Stage(_VolumeStep):
    """Mount it once for this node."""

    what = "mount the device at the global mount"


@dataclass(frozen=True, slots=True)
class Publish(_PodStep):
    """Make it visible in a pod's directory."""

    what = "make the volume visible in the pod's directory"


@dataclass(frozen=True, slots=True)
class Refresh(_PodStep):
    """Bring the content of a published volume up to date, in place."""

    what = "update the content in place"


@dataclass(frozen=True, slots=True)
class Expand(_VolumeStep):
    """Let the file system follow its grown device."""

    what = "grow the file system to the size of its device"


@dataclass(frozen=True, slots=True)
class Cut(_VolumeStep):
    """Have nothing more written to a disk that is another node's now."""

    what = "cut the lost device off, so that nothing is written to it"


@dataclass(frozen=True, slots=True)
class Unpublish(_PodStep):
    """Take it out of a pod's directory."""

    what = "take the volume out of the pod's directory"


@dataclass(frozen=True, slots=True)
class Unstage(_VolumeStep):
    """Unmount the global mount."""

    what = "unmount the global mount"


@dataclass(frozen=True, slots=True)
class Detach(_VolumeStep):
    """Give the device back."""

    what = "give the device back"


Step = Attach | Prepare | Stage | Publish | Refresh | Expand | Cut | Unpublish | Unstage | Detach


def plan(
    wanted: Wanted | None, found: VolumeRecord | None, kept: Collection[PodUid] = ()
) -> tuple[Step, ...]:
    """The steps from what is found to what is wanted; empty when they agree.

    `kept` are pods that may still be running: what they have is never taken from them, even when
    their declaration cannot be resolved at the moment (a deleted secret, a volume not yet listed).
    """
    key = wanted.spec.key if wanted is not None else found.key if found is not None else None
    if key is None:
        return ()
    if found is not None and found.lost:
        return tuple(_discard(key, found, kept))
    uses = wanted.uses if wanted is not None else {}
    steps: list[Step] = []
    if found is not None:
        steps += [Unpublish(key, pod) for pod in found.uses if pod not in uses and pod not in kept]
    if wanted is not None and uses:
        steps += _set_up(key, wanted, found)
    elif found is not None and len(steps) == len(found.uses):
        steps += _take_down(key, found)
    return tuple(steps)


def _set_up(key: VolumeKey, wanted: Wanted, found: VolumeRecord | None) -> list[Step]:
    steps: list[Step] = []
    phases = wanted.phases
    attached = found is not None and found.attached is Held.YES
    prepared = attached and found is not None and found.prepared
    if Phase.ATTACH in phases and not attached:
        steps.append(Attach(key))
    staged = found is not None and found.staged is Held.YES
    if Phase.PREPARE in phases and not prepared and not staged:
        steps.append(Prepare(key))
    if Phase.STAGE in phases and not staged:
        steps.append(Stage(key))
    elif (staged or (attached and Phase.STAGE not in phases)) and _has_grown(wanted, found):
        steps.append(Expand(key))
    for pod, use in wanted.uses.items():
        record = found.uses.get(pod) if found is not None else None
        if record is None or record.held is not Held.YES:
            steps.append(Publish(key, pod))
        elif record.mount.fingerprint != use.fingerprint:
            steps.append(Refresh(key, pod))
    return steps


def _discard(key: VolumeKey, found: VolumeRecord, kept: Collection[PodUid]) -> list[Step]:
    steps: list[Step] = []
    if found.device is not None and not found.cut:
        steps.append(Cut(key))
    going = [Unpublish(key, pod) for pod in found.uses if pod not in kept]
    steps += going
    if len(going) == len(found.uses):
        if found.staged is not Held.NO:
            steps.append(Unstage(key))
        if found.attached is not Held.NO:
            steps.append(Detach(key))
    return steps


def _has_grown(wanted: Wanted, found: VolumeRecord | None) -> bool:
    size = wanted.spec.capacity_bytes
    device = found.device if found is not None else None
    return bool(size and device and device.size_bytes and size > device.size_bytes)


def _take_down(key: VolumeKey, found: VolumeRecord) -> list[Step]:
    steps: list[Step] = []
    if found.staged is not Held.NO:
        steps.append(Unstage(key))
    if found.attached is Held.UNKNOWN and found.device is None:
        steps.append(Attach(key))  # to learn which device it is, if there is one
    if found.attached is not Held.NO:
        steps.append(Detach(key))
    return steps
