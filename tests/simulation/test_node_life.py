"""A node's whole life on virtual time: what it does, refuses and mends.

The judge is the fake kernel: what is mounted, what is in the files, what was formatted.
"""

import asyncio

import pytest

from tests.simulation.declarations import (
    ALL,
    CONFIG,
    DATA,
    IMAGE,
    MEMORY,
    SCRATCH,
    SECRET,
    check_pod,
    data_path,
    declare_world,
)
from tests.simulation.harness import Machine, a_pod
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import (
    PODS,
    SECRETS,
)


def test_pod_gets_its_volumes_and_leaves_nothing_when_nothing_goes_wrong(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        machine.kernel.add_image(IMAGE, 64 << 20)
        await declare_world(machine)
        async with machine.run_agent():
            uid = (await machine.declare(PODS, a_pod("web", *ALL)))["metadata"]["uid"]
            await machine.wait_ready("web")
            check_pod(machine, uid)
            machine.kernel.write(data_path(machine, uid), b"precious")
            await machine.client.delete(PODS, "web", "default")
            await machine.wait_gone("web")
            await asyncio.sleep(1)
            machine.check_nothing_left()
            assert machine.kernel.disks[IMAGE].formats == 1
            uid = (await machine.declare(PODS, a_pod("web", *ALL)))["metadata"]["uid"]
            await machine.wait_ready("web")
            assert machine.kernel.inode(data_path(machine, uid)).data == b"precious"
            assert machine.kernel.disks[IMAGE].formats == 1

    run_virtually(main())


@pytest.mark.parametrize("signature", ["xfs", "LVM2_member", "gpt"])
def test_device_with_another_signature_is_never_formatted(tmp_path, signature):
    async def main():
        machine = Machine(tmp_path)
        disk = machine.kernel.add_image(IMAGE, 64 << 20, signature)
        await declare_world(machine)
        async with machine.run_agent():
            await machine.declare(PODS, a_pod("web", DATA, SCRATCH))
            await asyncio.sleep(1200)
            assert not await machine.is_ready("web")
            pod = await machine.client.get(PODS, "web", "default")
            (condition,) = (
                c for c in pod["status"]["conditions"] if c["type"].endswith("VolumesReady")
            )
            assert signature in condition["message"]
            assert disk.formats == 0
            assert disk.signature == signature
            await machine.client.delete(PODS, "web", "default")
            await machine.wait_gone("web")
            await asyncio.sleep(1)
            machine.check_nothing_left()

    run_virtually(main())


def test_unreadable_device_is_never_formatted(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        disk = machine.kernel.add_image(IMAGE, 64 << 20)
        disk.readable = False
        await declare_world(machine)
        async with machine.run_agent():
            await machine.declare(PODS, a_pod("web", DATA))
            await asyncio.sleep(1200)
            assert disk.formats == 0
            disk.readable = True
            await machine.wait_ready("web")
            assert disk.formats == 1

    run_virtually(main())


def test_volume_is_mounted_again_when_somebody_unmounts_it(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        machine.kernel.add_image(IMAGE, 64 << 20)
        await declare_world(machine)
        async with machine.run_agent():
            uid = (await machine.declare(PODS, a_pod("web", *ALL)))["metadata"]["uid"]
            await machine.wait_ready("web")
            for plugin, name in (
                ("kubernetes.io~secret", "secret"),
                ("kubernetes.io~csi", "pv-data/mount"),
                ("kubernetes.io~empty-dir", "memory"),
            ):
                machine.kernel.remove_mount(machine.volume_path(uid, plugin, name))
                await asyncio.sleep(0.1)
                check_pod(machine, uid)

    run_virtually(main())


def test_pod_keeps_its_volumes_when_its_secret_is_deleted(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        await declare_world(machine)
        for restart in (False, True):
            async with machine.run_agent():
                if not restart:
                    pod = await machine.declare(PODS, a_pod("web", SECRET))
                    await machine.wait_ready("web")
                    await machine.client.delete(SECRETS, "s", "default")
                await asyncio.sleep(1000)
                path = machine.volume_path(pod["metadata"]["uid"], "kubernetes.io~secret", "secret")
                assert machine.kernel.files(path) == {"key": b"value"}

    run_virtually(main())


def test_content_follows_the_object_in_place_when_it_changes(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        await declare_world(machine)
        async with machine.run_agent():
            pod = await machine.declare(PODS, a_pod("web", SECRET, CONFIG))
            await machine.wait_ready("web")
            uid = pod["metadata"]["uid"]
            path = machine.volume_path(uid, "kubernetes.io~secret", "secret")
            before = machine.kernel.at(path).entry.mount_id
            await machine.client.patch(SECRETS, "s", {"data": {"key": "bmV3"}}, "default")
            await asyncio.sleep(0.1)
            assert machine.kernel.files(path) == {"key": b"new"}
            assert machine.kernel.at(path).entry.mount_id == before

    run_virtually(main())


def test_dead_backend_holds_back_only_its_own_volumes(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        await declare_world(machine)
        machine.kernel.hung.add("nfs:10.0.0.5")
        async with machine.run_agent():
            for number in range(20):
                nfs = {"name": "n", "nfs": {"server": "10.0.0.5", "path": f"/v{number}"}}
                await machine.declare(PODS, a_pod(f"stuck-{number}", nfs))
            await asyncio.sleep(5)
            began = machine.clock.monotonic()
            await machine.declare(PODS, a_pod("web", SECRET, MEMORY))
            await machine.wait_ready("web")
            assert machine.clock.monotonic() - began <= 0.1
            await machine.client.delete(PODS, "stuck-3", "default")
            await machine.wait_gone("stuck-3")
            machine.kernel.hung.clear()
            await machine.wait_ready("stuck-4", 900)

    run_virtually(main())


def test_busy_volume_names_its_holder_and_goes_when_it_is_let_go(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        await declare_world(machine)
        async with machine.run_agent():
            pod = await machine.declare(PODS, a_pod("web", SECRET))
            await machine.wait_ready("web")
            path = machine.volume_path(pod["metadata"]["uid"], "kubernetes.io~secret", "secret")
            machine.kernel.held_open.add(path)
            await machine.client.delete(PODS, "web", "default")
            await asyncio.sleep(10)
            status = (await machine.client.get(PODS, "web", "default"))["status"]
            assert "pid 4711 (cat)" in str(status["conditions"])
            machine.kernel.held_open.clear()
            await machine.wait_gone("web")
            await asyncio.sleep(1)
            machine.check_nothing_left()

    run_virtually(main())


def test_empty_dir_on_disk_survives_a_reboot_and_goes_with_its_pod(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        await declare_world(machine)
        async with machine.run_agent():
            pod = await machine.declare(PODS, a_pod("web", SCRATCH, SECRET))
            await machine.wait_ready("web")
            path = machine.volume_path(pod["metadata"]["uid"], "kubernetes.io~empty-dir", "scratch")
            machine.kernel.write(f"{path}/kept", b"x")
        machine.reboot()
        async with machine.run_agent():
            await asyncio.sleep(5)
            assert machine.kernel.files(path) == {"kept": b"x"}
        machine.reboot()
        await machine.client.delete(PODS, "web", "default")
        async with machine.run_agent():
            await machine.wait_gone("web")
            await asyncio.sleep(1)
            machine.check_nothing_left()

    run_virtually(main())


def test_pod_that_went_while_the_agent_was_dead_leaves_nothing(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        machine.kernel.add_image(IMAGE, 64 << 20)
        await declare_world(machine)
        async with machine.run_agent():
            await machine.declare(PODS, a_pod("web", DATA, MEMORY, SECRET))
            await machine.wait_ready("web")
        await machine.client.delete(PODS, "web", "default", grace_period_seconds=0)
        async with machine.run_agent():
            await asyncio.sleep(5)
            machine.check_nothing_left()

    run_virtually(main())


def test_orphaned_directory_with_contents_is_reported_and_left_alone(tmp_path):
    async def main():
        machine = Machine(tmp_path)
        await declare_world(machine)
        machine.kernel.make_dir("/k/pods/lost/volumes/kubernetes.io~empty-dir/data", 0o777)
        machine.kernel.write("/k/pods/lost/volumes/kubernetes.io~empty-dir/data/f", b"precious")
        machine.kernel.make_dir("/k/pods/empty/volumes/kubernetes.io~secret", 0o755)
        async with machine.run_agent() as agent:
            assert [orphan["uid"] for orphan in agent.find_orphans()] == ["lost"]
            found = machine.kernel.files("/k/pods/lost/volumes/kubernetes.io~empty-dir/data")
            assert found == {"f": b"precious"}

    run_virtually(main())


def test_bug_in_one_volume_hurts_only_that_volume(tmp_path):
    class Bug:
        def __call__(self, call, subject):
            if call == "before mount tmpfs" and subject.endswith("/memory"):
                raise ZeroDivisionError("a bug")

    async def main():
        machine = Machine(tmp_path)
        await declare_world(machine)
        machine.kernel.fault = Bug()
        async with machine.run_agent():
            await machine.declare(PODS, a_pod("bad", MEMORY, SECRET))
            await machine.declare(PODS, a_pod("good", SECRET))
            await machine.wait_ready("good")
            await asyncio.sleep(1)
            pod = await machine.client.get(PODS, "bad", "default")
            assert "ZeroDivisionError" in str(pod["status"]["conditions"])
            machine.kernel.fault = lambda call, subject: None
            await machine.wait_ready("bad")

    run_virtually(main())
