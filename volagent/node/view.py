"""What the node tells about itself: `explain`, the dry run, its status. Read-only.

The documents are the ones that the command line prints; `docs/operations.md` shows them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from volagent.aio.clock import format_micro_time
from volagent.client.contract import BadRequest, NotFound
from volagent.drivers.contract import Phase
from volagent.host.contract import MountId
from volagent.node.agent import NodeAgent
from volagent.node.plan import Wanted, plan
from volagent.node.pods import PodEntry
from volagent.node.records import Held, VolumeRecord
from volagent.node.resolved import ResolvedPod, ResolvedVolume
from volagent.node.status import is_published
from volagent.node.trace import StepTrace
from volagent.node.work import STEP_NAMES
from volagent.objects.meta import Document, PodUid
from volagent.objects.pod import Pod, read_pod
from volagent.objects.pod_claims import claim_source_of

_STATES = {Held.YES: "done", Held.UNKNOWN: "running", Held.NO: "pending"}


@dataclass(frozen=True, slots=True)
class AgentView:
    """Answers questions about the agent's pods."""

    agent: NodeAgent
    describe_containers: Callable[[Pod, ResolvedPod], list[Document]]
    describe_backends: Callable[[], list[Document]]
    started_at: datetime
    recovery_s: Callable[[], float]

    def explain(self, namespace: str, name: str) -> Document:
        """Why a pod's volumes are where they are: each step with its evidence or its error."""
        entry = self._entry(namespace, name)
        uid = PodUid(entry.pod.metadata.uid)
        resolved = self.agent.index.pod(uid) or ResolvedPod(uid)
        steps = [*self._first_steps(entry, resolved)]
        for volume in resolved.volumes.values():
            steps += self._volume_steps(uid, volume)
        steps.append(self._hand_over_step(entry))
        return {
            "kind": "Explanation",
            "pod": f"{namespace}/{name}",
            "uid": uid,
            "node": self.agent.config.node_name,
            "phase": entry.status.get("phase") or "Pending",
            "summary": self._summary(entry, resolved),
            "steps": steps,
            "volumes": [*self._volumes(uid, resolved)],
            "timeline": [
                {"at": format_micro_time(m.at), "volume": m.volume, "what": m.what}
                for m in self.agent.trace.moments(uid)
            ],
        }

    def mounts(self, namespace: str, name: str) -> Document:
        """The OCI mounts of each container of a pod."""
        entry = self._entry(namespace, name)
        uid = PodUid(entry.pod.metadata.uid)
        resolved = self.agent.index.pod(uid) or ResolvedPod(uid)
        return {
            "kind": "PodMounts",
            "pod": f"{namespace}/{name}",
            "uid": uid,
            "ready": entry.ready,
            "containers": self.describe_containers(entry.pod, resolved),
        }

    def plan(self, document: Document) -> Document:
        """The steps that declaring this pod here would lead to; nothing is done."""
        metadata = {"namespace": "default", "uid": "dry-run", **document.get("metadata", {})}
        try:
            pod = read_pod({**document, "metadata": metadata})
        except msgspec.ValidationError as error:
            raise BadRequest(str(error)) from error
        resolved = self.agent.resolver.resolve_pod(pod)
        steps: list[Document] = []
        for volume in resolved.volumes.values():
            wanted = Wanted(volume.spec, volume.source, volume.phases, {resolved.uid: volume.use})
            steps += [
                {
                    "volume": volume.name,
                    "step": STEP_NAMES[type(step)],
                    "what": f"{step.describe()} ({volume.spec.driver})",
                }
                for step in plan(wanted, self.agent.actual.get(volume.spec.key))
            ]
        problems = [
            {"volume": volume, "error": problem.error, "remedy": problem.remedy}
            for volume, problem in resolved.problems.items()
        ]
        return {
            "kind": "Plan",
            "pod": f"{pod.metadata.namespace}/{pod.metadata.name}",
            "steps": steps,
            "problems": problems,
        }

    def status(self) -> Document:
        """The node at a glance."""
        agent = self.agent
        counts = {"ready": 0, "working": 0, "failed": 0}
        for key in agent.actual.keys():  # noqa: SIM118  # a method, not a mapping
            wanted, found = agent.index.wanted(key), agent.actual.get(key)
            if agent.trace.failure(key) is not None:
                counts["failed"] += 1
            elif plan(wanted, found, agent.index.live):
                counts["working"] += 1
            else:
                counts["ready"] += 1
        return {
            "kind": "NodeStatus",
            "node": agent.config.node_name,
            "startedAt": format_micro_time(self.started_at),
            "recoverySeconds": self.recovery_s(),
            "pods": len(agent.pods.entries),
            "volumes": counts,
            "backends": self.describe_backends(),
            "orphans": agent.find_orphans(),
        }

    def _entry(self, namespace: str, name: str) -> PodEntry:
        found = None
        for entry in self.agent.pods.entries.values():
            metadata = entry.pod.metadata
            if (metadata.namespace, metadata.name) == (namespace, name):
                if entry.declared:
                    return entry
                found = entry
        if found is None:
            raise NotFound(f'pods "{name}" not found on node {self.agent.config.node_name}')
        return found

    def _first_steps(self, entry: PodEntry, resolved: ResolvedPod) -> Iterator[Document]:
        created = entry.pod.metadata.creation_timestamp
        yield _step("declare", "", "done", evidence="durable in the store", at=created)
        for volume in entry.pod.spec.volumes or ():
            problem = resolved.problems.get(volume.name)
            if problem is not None:
                yield _step(
                    "bind", volume.name, "failed", error=problem.error, remedy=problem.remedy
                )
                continue
            source = claim_source_of(entry.pod, volume)
            if source is not None and volume.name in resolved.volumes:
                pv = resolved.volumes[volume.name].spec.name
                evidence = f"claim {source.claim_name} is bound to {pv}"
                yield _step("bind", volume.name, "done", evidence=evidence)
        node = entry.pod.spec.node_name
        yield _step("schedule", "", "done", evidence=f"on node {node}", at=created)

    def _volume_steps(self, uid: PodUid, volume: ResolvedVolume) -> list[Document]:
        traces = self.agent.trace.steps(volume.spec.key)
        record = self.agent.actual.get(volume.spec.key)
        steps = []
        for phase in volume.phases:
            pod = uid if phase is Phase.PUBLISH else None
            trace = traces.get((phase.value, pod))
            if trace is not None:
                steps.append(_traced(trace, volume.name))
            else:
                steps.append(_recorded(phase, volume.name, record, uid))
        for name, pod in (("refresh", uid), ("expand", None), ("unpublish", uid)):
            trace = traces.get((name, pod))
            if trace is not None:
                steps.append(_traced(trace, volume.name))
        return steps

    def _hand_over_step(self, entry: PodEntry) -> Document:
        if entry.hand_over_error:
            return _step("hand-over", "", "failed", error=entry.hand_over_error)
        if not entry.ready:
            return _step("hand-over", "", "pending")
        running = [
            f"{status['name']} {next(iter(status.get('state') or {}), 'waiting')}"
            for status in entry.status.get("containerStatuses") or ()
        ]
        evidence = ", ".join(running) or "mounts are ready for a runtime to take"
        at = format_micro_time(entry.ready_at) if entry.ready_at else None
        return _step("hand-over", "", "done", evidence=evidence, at=at)

    def _summary(self, entry: PodEntry, resolved: ResolvedPod) -> str:
        if entry.deleting:
            left = len(self.agent.actual.keys_of(resolved.uid))
            return f"being withdrawn: {entry.hold.value} still held, {left} volumes left"
        if entry.blockers:
            return "; ".join(blocker.describe() for blocker in entry.blockers)
        if entry.ready:
            count = len(resolved.volumes)
            return "its volume is mounted" if count == 1 else f"all {count} volumes are mounted"
        return f"waiting for {', '.join(entry.waiting) or 'the first look'}"

    def _volumes(self, uid: PodUid, resolved: ResolvedPod) -> Iterator[Document]:
        for name, volume in resolved.volumes.items():
            key = volume.spec.key
            record = self.agent.actual.get(key)
            use = record.uses.get(uid) if record is not None else None
            failure = self.agent.trace.failure(key, uid)
            state = "Working"
            if failure is not None:
                state = "Failed"
            elif is_published(resolved, name, record):
                state = "Ready"
            document: Document = {
                "name": name,
                "driver": volume.spec.driver,
                "key": key,
                "target": (use.mount.path if use is not None else "") or volume.use.target,
                "backend": volume.spec.backend,
                "state": state,
                "mountId": use.mount.mount_id if use is not None else 0,
            }
            if use is not None and use.mount.mount_id:
                entry = self.agent.host.mounts.find_mount(MountId(use.mount.mount_id))
                if entry is not None:
                    document["mounted"] = f"{entry.fs_type} {entry.source}"
            if failure is not None:
                document["blocker"] = failure.error
                document["remedy"] = failure.remedy
                retry = failure.next_retry_at
                document["nextRetryAt"] = format_micro_time(retry) if retry else None
            yield document
        for name, problem in resolved.problems.items():
            if name not in resolved.volumes:
                yield {
                    "name": name, "driver": "", "key": "", "target": "", "backend": "",
                    "state": "Waiting", "blocker": problem.error, "remedy": problem.remedy,
                }  # fmt: skip


def _step(step: str, volume: str, state: str, *, at: str | None = None, **more: Any) -> Document:
    return {"step": step, "volume": volume, "state": state, "startedAt": at, **more}


def _traced(trace: StepTrace, volume: str) -> Document:
    retry = trace.next_retry_at
    return _step(
        trace.step,
        volume,
        trace.state,
        at=format_micro_time(trace.started_at),
        tookMs=round(trace.took_ms, 3) if trace.took_ms is not None else None,
        evidence=trace.evidence,
        error=trace.error,
        remedy=trace.remedy,
        attempts=trace.attempts,
        nextRetryAt=format_micro_time(retry) if retry is not None else None,
    )


def _recorded(phase: Phase, volume: str, record: VolumeRecord | None, uid: PodUid) -> Document:
    held = Held.NO
    if record is not None:
        match phase:
            case Phase.ATTACH:
                held = record.attached
            case Phase.PREPARE:
                held = Held.YES if record.prepared or record.staged is Held.YES else Held.NO
            case Phase.STAGE:
                held = record.staged
            case Phase.PUBLISH:
                use = record.uses.get(uid)
                held = use.held if use is not None else Held.NO
    evidence = "found in place by recovery" if held is Held.YES else ""
    return _step(phase.value, volume, _STATES[held], evidence=evidence)
