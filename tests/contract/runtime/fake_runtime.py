"""A container runtime in memory, held to the same contract as podman.

A started program ends, goes on, or cannot be found, by the table of `programs`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from tests.contract.runtime import programs
from volagent.objects.meta import PodUid
from volagent.runtime.contract import (
    ContainerFailed,
    ContainerRejected,
    ContainerSpec,
    ContainerState,
    ImageMissing,
    PodRef,
    RuntimeUnavailable,
    Stage,
)


@dataclass
class FakeContainer:
    spec: ContainerSpec
    state: ContainerState


@dataclass
class FakeRuntime:
    name: str = "fake"
    recursive_read_only: bool = True
    images: set[str] = field(default_factory=set)
    registry: set[str] = field(default_factory=set)
    """What can be pulled."""
    down: bool = False
    pulled: list[str] = field(default_factory=list)
    wall: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    containers: dict[str, FakeContainer] = field(default_factory=dict)
    _made: int = 0
    _listeners: list[asyncio.Queue] = field(default_factory=list)

    async def version(self) -> str:
        self._answer()
        return "1.0"

    async def list_containers(self, pod: PodUid | None = None) -> Sequence[ContainerState]:
        self._answer()
        states = [container.state for container in self.containers.values()]
        return [state for state in states if pod is None or state.pod.uid == pod]

    async def has_image(self, image: str) -> bool:
        self._answer()
        return image in self.images

    async def pull_image(self, image: str) -> None:
        self._answer()
        self.pulled.append(image)
        await asyncio.sleep(0)
        if image not in self.registry:
            raise ImageMissing(f"{image}: not in the registry")
        self.images.add(image)

    async def create_container(self, pod: PodRef, spec: ContainerSpec, attempt: int) -> str:
        self._answer()
        if spec.image not in self.images:
            raise ImageMissing(f"{spec.image}: image not known")
        if spec.security.must_not_be_root and not spec.security.uid:
            raise ContainerRejected("container has runAsNonRoot and image will run as root")
        for other in list(self.containers.values()):
            state = other.state
            if (state.pod.uid, state.name, state.attempt) == (pod.uid, spec.name, attempt):
                if state.stage is not Stage.CREATED:
                    raise ContainerFailed("the name is already in use")
                del self.containers[state.container_id]
        self._made += 1
        state = ContainerState(
            f"id{self._made}", pod, spec.name, attempt, Stage.CREATED, image=spec.image,
            image_id="sha", mounts=tuple(mount.destination for mount in spec.mounts),
        )  # fmt: skip
        self.containers[state.container_id] = FakeContainer(spec, state)
        return state.container_id

    async def start_container(self, container_id: str) -> None:
        self._answer()
        container = self.containers.get(container_id)
        if container is None:
            raise ContainerFailed("no such container")
        command = (*(container.spec.command or ()), *(container.spec.args or ()))
        if command == programs.MISSING:
            raise ContainerFailed("no such file or directory")
        if container.state.stage is Stage.RUNNING:
            return
        container.state = replace(container.state, stage=Stage.RUNNING, started_at=self.wall)
        if command == programs.ENDS_AT_ONCE:
            self.end(container_id, 0)
        elif command == programs.FAILS_AT_ONCE:
            self.end(container_id, 3)

    async def stop_container(self, container_id: str, *, kill: bool) -> None:
        self._answer()
        container = self.containers.get(container_id)
        if container is None or container.state.stage is not Stage.RUNNING:
            return
        if kill:
            self.end(container_id, 137)
        elif container.spec.command != programs.ENDS_WHEN_KILLED:
            self.end(container_id, 0)

    async def remove_container(self, container_id: str) -> None:
        self._answer()
        container = self.containers.get(container_id)
        if container is None:
            return
        if container.state.stage is Stage.RUNNING:
            raise ContainerFailed("the container is running")
        del self.containers[container_id]
        self._tell(container.state.pod.uid)

    async def follow(self, on_change: Callable[[PodUid | None], None]) -> None:
        queue: asyncio.Queue = asyncio.Queue()
        self._listeners.append(queue)
        on_change(None)
        try:
            while True:
                on_change(await queue.get())
        finally:
            self._listeners.remove(queue)

    async def close(self) -> None:
        pass

    def end(self, container_id: str, exit_code: int, *, after_s: float = 0.0) -> None:
        """A container's program ends, having run for so long."""
        container = self.containers[container_id]
        assert container.state.started_at is not None
        container.state = replace(
            container.state, stage=Stage.EXITED, exit_code=exit_code,
            finished_at=container.state.started_at + timedelta(seconds=after_s),
        )  # fmt: skip
        self._tell(container.state.pod.uid)

    def _answer(self) -> None:
        if self.down:
            raise RuntimeUnavailable("fake: down")

    def _tell(self, pod: PodUid) -> None:
        for listener in self._listeners:
            listener.put_nowait(pod)
