"""What only a real podman can show: what a container sees of what it was handed."""

import os
import stat

import msgspec
import pytest

from tests.contract.runtime import programs
from tests.contract.runtime.relay import Relay
from tests.contract.runtime.watching import following
from volagent.objects.pod import Pod
from volagent.runtime.cdi import CdiDirectory
from volagent.runtime.contract import (
    ContainerFailed,
    DeviceSpec,
    HandedVolume,
    NodeFacts,
    OciMount,
    SecurityOptions,
    Stage,
)
from volagent.runtime.env import Objects
from volagent.runtime.podman import PodmanRuntime
from volagent.runtime.spec import build_devices, build_mounts

pytestmark = [pytest.mark.podman, pytest.mark.root]

SHELL = ("/bin/sh", "-c")
NO_OBJECTS = Objects(lambda _: None, lambda _: None, NodeFacts("vm"))
LOOP_DEVICE = "/dev/loop0"


@pytest.fixture
def out(tmp_path):
    path = tmp_path / "out"
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(parent.stat().st_mode | 0o711)
    return path


async def run_to_end(bench, script, out, **fields):
    """Run a script whose /out is the directory `out`; its exit code."""
    mounts = (*fields.pop("mounts", ()), OciMount("/out", str(out), ("rbind", "rw", "rprivate")))
    spec = bench.spec(*SHELL, script, mounts=mounts, **fields)
    async with following(lambda watcher: [bench.runtime.follow(watcher)]) as watcher:
        container_id = await bench.runtime.create_container(bench.pod, spec, 0)
        await bench.runtime.start_container(container_id)

        async def ended():
            state = await bench.state_of(container_id)
            return state if state.stage is Stage.EXITED else None

        return (await watcher.until(ended)).exit_code


async def test_container_reads_and_writes_through_its_mounts(real_bench, out, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "greeting").write_text("hello")
    mounts = (OciMount("/data", str(volume), ("rbind", "rw", "rprivate")),)
    script = "cat /data/greeting > /out/seen; echo back > /data/answer"
    assert await run_to_end(real_bench, script, out, mounts=mounts) == 0
    assert (out / "seen").read_text() == "hello"
    assert (volume / "answer").read_text() == "back\n"


async def test_container_cannot_write_when_its_mount_is_read_only(real_bench, out, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir()
    mounts = (OciMount("/data", str(volume), ("rbind", "ro", "rprivate")),)
    script = "touch /data/x 2> /out/why && exit 9; exit 0"
    assert await run_to_end(real_bench, script, out, mounts=mounts) == 0
    assert "Read-only" in (out / "why").read_text()
    assert list(volume.iterdir()) == []


async def test_container_has_user_groups_environment_and_directory(real_bench, out):
    security = SecurityOptions(uid=1234, gid=2345, groups=(3000, 4000))
    script = 'id -u > /out/u; id -g > /out/g; id -G > /out/G; echo "$A" > /out/env; pwd > /out/pwd'
    exit_code = await run_to_end(
        real_bench, script, out, security=security, env={"A": "$(B) ä"}, working_dir="/bin"
    )
    assert exit_code == 0
    assert (out / "u").read_text().strip() == "1234"
    assert (out / "g").read_text().strip() == "2345"
    assert {"3000", "4000"} <= set((out / "G").read_text().split())
    assert (out / "env").read_text() == "$(B) ä\n"
    assert (out / "pwd").read_text() == "/bin\n"


async def test_container_cannot_write_its_root_when_that_is_read_only(real_bench, out):
    security = SecurityOptions(read_only_root=True)
    assert await run_to_end(real_bench, "touch /x && exit 9; exit 0", out, security=security) == 0


async def test_container_takes_the_image_s_user_when_only_a_group_is_given(real_bench, out):
    security = SecurityOptions(gid=2345)
    script = "id -u > /out/u; id -g > /out/g"
    assert await run_to_end(real_bench, script, out, security=security) == 0
    assert (out / "u").read_text() + (out / "g").read_text() == "0\n2345\n"


def _needs_loop_device():
    try:
        if stat.S_ISBLK(os.stat(LOOP_DEVICE).st_mode):
            return
    except FileNotFoundError:
        pass
    pytest.skip(f"needs a block device to hand over: {LOOP_DEVICE} (modprobe loop)")


@pytest.mark.parametrize("permissions", ["r", "mrw"])
async def test_container_has_its_block_device(real_bench, out, permissions):
    _needs_loop_device()
    devices = (DeviceSpec("/dev/xvda", LOOP_DEVICE, permissions),)
    script = "test -b /dev/xvda && echo yes > /out/seen"
    assert await run_to_end(real_bench, script, out, devices=devices) == 0
    assert (out / "seen").read_text() == "yes\n"


async def test_container_is_killed_when_it_exceeds_its_memory_limit(real_bench, out):
    script = "exec dd if=/dev/zero of=/dev/null bs=128M count=1"
    limits = {"memory_limit_bytes": 32 << 20, "cpu_limit_millis": 900}
    assert await run_to_end(real_bench, script, out, **limits) == 137
    if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        pytest.skip("podman's monitor notices an out-of-memory kill only on cgroups v2")
    (state,) = await real_bench.runtime.list_containers(real_bench.pod.uid)
    assert state.out_of_memory


async def test_container_that_was_killed_by_hand_was_not_out_of_memory(real_bench, out):
    assert await run_to_end(real_bench, "exit 137", out) == 137
    (state,) = await real_bench.runtime.list_containers(real_bench.pod.uid)
    assert not state.out_of_memory


async def test_missing_mount_source_is_named(real_bench):
    mounts = (OciMount("/data", "/no/such/source", ("rbind", "rw", "rprivate")),)
    spec = real_bench.spec(*programs.ENDS_AT_ONCE, mounts=mounts)
    with pytest.raises(ContainerFailed, match="/no/such/source: no such file"):
        await real_bench.runtime.create_container(real_bench.pod, spec, 0)


async def test_every_pod_is_looked_at_again_when_events_may_have_been_lost(
    podman_service, real_bench, tmp_path
):
    async with Relay(str(tmp_path / "relay"), podman_service.socket) as relay:
        runtime = PodmanRuntime(relay.path)
        async with following(lambda watcher: [runtime.follow(watcher)]) as watcher:
            assert watcher.told == [None]
            relay.cut()

            async def told_again():
                return watcher.told.count(None) == 2

            await watcher.until(told_again)
            spec = real_bench.spec(*programs.ENDS_AT_ONCE)
            container_id = await real_bench.runtime.create_container(real_bench.pod, spec, 0)
            await real_bench.runtime.start_container(container_id)

            async def told_of_the_end():
                return real_bench.pod.uid in watcher.told

            await watcher.until(told_of_the_end)
        await runtime.close()


async def test_cdi_device_brings_the_pod_s_volumes(podman_service, real_bench, tmp_path):
    volume = tmp_path / "volume"
    (volume / "deep").mkdir(parents=True)
    (volume / "deep" / "greeting").write_text("hello")
    pod = msgspec.convert(
        {
            "metadata": {"name": "web", "namespace": "default", "uid": real_bench.pod.uid},
            "spec": {
                "containers": [
                    {"name": "a", "volumeMounts": [{"name": "v", "mountPath": "/data"}]},
                    {
                        "name": "b",
                        "volumeMounts": [{"name": "v", "mountPath": "/b", "readOnly": True}],
                    },
                ]
            },
        },
        Pod,
    )
    volumes = {"v": HandedVolume("v", str(volume))}
    directory = CdiDirectory(str(podman_service.cdi))
    directory.write(
        pod,
        {
            container.name: (
                build_mounts(pod, container, volumes, NO_OBJECTS),
                build_devices(container, volumes),
            )
            for container in pod.spec.containers
        },
    )

    def run(device, script):
        return podman_service.run(
            "run", "--rm", "--network=none", f"--device=volagent.dev/pod={device}",
            real_bench.image, "sh", "-c", script,
        )  # fmt: skip

    assert run("default_web", "cat /data/deep/greeting; echo 1 > /data/written") == "hello"
    assert (volume / "written").read_text() == "1\n"
    assert run("default_web_b", "cat /b/deep/greeting; touch /b/x || echo refused") == (
        "hellorefused\n"
    )
    directory.remove(pod)
    assert list(podman_service.cdi.iterdir()) == []
