"""Executes one step of a plan: note the intent, ask the driver, note the answer.

The protocol of every step, with a kill possible between any two lines:

1. the record says UNKNOWN (set-up: with the path, so that it can be found) - tmpfs, no fsync;
2. the driver acts; it may be interrupted, hang in its helper, or lie;
3. the record says YES with the mount's id, or the entry is gone.

A step that failed without leaving anything (`Transient`, `Rejected`) sets its intent back; any
other failure leaves UNKNOWN, and the next attempt first clears what stands at the recorded path.
Nothing here decides *what* to do: that is `plan.py`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from volagent.drivers.contract import (
    Anticipates,
    Attaches,
    Done,
    DriverTable,
    Expands,
    HeldDevice,
    HeldMount,
    Prepares,
    Publication,
    Publishes,
    Stages,
    VolumeMode,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected, Transient, Uncertain, Waiting
from volagent.drivers.layout import Layout
from volagent.host.contract import Mounts
from volagent.node.actual import Actual, replace
from volagent.node.attachment import AttachmentGate, attachment_of
from volagent.node.discard import Discarder
from volagent.node.permission import FetchPermission, Permissions
from volagent.node.plan import (
    Attach,
    Cut,
    Detach,
    Expand,
    Prepare,
    Publish,
    Refresh,
    Stage,
    Step,
    Unpublish,
    Unstage,
    Wanted,
)
from volagent.node.records import Held, UseRecord, VolumeRecord

FindAttachment = Callable[[VolumeSpec], Awaitable[str]]
"""The uid of the VolumeAttachment that this node has a disk by; "" when it is not known."""
_CLEAN = (Transient, Rejected, Waiting)
"""Failures after which nothing is left behind."""


@dataclass(frozen=True, slots=True)
class Executor:
    """Runs steps against drivers and keeps the records true."""

    drivers: DriverTable
    actual: Actual
    layout: Layout
    mounts: Mounts
    gate: AttachmentGate
    discarder: Discarder
    find_attachment: FindAttachment
    permissions: Permissions

    async def run(self, step: Step, wanted: Wanted | None) -> str:
        """Execute one step; answers with the driver's evidence.

        Raises `DriverError` or `HostError`; the records then say what may be left.
        """
        match step:
            case Unpublish() | Unstage() | Detach():
                found = self.actual.get(step.key)
                if found is None:
                    return ""
                if found.lost:
                    evidence = await self.discarder.take_down(step, found)
                    if isinstance(step, Detach) and found.identity:
                        self.gate.give_back(step.key)
                    return evidence
                return await self._take_down(step, found)
            case Cut():
                found = self.actual.get(step.key)
                return "" if found is None else await self.discarder.cut(found)
            case Attach():
                return await self._attach(step, wanted)
            case _:
                assert wanted is not None
                self._check_attachment(wanted.spec)
                return await self._set_up(step, wanted)

    def _check_attachment(self, spec: VolumeSpec) -> None:
        """Raises `Waiting` for a networked disk that the cluster has not attached here."""
        if not spec.identity:
            return
        for key in self.actual.keys():  # noqa: SIM118  # a method, not a mapping
            other = self.actual.get(key)
            if other is not None and other.identity == spec.identity and key != spec.key:
                raise Transient(
                    f"{spec.identity} is in use on this node as another volume, {other.name}",
                    remedy=f"{spec.name} and {other.name} name the same disk: keep one of them",
                )
        if self.gate.is_fenced(attachment_of(spec)):
            self.gate.await_grant(attachment_of(spec), spec.key)
            raise Waiting(
                f"{spec.identity} was taken from this node while it was silent",
                remedy="see `volagent get fencings`; it goes on when the Fencing is gone and the"
                " disk is attached here again",
            )
        if not self.gate.guard():
            self.gate.await_grant(attachment_of(spec), spec.key)
            raise Waiting(
                f"{spec.identity} may not be touched: no server was heard since this node was"
                " silent or started",
                remedy="see whether a server is reached; it goes on by itself",
            )
        if not self.gate.is_granted(attachment_of(spec)):
            self.gate.await_grant(attachment_of(spec), spec.key)
            raise Waiting(
                f"{spec.identity} is not attached to this node yet",
                remedy=f"see `volagent describe pv {spec.name}` for who has it",
            )

    def _as_attached(self, spec: VolumeSpec) -> VolumeSpec:
        """With what the storage says of a networked disk."""
        path = self.gate.device_path(attachment_of(spec)) if spec.identity else ""
        return replace(spec, device_path=path) if path else spec

    async def _set_up(
        self, step: Prepare | Stage | Publish | Refresh | Expand, wanted: Wanted
    ) -> str:
        match step:
            case Prepare():
                return await self._prepare(wanted)
            case Stage():
                return await self._stage(wanted)
            case Expand():
                return await self._expand(wanted)
            case Publish() | Refresh():
                return await self._publish(step, wanted)

    async def _attach(self, step: Attach, wanted: Wanted | None) -> str:
        found = self.actual.get(step.key)
        if wanted is not None:
            subject: Wanted | VolumeRecord = wanted
            spec = wanted.spec
        else:
            assert found is not None
            subject = found
            spec = self._spec_of(found)
        if spec.identity and not self.gate.is_granted(attachment_of(spec)):
            await self._anticipate(spec)
        self._check_attachment(spec)
        spec = self._as_attached(spec)
        driver = cast("Attaches", self.drivers[spec.driver])
        known = found.device if found is not None else None
        permission = await self.permissions.ask(spec)
        uid = permission.attachment_uid if permission is not None else ""
        uid = uid or await self._look_up_attachment(spec, found)
        self.actual.set_attached(subject, Held.UNKNOWN, known)  # (1)
        if uid:
            self.actual.set_attachment(step.key, uid)
        try:
            done = await driver.attach(replace(spec, permission=permission))  # (2)
        except _CLEAN:
            self.actual.set_attached(self._now(step, subject), Held.NO)
            raise
        self.actual.set_attached(self._now(step, subject), Held.YES, done.device)  # (3)
        return done.evidence

    async def _anticipate(self, spec: VolumeSpec) -> None:
        """Have the driver get ready while the disk is another node's."""
        driver = self.drivers[spec.driver]
        if isinstance(driver, Anticipates):
            await driver.anticipate(spec)

    async def _look_up_attachment(self, spec: VolumeSpec, found: VolumeRecord | None) -> str:
        """What is to be noted; "" for what is noted already. Looks at the permission once more."""
        if not spec.identity or spec.shared or (found is not None and found.attachment_uid):
            return ""
        uid = await self.find_attachment(spec)
        self._check_attachment(spec)
        return uid

    async def _prepare(self, wanted: Wanted) -> str:
        driver = cast("Prepares", self.drivers[wanted.spec.driver])
        try:
            done = await driver.prepare(wanted.spec, self._device(wanted))
        except Uncertain:
            self._doubt_device(wanted)
            raise
        self.actual.set_prepared(wanted)
        return done.evidence

    async def _stage(self, wanted: Wanted) -> str:
        spec = wanted.spec
        driver = cast("Stages", self.drivers[spec.driver])
        found = self.actual.get(spec.key)
        target = self.stage_path(wanted)
        intent = HeldMount(target, backend=_hanging(spec))
        if found is not None and found.staged is Held.UNKNOWN:
            standing = self._standing_at(intent)
            if standing is not None:
                await driver.unstage(replace(intent, mount_id=standing))
        self.actual.set_staged(wanted, Held.UNKNOWN, intent)  # (1)
        try:
            done = await driver.stage(spec, self._device(wanted), target)  # (2)
        except _CLEAN:
            self.actual.set_staged(wanted, Held.NO, None)
            raise
        except Uncertain:
            self._doubt_device(wanted)
            raise
        self.actual.set_staged(wanted, Held.YES, done.mount)  # (3)
        return done.evidence

    async def _expand(self, wanted: Wanted) -> str:
        spec = wanted.spec
        found = self.actual.get(spec.key)
        assert found is not None
        device = self._device(wanted)
        done: Done
        if found.stage is None:
            # A raw device is in use: it is only looked at again, and takes its new size.
            attaches = cast("Attaches", self.drivers[spec.driver])
            done = await attaches.attach(self._as_attached(spec))
        else:
            driver = cast("Expands", self.drivers[spec.driver])
            done = await driver.expand(spec, device, found.stage)
        grown = replace(device, size_bytes=max(device.size_bytes, spec.capacity_bytes or 0))
        self.actual.put(replace(self.actual.get(spec.key) or found, device=grown))
        return done.evidence

    async def _publish(self, step: Publish | Refresh, wanted: Wanted) -> str:
        spec, use = wanted.spec, wanted.uses[step.pod]
        driver = cast("Publishes", self.drivers[spec.driver])
        found = self.actual.get(spec.key)
        before = found.uses.get(step.pod) if found is not None else None
        if spec.one_pod and found is not None:
            _refuse_second_pod(found, use)
        if isinstance(step, Publish):
            intent = HeldMount(use.target, backend=_hanging(spec))
            if before is not None and before.held is Held.UNKNOWN:
                standing = self._standing_at(intent)
                if standing is not None:
                    await driver.unpublish(replace(intent, mount_id=standing))
            self.actual.set_use(wanted, step.pod, Held.UNKNOWN, intent, use.pod_name)  # (1)
        try:
            done = await driver.publish(  # (2)
                spec,
                use,
                staged=found.stage if found is not None else None,
                device=found.device if found is not None else None,
            )
        except _CLEAN:
            if isinstance(step, Publish):
                record = self.actual.get(spec.key)
                assert record is not None
                self.actual.drop_use(record, step.pod)
            raise
        except Uncertain:
            if spec.mode is VolumeMode.BLOCK:
                self._doubt_device(wanted)
            raise
        self.actual.set_use(wanted, step.pod, Held.YES, done.mount, use.pod_name)  # (3)
        return done.evidence

    async def _take_down(self, step: Unpublish | Unstage | Detach, found: VolumeRecord) -> str:
        driver: Any = self.drivers[found.driver]
        match step:
            case Unpublish():
                use = found.uses.get(step.pod)
                if use is None:
                    return ""
                mount = self._as_it_stands(use)
                self.actual.set_use(found, step.pod, Held.UNKNOWN, mount)  # (1)
                done = await cast("Publishes", driver).unpublish(mount)  # (2)
                self.actual.drop_use(self.actual.get(step.key) or found, step.pod)  # (3)
                return done.evidence
            case Unstage():
                stage = found.stage
                if stage is None:
                    self.actual.set_staged(found, Held.NO, None)
                    return ""
                if found.staged is Held.UNKNOWN:
                    stage = replace(stage, mount_id=self._standing_at(stage) or 0)
                self.actual.set_staged(found, Held.UNKNOWN, stage)  # (1)
                done = await cast("Stages", driver).unstage(stage)  # (2)
                self.actual.set_staged(self.actual.get(step.key) or found, Held.NO, None)  # (3)
                return done.evidence
            case Detach():
                if found.device is None:
                    self.actual.set_attached(found, Held.NO)
                    return ""
                self.actual.set_attached(found, Held.UNKNOWN, found.device)  # (1)
                done = await cast("Attaches", driver).detach(found.name, found.device)  # (2)
                self.actual.set_attached(self.actual.get(step.key) or found, Held.NO)  # (3)
                if found.identity:
                    self.gate.give_back(step.key)
                return done.evidence

    def stage_path(self, wanted: Wanted) -> str:
        """The volume's global mount."""
        spec = wanted.spec
        if wanted.source.kind == "csi":
            handle = str(wanted.source.body.get("volumeHandle") or spec.name)
            return self.layout.csi_stage(spec.driver, handle)
        return self.layout.device_stage(spec.driver, spec.name)

    def _as_it_stands(self, use: UseRecord) -> HeldMount:
        if use.held is not Held.UNKNOWN or use.mount.mount_id or not use.mount.path:
            return use.mount
        return replace(use.mount, mount_id=self._standing_at(use.mount) or 0)

    def _standing_at(self, mount: HeldMount) -> int | None:
        """The topmost mount at a path: for the rare unknown.

        A path on a backend that can hang is never touched: there the whole table is read.
        """
        if not mount.backend:
            standing = self.mounts.find_mount_at(mount.path)
            return standing.mount_id if standing is not None else None
        found = None
        for entry in self.mounts.read_table().entries:
            if entry.mount_point == mount.path:
                found = entry.mount_id
        return found

    def _device(self, wanted: Wanted) -> HeldDevice:
        found = self.actual.get(wanted.spec.key)
        if found is None or found.device is None:
            raise Transient("the device is not attached")
        return found.device

    def _doubt_device(self, wanted: Wanted) -> None:
        """The device may have vanished or been exchanged: the next try attaches it anew."""
        found = self.actual.get(wanted.spec.key)
        if found is not None and found.attached is Held.YES:
            self.actual.set_attached(wanted, Held.UNKNOWN, found.device)

    def _now(self, step: Step, subject: Wanted | VolumeRecord) -> Wanted | VolumeRecord:
        if isinstance(subject, Wanted):
            return subject
        return self.actual.get(step.key) or subject

    def _spec_of(self, record: VolumeRecord) -> VolumeSpec:
        """The spec of a volume that nobody declares any more, from its recorded source."""
        assert record.source is not None
        options = self.drivers[record.driver].read_options(record.source)
        return VolumeSpec(
            key=record.key,
            driver=record.driver,
            name=record.name,
            options=options,
            mode=record.mode,
            read_only=bool(record.source.body.get("readOnly")),
            capacity_bytes=record.source.capacity_bytes,
            identity=record.identity,
            backend=record.backend,
        )


def make_executor(
    drivers: DriverTable, actual: Actual, layout: Layout, mounts: Mounts,
    *, gate: AttachmentGate, find_attachment: FindAttachment, fetch_permission: FetchPermission,
) -> Executor:  # fmt: skip
    """An executor, with the one that takes down what is lost."""
    discarder = Discarder(drivers, actual, mounts)
    permissions = Permissions(drivers, fetch_permission)
    return Executor(drivers, actual, layout, mounts, gate, discarder, find_attachment,
                    permissions)  # fmt: skip


def _refuse_second_pod(found: VolumeRecord, use: Publication) -> None:
    """Raises `Transient` when another pod has a volume that only one may have."""
    for other, record in found.uses.items():
        if other != use.pod:
            raise Transient(
                "volume uses the ReadWriteOncePod access mode and is already in use by pod"
                f" {record.pod_name or other}",
                remedy="delete one of the two pods",
            )


def _hanging(spec: VolumeSpec) -> str:
    return "" if spec.backend == "local" else spec.backend
