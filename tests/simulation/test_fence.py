"""A node that falls silent, on virtual time: it has no disk when others may have it.

The server counts from the last renewal that it stored. What it was promised is what the Node says.
"""

import asyncio
import contextlib
import random
from dataclasses import replace

import pytest

from tests.simulation.fencing import VOLUME, Patient
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import EVENTS, FENCINGS, PODS, Selection
from volagent.node.status import VOLUMES_READY
from volagent.objects.fencing import fencing_name

PROMISE_S = 24


async def started(patient):
    """With the disk in use; the uid of its attachment."""
    await patient.bootstrap()
    await patient.declare_disk()
    uid = await patient.attach()
    await patient.wait_ready("web")
    await patient.wait_for(lambda: patient.containers.running)
    assert patient.has_disk
    return uid


@contextlib.asynccontextmanager
async def judged(patient):
    """Nobody here can write to the disk when the promised time is over."""

    async def watch():
        while True:
            await asyncio.sleep(0.1)
            promise = await patient.promise() if patient.cable.renewed_s is not None else None
            if promise is None:
                continue
            silent_s = asyncio.get_running_loop().time() - patient.cable.renewed_s
            if silent_s >= promise.within_seconds:
                assert not patient.has_disk, f"it has the disk, {silent_s:.1f} s after its word"

    watching = asyncio.ensure_future(watch())
    try:
        yield
    finally:
        watching.cancel()
        if watching.done():
            watching.result()


def story(main):
    """Run a test on virtual time."""

    def test(tmp_path):
        run_virtually(main(tmp_path))

    test.__name__ = main.__name__
    return test


@story
async def test_disk_is_given_up_and_comes_back_when_the_cable_is_cut_and_healed(tmp_path):
    patient = Patient(tmp_path)
    async with patient.alive(), judged(patient):
        await started(patient)
        assert patient.dog.runs
        assert (await patient.promise()).within_seconds == PROMISE_S
        patient.cable.cut()
        await asyncio.sleep(8)
        assert patient.has_disk
        await asyncio.sleep(9)
        assert not patient.has_disk
        assert patient.luns == {}
        assert patient.containers.running == set()
        assert patient.written_out != []
        await asyncio.sleep(100)
        assert patient.resets == 0
        patient.cable.heal()
        await patient.wait_for(lambda: patient.has_disk)
        await patient.wait_for(lambda: patient.containers.running)
    assert not patient.dog.runs
    assert await patient.promise() is None


@story
async def test_mounts_stay_when_the_cable_is_cut_and_the_node_does_not_fence_itself(tmp_path):
    patient = Patient(tmp_path, fences_itself=False)
    async with patient.alive():
        await started(patient)
        before = [mount.entry for mount in patient.kernel.mounts]
        patient.cable.cut()
        await asyncio.sleep(60)
        patient.cable.heal()
        await asyncio.sleep(100)
        assert [mount.entry for mount in patient.kernel.mounts] == before
        assert patient.containers.running
        assert await patient.promise() is None
        assert not patient.dog.runs
    assert patient.has_disk


@story
async def test_files_and_local_volumes_stay_when_disks_are_given_up(tmp_path):
    patient = Patient(tmp_path)
    async with patient.alive():
        await started(patient)
        others = [m.entry for m in patient.kernel.mounts if "iscsi" not in m.entry.mount_point]
        assert any("empty-dir" in entry.mount_point for entry in others)
        patient.cable.cut()
        await asyncio.sleep(100)
        assert not patient.has_disk
        left = [m.entry for m in patient.kernel.mounts]
        assert left == others


@story
async def test_machine_is_reset_when_a_mount_does_not_go(tmp_path):
    patient = Patient(tmp_path)
    async with patient.alive(), judged(patient):
        await started(patient)
        (bound,) = (m.entry.mount_point for m in patient.kernel.mounts
                    if "volumes/kubernetes.io~iscsi" in m.entry.mount_point)  # fmt: skip
        patient.kernel.held_open.add(bound)
        patient.cable.cut()
        await asyncio.sleep(60)
        assert patient.resets == 1
        assert not patient.has_disk


@story
async def test_container_that_does_not_end_is_killed_within_the_budget(tmp_path):
    patient = Patient(tmp_path, ends_s=1e6)
    async with patient.alive(), judged(patient):
        await started(patient)
        patient.cable.cut()
        await asyncio.sleep(60)
        assert patient.resets == 0
        assert not patient.has_disk


@story
async def test_machine_is_reset_when_its_agent_is_killed_or_stopped_for_good(tmp_path):
    patient = Patient(tmp_path)
    async with judged(patient):
        async with patient.alive(orderly=False):
            await started(patient)
        await asyncio.sleep(60)
        assert patient.dog.bites == 1
        assert not patient.has_disk


@story
async def test_nobody_notices_when_an_agent_is_killed_and_started_again(tmp_path):
    patient = Patient(tmp_path)
    async with judged(patient):
        async with patient.alive(orderly=False):
            await started(patient)
            before = [mount.entry for mount in patient.kernel.mounts]
        await asyncio.sleep(14)  # longer than its lease: nobody else may have the disk yet
        async with patient.alive():
            await asyncio.sleep(100)
            assert [mount.entry for mount in patient.kernel.mounts] == before
            assert patient.containers.running
            assert (await patient.promise()).within_seconds == PROMISE_S
        assert patient.resets == 0


@story
async def test_promise_is_taken_back_when_an_agent_ends_in_order(tmp_path):
    patient = Patient(tmp_path)
    async with judged(patient):
        async with patient.alive():
            await started(patient)
        assert await patient.promise() is None
        await asyncio.sleep(1000)
        assert patient.resets == 0
        assert patient.has_disk
        async with patient.alive():
            await asyncio.sleep(10)
            assert (await patient.promise()).within_seconds == PROMISE_S
            assert patient.containers.running


@story
async def test_watchdog_goes_on_when_an_agent_ends_and_cannot_take_its_promise_back(tmp_path):
    patient = Patient(tmp_path)
    async with judged(patient):
        async with patient.alive():
            await started(patient)
            patient.cable.cut()
        assert patient.dog.runs
        await asyncio.sleep(60)
        assert patient.dog.bites == 1


@story
async def test_agent_that_dies_again_and_again_without_a_server_does_not_feed_the_watchdog(
    tmp_path,
):
    patient = Patient(tmp_path)
    async with judged(patient):
        async with patient.alive(orderly=False):
            await started(patient)
            patient.cable.cut()
        for _ in range(30):
            async with patient.alive(orderly=False):
                await asyncio.sleep(1)
        assert patient.resets == 1
        assert not patient.has_disk


@story
async def test_next_agent_keeps_what_the_killed_one_promised(tmp_path):
    patient = Patient(tmp_path)
    async with judged(patient):
        async with patient.alive(orderly=False):
            await started(patient)
            patient.cable.cut()
            await asyncio.sleep(5)
        # Without a server it cannot know what its pods are, so it cannot give anything up either.
        async with patient.alive():
            await asyncio.sleep(30)
        assert patient.resets == 1
        assert not patient.has_disk


@story
async def test_watchdog_of_a_killed_agent_is_stopped_when_the_next_one_promises_nothing(tmp_path):
    patient = Patient(tmp_path)
    async with patient.alive(orderly=False):
        await started(patient)
    patient.rules = replace(patient.rules, fences_itself=False)
    await asyncio.sleep(5)
    async with patient.alive():
        await asyncio.sleep(100)
        assert await patient.promise() is None
        assert not patient.dog.runs
        assert patient.containers.running
    assert patient.resets == 0


@story
async def test_discarding_goes_on_when_the_agent_is_killed_and_the_fencing_deleted(tmp_path):
    patient = Patient(tmp_path, fences_itself=False)
    async with patient.alive(orderly=False):
        uid = await started(patient)
        written = list(patient.written_out)
        (bound,) = (m.entry.mount_point for m in patient.kernel.mounts
                    if "volumes/kubernetes.io~iscsi" in m.entry.mount_point)  # fmt: skip
        patient.kernel.held_open.add(bound)
        await patient.take(uid)
        await asyncio.sleep(3)
    await patient.client.delete(FENCINGS, fencing_name(uid))
    patient.kernel.held_open.clear()
    async with patient.alive():
        await patient.wait_for(lambda: patient.luns == {})
        assert patient.written_out == written


@story
async def test_machine_is_reset_when_it_slept_longer_than_promised(tmp_path):
    patient = Patient(tmp_path)
    async with patient.alive():
        await started(patient)
        patient.clock.suspended_s += 60
        await asyncio.sleep(4)
        assert patient.resets == 1
        assert not patient.has_disk


@story
async def test_disk_is_given_up_when_the_machine_slept_longer_than_its_lease(tmp_path):
    patient = Patient(tmp_path)
    async with patient.alive():
        await started(patient)
        patient.clock.suspended_s += 12
        await asyncio.sleep(0.1)
        assert not patient.keeper.may_touch()
        await patient.wait_for(lambda: not patient.has_disk, timeout_s=8)
        await patient.wait_for(lambda: patient.has_disk)
        assert patient.resets == 0


async def follow_ready(patient):
    """Note what the pod's condition says, one after the other."""
    patient.told = []
    own = Selection(namespace="default")
    since = (await patient.client.list(PODS, own)).resource_version
    async for batch in patient.client.watch(PODS, own, resource_version=since):
        for change in batch:
            for each in change.object.get("status", {}).get("conditions", ()):
                told = (each["status"], each.get("message", ""))
                if each["type"] == VOLUMES_READY and patient.told[-1:] != [told]:
                    patient.told.append(told)


@story
async def test_disk_that_its_storage_refuses_is_given_up_unwritten_and_attached_anew(tmp_path):
    """A fence that was called off had removed the key already, or the storage has forgotten it."""
    patient = Patient(tmp_path, fences_itself=False, reserves=True)
    async with patient.alive():
        await started(patient)
        written = list(patient.written_out)
        ready = asyncio.ensure_future(follow_ready(patient))
        patient.fenced.add(1)
        await patient.wait_for(lambda: not patient.fenced, timeout_s=20)  # attached anew
        await patient.wait_for(lambda: patient.has_disk and patient.containers.running)
        assert patient.written_out == written
        assert patient.resets == 0
        await asyncio.sleep(5)  # events are written behind
        ready.cancel()
        assert patient.told[-2:] == [("False", "waiting for volumes: data"), ("True", "")]
        events = (await patient.client.list(EVENTS, Selection(namespace="default"))).items
        assert {"VolumeFenced", "DiskLost", "DisksPermitted"} <= {e["reason"] for e in events}


@pytest.mark.parametrize("fences_itself", [False, True])
def test_lost_disk_is_discarded_unwritten_when_the_node_returns(tmp_path, fences_itself):
    async def main():
        patient = Patient(tmp_path, fences_itself=fences_itself)
        async with patient.alive():
            uid = await started(patient)
            written = list(patient.written_out)
            if fences_itself:
                # The storage fenced it before its lease was over here.
                await patient.take(uid)
            else:
                patient.cable.cut()
                await asyncio.sleep(30)
                assert patient.has_disk
                await patient.take(uid)
                await asyncio.sleep(30)
                patient.cable.heal()
            await patient.wait_for(lambda: patient.luns == {}, timeout_s=200)
            assert patient.written_out == written
            await asyncio.sleep(10)
            node = await patient.node()
            assert VOLUME not in (node.status.volumes_in_use or ())
            await patient.client.delete(FENCINGS, fencing_name(uid))
            assert not patient.has_disk
            await patient.attach()
            await patient.wait_for(lambda: patient.has_disk)
            await patient.wait_for(lambda: patient.containers.running)

    run_virtually(main())


@story
async def test_fencing_of_an_earlier_attachment_takes_nothing(tmp_path):
    patient = Patient(tmp_path)
    async with patient.alive():
        await started(patient)
        await patient.fence("an-earlier-uid")
        await asyncio.sleep(30)
        assert patient.has_disk


@pytest.mark.parametrize("seed", range(12))
def test_promise_is_kept_whatever_happens(tmp_path, seed):
    async def main():
        chance = random.Random(seed)
        patient = Patient(
            tmp_path, seed=seed, delay_s=chance.choice((0.0, 0.5, 3.0)),
            ends_s=chance.choice((0.5, 2.0, 1e6)),
        )  # fmt: skip
        async with judged(patient):
            async with patient.alive(orderly=False):
                await started(patient)
                await asyncio.sleep(chance.random() * 5)
            for _ in range(8):
                async with patient.alive(orderly=chance.random() < 0.3):
                    for _ in range(chance.randrange(1, 6)):
                        match chance.randrange(4):
                            case 0:
                                patient.cable.cut()
                            case 1:
                                patient.cable.heal()
                            case 2:
                                points = [m.entry.mount_point for m in patient.kernel.mounts[1:]]
                                patient.kernel.held_open = set(
                                    chance.sample(points, len(points) // 2)
                                )
                            case _:
                                patient.kernel.held_open = set()
                        await asyncio.sleep(chance.choice((0.3, 4.0, 9.0, 25.0)))
                await asyncio.sleep(chance.choice((0.0, 2.0, 10.0, 30.0)))
            patient.cable.heal()
            patient.kernel.held_open = set()
            async with patient.alive():
                await patient.wait_for(lambda: patient.has_disk, timeout_s=400)
                await patient.wait_for(lambda: patient.containers.running, timeout_s=400)

    run_virtually(main())
