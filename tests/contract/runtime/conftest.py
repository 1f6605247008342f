"""The runtimes under test: the double, and podman for real."""

import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.runtime.fake_runtime import FakeRuntime
from tests.contract.runtime.podman_service import IMAGE, PodmanService, find_lack
from volagent.objects.meta import PodUid
from volagent.runtime.contract import ContainerSpec, PodRef, Runtime
from volagent.runtime.podman import PodmanRuntime

REAL = pytest.param("podman", marks=[pytest.mark.podman, pytest.mark.root])


@pytest.fixture(scope="session")
def podman_service(_scratch_root: Path) -> Iterator[PodmanService]:
    lack = find_lack()
    if lack:
        pytest.skip(lack)
    root = Path(tempfile.mkdtemp(prefix="podman-", dir=_scratch_root))
    service = PodmanService(root)
    try:
        service.start()
        yield service
    finally:
        service.stop()
        shutil.rmtree(root)


@dataclass
class Bench:
    """A runtime with an image, and pods nobody else has."""

    runtime: Runtime
    image: str
    pod: PodRef

    def spec(self, *command: str, name: str = "main", **fields) -> ContainerSpec:
        return ContainerSpec(name=name, image=self.image, command=command, **fields)

    async def state_of(self, container_id: str):
        for state in await self.runtime.list_containers(self.pod.uid):
            if state.container_id == container_id:
                return state
        return None


def make_pod_ref(name: str = "web") -> PodRef:
    return PodRef(PodUid(str(uuid.uuid4())), "default", name)


@pytest.fixture(params=["fake", REAL])
async def bench(request) -> AsyncIterator[Bench]:
    if request.param == "fake":
        yield Bench(FakeRuntime(images={IMAGE}), IMAGE, make_pod_ref())
        return
    async with podman_bench(request.getfixturevalue("podman_service")) as made:
        yield made


@pytest.fixture
async def real_bench(podman_service: PodmanService) -> AsyncIterator[Bench]:
    async with podman_bench(podman_service) as made:
        yield made


@asynccontextmanager
async def podman_bench(service: PodmanService) -> AsyncIterator[Bench]:
    """A bench on podman; removes every container it has made."""
    runtime = PodmanRuntime(service.socket, network="none")
    yield Bench(runtime, IMAGE, make_pod_ref())
    service.remove_containers([state.container_id for state in await runtime.list_containers()])
    await runtime.close()
