"""A node killed after every single call, and one whose calls fail and lie: it converges.

The judge is the fake kernel: what is mounted, what is in the files, what was formatted.
"""

import asyncio
import random

import pytest

from tests.simulation.declarations import (
    IMAGE,
    check_parts,
    check_pod,
    data_path,
    declare_world,
    everyday_pod,
)
from tests.simulation.fake_kernel import Crash
from tests.simulation.harness import Machine
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import PODS
from volagent.host.errors import Busy, HostError


class KillAt:
    """Kills the agent at the n-th call of the kernel."""

    def __init__(self, kernel, call: int):
        self.left = call
        self.kernel = kernel
        kernel.fault = self

    def __call__(self, call: str, subject: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash(f"{call} {subject}")


async def _live_through_a_kill(machine: Machine, kill_at: int, *, reboot: bool) -> bool:
    """Set up and take down a pod, killed once on the way; False when it never came to the kill."""
    kernel = machine.kernel
    kernel.add_image(IMAGE, 64 << 20)
    await declare_world(machine)
    killer = KillAt(kernel, kill_at)
    pod = await machine.declare(PODS, everyday_pod("web"))
    uid = pod["metadata"]["uid"]
    written = False
    for _ in range(3):
        async with machine.run_agent():
            if await machine.exists("web"):
                current = await machine.client.get(PODS, "web", "default")
                if "deletionTimestamp" not in current["metadata"]:
                    await machine.wait_ready("web")
                    await asyncio.sleep(1)
                    check_pod(machine, uid)
                    check_parts(machine, uid)
                    if written:
                        assert kernel.inode(data_path(machine, uid)).data == b"precious"
                    kernel.write(data_path(machine, uid), b"precious")
                    written = True
                    await machine.client.delete(PODS, "web", "default")
                await machine.wait_gone("web")
            await asyncio.sleep(1)
            machine.check_nothing_left()
        if killer.left > 0:
            break
        if reboot:
            machine.reboot()
            reboot = False
    assert not await machine.exists("web")
    machine.check_nothing_left()
    disk = kernel.disks[IMAGE]
    assert disk.formats == 1, "formatted twice"
    assert disk.tree.inodes["written"].data == b"precious"
    return killer.left <= 0


@pytest.mark.parametrize("reboot", [False, True], ids=["kill -9", "power cut"])
def test_node_converges_when_killed_after_every_call_of_the_kernel(tmp_path, reboot):
    kill_at, reached = 1, True
    while reached:
        directory = tmp_path / str(kill_at)
        directory.mkdir()

        async def main(directory=directory, kill_at=kill_at):
            return await _live_through_a_kill(Machine(directory), kill_at, reboot=reboot)

        reached = run_virtually(main())
        kill_at += 1
    assert kill_at > 60, "the scenario has become too short to prove anything"


class Mishaps:
    """Fails calls at random, before or (worse: lying) after they took effect."""

    def __init__(self, kernel, chance: random.Random, share: float):
        self.kernel, self.chance, self.share = kernel, chance, share
        kernel.fault = self

    def __call__(self, call: str, subject: str) -> None:
        if self.chance.random() >= self.share:
            return
        if "unmount" in call and call.startswith("before"):
            raise Busy("umount2", subject, 16)
        raise HostError(call, subject, 5, "injected")


@pytest.mark.parametrize("seed", range(25))
def test_node_converges_when_calls_fail_and_lie_at_random(tmp_path, seed):
    async def main():
        machine = Machine(tmp_path, seed=seed, delay_s=2.0)
        kernel = machine.kernel
        kernel.add_image(IMAGE, 64 << 20)
        await declare_world(machine)
        mishaps = Mishaps(kernel, random.Random(seed), 0.15)
        async with machine.run_agent():
            uids = {}
            for name in ("one", "two"):
                pod = await machine.declare(PODS, everyday_pod(name))
                uids[name] = pod["metadata"]["uid"]
            await asyncio.sleep(machine.chance.random() * 3)
            await machine.client.delete(PODS, "two", "default")
            await machine.wait_ready("one", 3600)
            kernel.write(data_path(machine, uids["one"]), b"precious")
            await machine.wait_gone("two", 3600)
            await asyncio.sleep(5)
            check_pod(machine, uids["one"])
            check_parts(machine, uids["one"])
            assert kernel.disks[IMAGE].formats == 1
            await machine.client.delete(PODS, "one", "default")
            await machine.wait_gone("one", 3600)
            mishaps.share = 0.0
            await asyncio.sleep(300)
            machine.check_nothing_left()
            assert kernel.disks[IMAGE].tree.inodes["written"].data == b"precious"

    run_virtually(main())
