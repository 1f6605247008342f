"""Pods brought up and taken down by the runner, on the double and on podman."""

import asyncio
from contextlib import asynccontextmanager

import msgspec

from tests.contract.runtime import programs
from tests.contract.runtime.watching import following
from volagent.aio.clock import SystemClock
from volagent.objects.meta import PodUid
from volagent.objects.pod import Pod
from volagent.runtime.contract import NodeFacts, PodObservation, Stage
from volagent.runtime.env import Objects
from volagent.runtime.pods import PodRunner
from volagent.runtime.spec import build_specs

NO_OBJECTS = Objects(lambda _: None, lambda _: None, NodeFacts("vm"))


def container(bench, name, command, **fields):
    return {"name": name, "image": bench.image, "command": list(command), **fields}


def make_pod(bench, containers, *, init=(), policy="Always") -> Pod:
    """A pod with little grace: a program that has not set its trap yet does not hear the signal."""
    ref = bench.pod
    return msgspec.convert(
        {
            "metadata": {"name": ref.name, "namespace": ref.namespace, "uid": ref.uid},
            "spec": {
                "containers": containers,
                "initContainers": list(init),
                "restartPolicy": policy,
                "terminationGracePeriodSeconds": 1,
            },
        },
        Pod,
    )


class Driver:
    """Calls `sync` whenever the node would: when told to, and when a retry is due."""

    def __init__(self, bench, pod, runner, watcher) -> None:
        self.bench = bench
        self.pod = pod
        self.runner = runner
        self.watcher = watcher
        self.specs = build_specs(pod, {}, NO_OBJECTS)

    async def sync(self, *, deleting=False) -> PodObservation:
        return await self.runner.sync(self.pod, self.specs, deleting=deleting)

    async def until(self, holds, *, deleting=False) -> PodObservation:
        async def looked():
            observation = await self.sync(deleting=deleting)
            if observation.retry_after_s is not None:
                asyncio.get_running_loop().call_later(
                    observation.retry_after_s, self.watcher, "retry"
                )
            return observation if holds(observation) else None

        return await self.watcher.until(looked)

    async def until_phase(self, phase) -> PodObservation:
        return await self.until(lambda seen: seen.status["phase"] == phase)


@asynccontextmanager
async def driving(bench, pod):
    runner = PodRunner(bench.runtime, SystemClock())
    async with following(lambda w: [loop for _, loop in runner.loops(w)]) as watcher:
        yield Driver(bench, pod, runner, watcher)


def state_of(observation, name="main", key="containerStatuses"):
    (status,) = [entry for entry in observation.status[key] if entry["name"] == name]
    return status["state"]


async def test_pod_runs_and_is_ready_when_its_containers_do(bench):
    pod = make_pod(bench, [container(bench, "main", programs.ENDS_WHEN_ASKED)])
    async with driving(bench, pod) as driver:
        seen = await driver.until_phase("Running")
        assert "startedAt" in state_of(seen)["running"]
        assert {c["type"]: c["status"] for c in seen.status["conditions"]} == {
            "Initialized": "True", "ContainersReady": "True", "Ready": "True",
        }  # fmt: skip
        (status,) = seen.status["containerStatuses"]
        assert status["containerID"].startswith(f"{bench.runtime.name}://")
        assert status["restartCount"] == 0


async def test_pod_waits_when_its_volumes_are_not_ready(bench):
    pod = make_pod(bench, [container(bench, "main", programs.ENDS_WHEN_ASKED)])
    async with driving(bench, pod) as driver:
        seen = await driver.runner.sync(pod, None, deleting=False)
        assert seen.status["phase"] == "Pending"
        assert state_of(seen) == {"waiting": {"reason": "ContainerCreating"}}
        assert await bench.runtime.list_containers(bench.pod.uid) == []


async def test_pod_succeeds_when_its_container_ends_and_is_not_to_be_restarted(bench):
    pod = make_pod(bench, [container(bench, "main", programs.ENDS_AT_ONCE)], policy="OnFailure")
    async with driving(bench, pod) as driver:
        seen = await driver.until_phase("Succeeded")
        assert seen.finished
        assert state_of(seen)["terminated"]["exitCode"] == 0
        assert state_of(seen)["terminated"]["reason"] == "Completed"


async def test_pod_fails_when_its_container_does_and_is_never_restarted(bench):
    pod = make_pod(bench, [container(bench, "main", programs.FAILS_AT_ONCE)], policy="Never")
    async with driving(bench, pod) as driver:
        seen = await driver.until_phase("Failed")
        assert state_of(seen)["terminated"]["exitCode"] == 3


async def test_container_backs_off_when_it_ends_again_and_again(bench):
    pod = make_pod(bench, [container(bench, "main", programs.FAILS_AT_ONCE)])
    async with driving(bench, pod) as driver:
        seen = await driver.until(lambda s: "waiting" in state_of(s) and s.retry_after_s)
        assert state_of(seen)["waiting"]["reason"] == "CrashLoopBackOff"
        assert (
            "back-off 10s restarting failed container=main"
            in (state_of(seen)["waiting"]["message"])
        )
        (status,) = seen.status["containerStatuses"]
        assert status["restartCount"] == 1
        assert status["lastState"]["terminated"]["exitCode"] == 3
        assert 0 < seen.retry_after_s <= 10


async def test_init_containers_run_one_after_the_other_before_the_others(bench):
    pod = make_pod(
        bench,
        [container(bench, "main", programs.ENDS_WHEN_ASKED)],
        init=[
            container(bench, "one", programs.ENDS_AT_ONCE),
            container(bench, "two", programs.ENDS_AT_ONCE),
        ],
    )
    async with driving(bench, pod) as driver:
        await driver.until_phase("Running")
        states = {s.name: s for s in await bench.runtime.list_containers(bench.pod.uid)}
        assert states["one"].finished_at <= states["two"].started_at
        assert states["two"].finished_at <= states["main"].started_at


async def test_containers_are_not_started_when_an_init_container_fails_for_good(bench):
    pod = make_pod(
        bench,
        [container(bench, "main", programs.ENDS_WHEN_ASKED)],
        init=[container(bench, "one", programs.FAILS_AT_ONCE)],
        policy="Never",
    )
    async with driving(bench, pod) as driver:
        seen = await driver.until_phase("Failed")
        assert [s.name for s in await bench.runtime.list_containers(bench.pod.uid)] == ["one"]
        assert state_of(seen)["waiting"]["reason"] == "PodInitializing"
        assert seen.status["conditions"][0]["message"] == (
            "containers with incomplete status: [one]"
        )


async def test_image_that_is_missing_is_named_when_it_must_not_be_pulled(bench):
    missing = container(bench, "main", programs.ENDS_AT_ONCE, imagePullPolicy="Never")
    missing["image"] = "localhost/nonesuch:1"
    async with driving(bench, make_pod(bench, [missing])) as driver:
        seen = await driver.sync()
        assert state_of(seen)["waiting"] == {
            "reason": "ErrImageNeverPull",
            "message": 'Container image "localhost/nonesuch:1" is not present with pull policy of '
            "Never",
        }
        assert seen.retry_after_s is not None


async def test_program_that_is_missing_is_told_and_tried_again_later(bench):
    pod = make_pod(bench, [container(bench, "main", programs.MISSING)])
    async with driving(bench, pod) as driver:
        seen = await driver.sync()
        assert state_of(seen)["waiting"]["reason"] == "RunContainerError"
        assert "no such file" in state_of(seen)["waiting"]["message"]
        assert 9 < seen.retry_after_s <= 10


async def test_pod_lets_its_volumes_go_only_when_no_container_is_left(bench):
    pod = make_pod(bench, [container(bench, "main", programs.ENDS_WHEN_ASKED)])
    async with driving(bench, pod) as driver:
        await driver.until_phase("Running")
        seen = await driver.until(lambda s: s.volumes_released, deleting=True)
        assert seen.volumes_released
        assert await bench.runtime.list_containers(bench.pod.uid) == []


async def test_container_is_killed_when_its_grace_is_over(bench):
    pod = make_pod(bench, [container(bench, "main", programs.ENDS_WHEN_KILLED)])
    async with driving(bench, pod) as driver:
        await driver.until_phase("Running")
        first = await driver.sync(deleting=True)
        assert not first.volumes_released
        assert 0 < first.retry_after_s <= 1
        await driver.until(lambda s: s.volumes_released, deleting=True)


async def test_running_container_is_adopted_and_not_restarted_by_another_runner(bench):
    pod = make_pod(bench, [container(bench, "main", programs.ENDS_WHEN_ASKED)])
    async with driving(bench, pod) as driver:
        await driver.until_phase("Running")
    (before,) = await bench.runtime.list_containers(bench.pod.uid)
    async with driving(bench, pod) as driver:
        seen = await driver.sync()
        assert seen.status["phase"] == "Running"
    (after,) = await bench.runtime.list_containers(bench.pod.uid)
    assert (before.container_id, before.started_at) == (after.container_id, after.started_at)


async def test_orphans_are_found_and_can_be_removed_without_their_declaration(bench):
    pod = make_pod(bench, [container(bench, "main", programs.ENDS_WHEN_ASKED)])
    async with driving(bench, pod) as driver:
        await driver.until_phase("Running")
    async with driving(bench, pod) as driver:
        assert await driver.runner.find_orphans({bench.pod.uid}) == []
        (orphan,) = await driver.runner.find_orphans({PodUid("somebody-else")})
        assert (orphan.metadata.name, orphan.metadata.uid) == (bench.pod.name, bench.pod.uid)
        driver.pod = msgspec.structs.replace(orphan, spec=pod.spec)  # for its short grace
        await driver.until(lambda s: s.volumes_released, deleting=True)
    assert await bench.runtime.list_containers(bench.pod.uid) == []


async def test_container_is_started_again_when_somebody_kills_it(bench):
    pod = make_pod(bench, [container(bench, "main", programs.ENDS_WHEN_ASKED)])
    async with driving(bench, pod) as driver:
        await driver.until_phase("Running")
        (state,) = await bench.runtime.list_containers(bench.pod.uid)
        await bench.runtime.stop_container(state.container_id, kill=True)
        await driver.until(
            lambda s: (
                s.status["containerStatuses"][0]["restartCount"] == 1
                and s.status["phase"] == "Running"
            )
        )
        states = await bench.runtime.list_containers(bench.pod.uid)
        assert sorted((s.attempt, s.stage) for s in states if s.stage is Stage.RUNNING) == [
            (1, Stage.RUNNING)
        ]
