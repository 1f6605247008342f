"""What every runtime must do, the test double included."""

import asyncio
from dataclasses import replace

import pytest

from tests.contract.runtime import programs
from tests.contract.runtime.conftest import make_pod_ref
from tests.contract.runtime.fake_runtime import FakeRuntime
from tests.contract.runtime.watching import following
from volagent.objects.meta import PodUid
from volagent.runtime.contract import (
    ContainerFailed,
    ContainerRejected,
    ImageMissing,
    RuntimeUnavailable,
    SecurityOptions,
    Stage,
)
from volagent.runtime.podman import PodmanRuntime

ASK_AGAIN_AFTER_S = 0.1


async def run(bench, *command, **fields):
    spec = bench.spec(*command, **fields)
    container_id = await bench.runtime.create_container(bench.pod, spec, 0)
    await bench.runtime.start_container(container_id)
    return container_id


async def until_ended(bench, watcher, container_id):
    async def ended():
        state = await bench.state_of(container_id)
        return state if state is not None and state.stage is Stage.EXITED else None

    return await watcher.until(ended)


async def test_runtime_tells_its_version(bench):
    assert (await bench.runtime.version())[0].isdigit()


async def test_container_is_listed_with_its_pod_and_attempt_when_created(bench):
    container_id = await bench.runtime.create_container(
        bench.pod, bench.spec(*programs.ENDS_WHEN_ASKED), 7
    )
    (state,) = await bench.runtime.list_containers(bench.pod.uid)
    assert (state.container_id, state.pod, state.name, state.attempt) == (
        container_id, bench.pod, "main", 7,
    )  # fmt: skip
    assert state.stage is Stage.CREATED
    assert state.exit_code is None
    assert state.image == bench.image


async def test_container_runs_when_started(bench):
    state = await bench.state_of(await run(bench, *programs.ENDS_WHEN_ASKED))
    assert state.stage is Stage.RUNNING
    assert state.started_at is not None
    assert state.finished_at is None


async def test_start_succeeds_when_it_runs_already(bench):
    container_id = await run(bench, *programs.ENDS_WHEN_ASKED)
    await bench.runtime.start_container(container_id)
    assert (await bench.state_of(container_id)).stage is Stage.RUNNING


@pytest.mark.parametrize(
    ("command", "exit_code"), [(programs.ENDS_AT_ONCE, 0), (programs.FAILS_AT_ONCE, 3)]
)
async def test_end_of_a_container_is_told_with_its_exit_code(bench, command, exit_code):
    async with following(lambda watcher: [bench.runtime.follow(watcher)]) as watcher:
        container_id = await run(bench, *command)
        state = await until_ended(bench, watcher, container_id)
        assert state.exit_code == exit_code
        assert state.finished_at is not None

        async def told():
            return bench.pod.uid in watcher.told

        assert await watcher.until(told)


async def test_container_ends_when_it_is_asked_to(bench):
    async with following(lambda watcher: [bench.runtime.follow(watcher)]) as watcher:
        container_id = await run(bench, *programs.ENDS_WHEN_ASKED)

        async def ended_when_asked():
            # A program that has not set its trap yet does not hear the signal: ask again.
            asyncio.get_running_loop().call_later(ASK_AGAIN_AFTER_S, watcher, "ask again")
            await bench.runtime.stop_container(container_id, kill=False)
            state = await bench.state_of(container_id)
            return state if state.stage is Stage.EXITED else None

        assert (await watcher.until(ended_when_asked)).exit_code == 0


async def test_container_that_ignores_the_signal_runs_on_until_it_is_killed(bench):
    async with following(lambda watcher: [bench.runtime.follow(watcher)]) as watcher:
        container_id = await run(bench, *programs.ENDS_WHEN_KILLED)
        await bench.runtime.stop_container(container_id, kill=False)
        assert (await bench.state_of(container_id)).stage is Stage.RUNNING
        await bench.runtime.stop_container(container_id, kill=True)
        assert (await until_ended(bench, watcher, container_id)).exit_code == 137


async def test_stop_succeeds_when_the_container_has_ended_or_is_gone(bench):
    async with following(lambda watcher: [bench.runtime.follow(watcher)]) as watcher:
        container_id = await run(bench, *programs.ENDS_AT_ONCE)
        await until_ended(bench, watcher, container_id)
    await bench.runtime.stop_container(container_id, kill=False)
    await bench.runtime.stop_container(container_id, kill=True)
    await bench.runtime.remove_container(container_id)
    await bench.runtime.stop_container(container_id, kill=False)
    await bench.runtime.stop_container(container_id, kill=True)


async def test_container_is_gone_when_removed_and_removing_again_succeeds(bench):
    container_id = await bench.runtime.create_container(
        bench.pod, bench.spec(*programs.ENDS_AT_ONCE), 0
    )
    await bench.runtime.remove_container(container_id)
    assert await bench.runtime.list_containers(bench.pod.uid) == []
    await bench.runtime.remove_container(container_id)


async def test_running_container_is_not_removed(bench):
    container_id = await run(bench, *programs.ENDS_WHEN_ASKED)
    with pytest.raises(ContainerFailed):
        await bench.runtime.remove_container(container_id)
    assert (await bench.state_of(container_id)).stage is Stage.RUNNING


async def test_created_container_is_replaced_when_it_never_started(bench):
    spec = bench.spec(*programs.ENDS_WHEN_ASKED)
    first = await bench.runtime.create_container(bench.pod, spec, 0)
    second = await bench.runtime.create_container(bench.pod, spec, 0)
    (state,) = await bench.runtime.list_containers(bench.pod.uid)
    assert state.container_id == second != first


async def test_running_container_is_not_replaced(bench):
    container_id = await run(bench, *programs.ENDS_WHEN_ASKED)
    with pytest.raises(ContainerFailed):
        await bench.runtime.create_container(bench.pod, bench.spec(*programs.ENDS_WHEN_ASKED), 0)
    assert (await bench.state_of(container_id)).stage is Stage.RUNNING


async def test_create_says_that_the_image_is_missing(bench):
    missing = "localhost/volagent-nonesuch:1"
    assert await bench.runtime.has_image(bench.image)
    assert not await bench.runtime.has_image(missing)
    with pytest.raises(ImageMissing):
        await bench.runtime.create_container(
            bench.pod, replace(bench.spec(*programs.ENDS_AT_ONCE), image=missing), 0
        )


async def test_pull_fails_when_no_registry_has_the_image(bench):
    with pytest.raises(ImageMissing):
        await bench.runtime.pull_image("localhost:1/volagent-nonesuch:1")


async def test_start_fails_when_the_program_is_missing(bench):
    container_id = await bench.runtime.create_container(bench.pod, bench.spec(*programs.MISSING), 0)
    with pytest.raises(ContainerFailed, match="no such file"):
        await bench.runtime.start_container(container_id)
    assert (await bench.state_of(container_id)).stage is Stage.CREATED
    await bench.runtime.remove_container(container_id)


async def test_create_refuses_an_image_that_runs_as_root_when_root_is_forbidden(bench):
    security = SecurityOptions(must_not_be_root=True)
    with pytest.raises(ContainerRejected, match="image will run as root"):
        await bench.runtime.create_container(
            bench.pod, bench.spec(*programs.ENDS_AT_ONCE, security=security), 0
        )


async def test_list_tells_one_pod_from_another(bench):
    other = make_pod_ref("other")
    spec = bench.spec(*programs.ENDS_AT_ONCE)
    mine = await bench.runtime.create_container(bench.pod, spec, 0)
    theirs = await bench.runtime.create_container(other, spec, 0)
    assert [s.container_id for s in await bench.runtime.list_containers(other.uid)] == [theirs]
    assert {s.container_id for s in await bench.runtime.list_containers()} == {mine, theirs}
    assert await bench.runtime.list_containers(PodUid("nobody")) == []


@pytest.mark.parametrize("kind", ["fake", "podman"])
async def test_every_call_says_unavailable_when_nobody_answers(kind, tmp_path):
    runtime = FakeRuntime(down=True) if kind == "fake" else PodmanRuntime(str(tmp_path / "no.sock"))
    calls = [
        runtime.version(), runtime.list_containers(), runtime.has_image("x"),
        runtime.pull_image("x"), runtime.start_container("x"), runtime.remove_container("x"),
        runtime.stop_container("x", kill=False),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(RuntimeUnavailable):
            await call
    await runtime.close()
