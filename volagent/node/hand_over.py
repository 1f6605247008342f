"""From published volumes to what a runtime is handed; the node's only way to the runtimes.

Knows where each volume stands (the records) and what each container wants (the declaration). CDI
files are written here too: they are the same mounts for people who start containers themselves.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from volagent.aio.clock import Clock, parse_time
from volagent.drivers.contract import VolumeMode
from volagent.drivers.layout import Layout
from volagent.node.actual import Actual
from volagent.node.desired import API_BACKED
from volagent.node.handed import HandOver
from volagent.node.pulled import PulledMounts
from volagent.node.resolved import Problem, ResolvedPod, ResolvedVolume
from volagent.node.sub_paths import resolve_sub_path, sub_path_name
from volagent.node.world import NodeWorld
from volagent.objects.meta import Document, PodUid
from volagent.objects.pod import Container, Pod
from volagent.runtime.cdi import CdiDirectory, device_name
from volagent.runtime.contract import HandedVolume, NodeFacts, OciMount, Runner, SpecError
from volagent.runtime.env import Objects
from volagent.runtime.spec import (
    all_containers,
    build_devices,
    build_mounts,
    build_specs,
    sub_path_uses,
    to_oci,
)

HOLDER_LOOK_S = 0.5
"""The end of a mount namespace is announced by nobody; looked for only during a pod's grace."""


@dataclass(slots=True)
class RuntimeHandOver:
    """Hands a pod's volumes to a runner, and offers them as CDI devices."""

    runner: Runner
    layout: Layout
    facts: NodeFacts
    starts_containers: bool
    """False for the pull runtime: then no container's environment is worked out."""
    recursive_read_only: bool
    cdi: CdiDirectory | None
    clock: Clock
    pulled: PulledMounts | None = None
    world: NodeWorld | None = None
    actual: Actual | None = None

    def connect(self, world: NodeWorld, actual: Actual, pulled: PulledMounts) -> None:
        """Learn where things are looked up; before the first pod."""
        self.world, self.actual, self.pulled = world, actual, pulled

    def prune(self, pods: Iterable[Pod]) -> None:
        """Remove the CDI files of pods that are gone; `pods` are all that are declared here."""
        if self.cdi is not None:
            self.cdi.prune({device_name(pod) for pod in pods})

    def sub_paths(
        self, pod: Pod, resolved: ResolvedPod
    ) -> tuple[Mapping[str, ResolvedVolume], Mapping[str, Problem]]:
        """The sub-paths the pod's containers want, and those that cannot be made out."""
        if not _wants_sub_paths(pod):
            return {}, {}
        uses, errors = sub_path_uses(pod, self._objects(pod))
        found: dict[str, ResolvedVolume] = {}
        for use in uses:
            if use.volume in resolved.volumes:
                root = self._path_of(resolved, resolved.volumes[use.volume])
                found[sub_path_name(use)] = resolve_sub_path(resolved, use, root, self.layout)
        problems = {
            error.field: Problem(error.message, "correct the pod and declare it again")
            for error in errors
        }
        return found, problems

    async def sync(self, pod: Pod, resolved: ResolvedPod, *, ready: bool) -> HandOver:
        """Bring the containers where they should be; with `ready` they may be started."""
        error = ""
        specs = None
        if ready and (self.starts_containers or self.cdi is not None):
            volumes, objects = self._handed(pod, resolved), self._objects(pod)
            if self.cdi is not None:
                error = self._offer(self.cdi, pod, volumes, objects)
            if self.starts_containers:
                specs = build_specs(
                    pod, volumes, objects, recursive_read_only=self.recursive_read_only
                )
        seen = await self.runner.sync(pod, specs, deleting=False)
        return HandOver(
            dict(seen.status), seen.volumes_released, seen.error or error, seen.retry_after_s
        )

    async def remove(self, pod: Pod) -> HandOver:
        """Stop and remove the containers; `released` once none exists."""
        if self.cdi is not None:
            self.cdi.remove(pod)  # first, so that nobody starts another one on these volumes
        if not self.starts_containers and self.pulled is not None and _has_grace(pod, self.clock):
            holder = await self.pulled.find_holder(PodUid(pod.metadata.uid))
            if holder is not None:
                return HandOver(
                    error=f"its volumes are still used: {holder}; waiting until the grace is over",
                    retry_after_s=HOLDER_LOOK_S,
                )
        seen = await self.runner.sync(pod, None, deleting=True)
        return HandOver(dict(seen.status), seen.volumes_released, seen.error, seen.retry_after_s)

    def forget(self, pod: Pod) -> None:
        """Nothing of the pod is left: forget what was handed over."""
        self.runner.forget(PodUid(pod.metadata.uid))

    def describe_containers(self, pod: Pod, resolved: ResolvedPod) -> list[Document]:
        """The OCI mounts and devices of each container, as far as they stand now."""
        volumes, objects = self._handed(pod, resolved), self._objects(pod)
        documents: list[Document] = []
        for container in all_containers(pod):
            document: Document = {"name": container.name, "mounts": [], "devices": []}
            try:
                mounts = self._mounts(pod, container, volumes, objects)
                devices = build_devices(container, volumes)
            except SpecError as error:
                document["error"] = str(error)
            else:
                document["mounts"] = to_oci(mounts)
                document["devices"] = [
                    {
                        "path": device.container_path,
                        "hostPath": device.host_path,
                        "permissions": device.permissions,
                    }
                    for device in devices
                ]
            documents.append(document)
        return documents

    def _offer(
        self,
        cdi: CdiDirectory,
        pod: Pod,
        volumes: Mapping[str, HandedVolume],
        objects: Objects,
    ) -> str:
        try:
            handed = {
                container.name: (
                    self._mounts(pod, container, volumes, objects),
                    build_devices(container, volumes),
                )
                for container in all_containers(pod)
            }
            cdi.write(pod, handed)
        except (OSError, SpecError) as error:
            return f"CDI file not written: {error}"
        return ""

    def _mounts(
        self,
        pod: Pod,
        container: Container,
        volumes: Mapping[str, HandedVolume],
        objects: Objects,
    ) -> tuple[OciMount, ...]:
        return build_mounts(
            pod, container, volumes, objects, recursive_read_only=self.recursive_read_only
        )

    def _handed(self, pod: Pod, resolved: ResolvedPod) -> dict[str, HandedVolume]:
        sub_paths: dict[str, dict[tuple[str, int], str]] = {}
        for name, volume in resolved.volumes.items():
            if ":" in name:
                of, container, index = name.split(":")
                path = self._path_of(resolved, volume)
                if path:
                    sub_paths.setdefault(of, {})[(container, int(index))] = path
        return {
            name: self._hand(resolved, volume, sub_paths.get(name, {}))
            for name, volume in resolved.volumes.items()
            if ":" not in name and self._path_of(resolved, volume)
        }

    def _hand(
        self,
        resolved: ResolvedPod,
        volume: ResolvedVolume,
        sub_paths: Mapping[tuple[str, int], str],
    ) -> HandedVolume:
        block = volume.spec.mode is VolumeMode.BLOCK
        assert self.actual is not None
        record = self.actual.get(volume.spec.key)
        device = record.device if record is not None else None
        return HandedVolume(
            name=volume.name,
            path="" if block else self._path_of(resolved, volume),
            device_path=device.path if block and device is not None else "",
            read_only=volume.read_only or volume.spec.read_only,
            always_read_only=volume.source.kind in API_BACKED,
            sub_paths=sub_paths,
        )

    def _path_of(self, resolved: ResolvedPod, volume: ResolvedVolume) -> str:
        assert self.actual is not None
        record = self.actual.get(volume.spec.key)
        use = record.uses.get(resolved.uid) if record is not None else None
        return use.mount.path if use is not None else ""

    def _objects(self, pod: Pod) -> Objects:
        world, namespace = self.world, pod.metadata.namespace
        assert world is not None
        return Objects(
            secret=lambda name: world.secret(namespace, name),
            config_map=lambda name: world.config_map(namespace, name),
            facts=self.facts,
        )


def _wants_sub_paths(pod: Pod) -> bool:
    return any(
        mount.sub_path or mount.sub_path_expr
        for container in all_containers(pod)
        for mount in container.volume_mounts or ()
    )


def _has_grace(pod: Pod, clock: Clock) -> bool:
    """Whether the pod is being deleted and its grace is not over."""
    until = pod.metadata.deletion_timestamp
    return until is not None and clock.wall() < parse_time(until)
