"""The runner on virtual time: images, and a runtime that does not answer."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.contract.runtime import programs
from tests.contract.runtime.fake_runtime import FakeRuntime
from tests.unit.runtime.pod_making import REF, UID, make_container, make_objects, make_pod
from volagent.aio.clock import SystemClock
from volagent.runtime.contract import RuntimeUnavailable, Stage
from volagent.runtime.none import NoRunner
from volagent.runtime.pods import UNAVAILABLE_RETRY_S, PodRunner
from volagent.runtime.spec import build_specs


class HandClock(SystemClock):
    """A clock that is moved by hand."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Bench:
    def __init__(self, *, policy="IfNotPresent", command=programs.ENDS_WHEN_ASKED) -> None:
        self.runtime = FakeRuntime()
        self.clock = HandClock()
        self.runner = PodRunner(self.runtime, self.clock)
        self.pod = make_pod(make_container(command=list(command), imagePullPolicy=policy))
        self.told = asyncio.Event()

    async def sync(self, *, deleting=False):
        specs = build_specs(self.pod, {}, make_objects())
        return await self.runner.sync(self.pod, specs, deleting=deleting)

    def find_running(self, attempt):
        for container in self.runtime.containers.values():
            if container.state.attempt == attempt and container.state.stage is Stage.RUNNING:
                return container.state.container_id
        return None

    @asynccontextmanager
    async def loops(self):
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(loop) for _, loop in self.runner.loops(lambda _: self.told.set())
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    async def sync_until(self, holds):
        """Sync, and again with everything that is told, until it holds; the last answer."""
        async with asyncio.timeout(5):
            while True:
                self.told.clear()
                seen = await self.sync()
                if holds(seen):
                    return seen
                await self.told.wait()


def waiting(observation):
    return observation.status["containerStatuses"][0]["state"]["waiting"]["reason"]


async def test_image_is_pulled_beside_and_the_pod_looked_at_again():
    bench = Bench()
    bench.runtime.registry.add("app:1")
    seen = await bench.sync()
    assert waiting(seen) == "ContainerCreating"
    assert seen.retry_after_s is None
    async with bench.loops():
        seen = await bench.sync_until(lambda _: bench.find_running(0))
    assert seen.status["phase"] == "Running"
    assert bench.runtime.pulled == ["app:1"]


async def test_image_is_pulled_for_every_start_when_the_policy_is_always():
    bench = Bench(policy="Always")
    bench.runtime.images.add("app:1")
    bench.runtime.registry.add("app:1")
    async with bench.loops():
        for attempt in (0, 1):
            await bench.sync_until(lambda _, n=attempt: bench.find_running(n) is not None)
            bench.runtime.end(bench.find_running(attempt), 1)
    assert len(bench.runtime.pulled) == 2


async def test_image_is_pulled_once_for_all_who_wait_for_it():
    bench = Bench()
    bench.runtime.registry.add("app:1")
    bench.pod = make_pod(*(make_container(name, command=["/bin/sleep"]) for name in "abc"))
    await bench.sync()
    await bench.sync()
    async with bench.loops():
        seen = await bench.sync_until(lambda _: len(bench.runtime.containers) == 3)
    assert seen.status["phase"] == "Running"
    assert bench.runtime.pulled == ["app:1"]


async def test_pull_that_fails_is_told_and_tried_again_after_a_while():
    bench = Bench()
    async with bench.loops():
        seen = await bench.sync_until(lambda seen: waiting(seen) == "ErrImagePull")
        assert seen.retry_after_s == 10
        bench.clock.now_s += 5
        assert waiting(await bench.sync()) == "ImagePullBackOff"
        assert bench.runtime.pulled == ["app:1"]
        bench.runtime.registry.add("app:1")
        bench.clock.now_s += 5
        await bench.sync_until(lambda _: bench.find_running(0))


async def test_status_stays_and_volumes_are_kept_when_the_runtime_does_not_answer():
    bench = Bench()
    bench.runtime.images.add("app:1")
    before = await bench.sync()
    bench.runtime.down = True
    for deleting in (False, True):
        seen = await bench.sync(deleting=deleting)
        assert seen.status == before.status
        assert not seen.volumes_released
        assert seen.error == "fake: down"
        assert seen.retry_after_s == UNAVAILABLE_RETRY_S
    with pytest.raises(RuntimeUnavailable):
        await bench.runner.find_orphans(set())


async def test_stored_status_is_shown_when_the_runtime_never_answered():
    bench = Bench()
    bench.runtime.down = True
    bench.pod = make_pod(make_container(), status={"phase": "Running"})
    assert (await bench.sync()).status["phase"] == "Running"


async def test_back_off_ends_with_the_clock():
    bench = Bench(command=programs.FAILS_AT_ONCE)
    bench.runtime.images.add("app:1")
    seen = await bench.sync()
    assert (waiting(seen), seen.retry_after_s) == ("CrashLoopBackOff", 10)
    bench.clock.now_s += 10
    seen = await bench.sync()
    assert seen.retry_after_s == 20
    attempts = sorted(s.attempt for s in await bench.runtime.list_containers(UID))
    assert attempts == [1, 2]


async def test_start_after_which_the_runtime_went_silent_is_completed_later():
    bench = Bench()
    bench.runtime.images.add("app:1")
    spec = build_specs(bench.pod, {}, make_objects())["main"]
    await bench.runtime.create_container(REF, spec, 0)  # and the answer was lost
    assert (await bench.sync()).status["phase"] == "Running"
    assert len(bench.runtime.containers) == 1


async def test_forgotten_pod_starts_from_nothing():
    bench = Bench(command=programs.MISSING)
    bench.runtime.images.add("app:1")
    assert (await bench.sync()).retry_after_s == 10
    bench.clock.now_s += 1
    assert (await bench.sync()).retry_after_s == 9
    bench.runner.forget(UID)
    assert (await bench.sync()).retry_after_s == 10


async def test_nobody_s_runtime_releases_at_once_and_has_nothing_to_run():
    runner = NoRunner()
    pod = make_pod(make_container())
    assert (await runner.sync(pod, None, deleting=False)).status == {"phase": "Pending"}
    assert (await runner.sync(pod, None, deleting=True)).volumes_released
    assert runner.loops(lambda _: None) == ()
    assert await runner.find_orphans(set()) == ()
    runner.forget(UID)
    await runner.close()
