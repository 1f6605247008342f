"""The agent is killed while mkfs runs: mkfs goes on, and the next agent finds its way."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.kernel.block.conftest import until
from volagent.host.errors import Busy
from volagent.host.images import is_marked

AGENT = """
import asyncio, sys
from volagent.host.devices import RealDevices
from volagent.host.process import Helpers

async def main():
    helpers = Helpers()
    devices = RealDevices(helpers=helpers)
    device = await devices.attach_loop(sys.argv[1], read_only=False)
    await devices.make_filesystem(device, fs_type="ext4")

asyncio.run(main())
"""


def children_of(pid):
    try:
        pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return {int(child): Path(f"/proc/{child}/comm").read_text().strip() for child in pids}
    except FileNotFoundError:
        return {}


def find_mkfs(pid):
    return next((c for c, name in children_of(pid).items() if name.startswith("mkfs")), None)


@pytest.fixture
async def killed_agent(images, devices):
    """Starts an agent, kills it while its mkfs runs; mkfs is stopped in the middle."""
    image = str(images / "a.img")
    await devices.create_image(image, size_bytes=256 << 20)
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", AGENT, image)
    await until(lambda: find_mkfs(agent.pid) is not None)
    mkfs = find_mkfs(agent.pid)
    os.kill(mkfs, signal.SIGSTOP)
    agent.kill()
    await agent.wait()
    yield image, mkfs
    try:
        os.kill(mkfs, signal.SIGKILL)
    except ProcessLookupError:
        return


async def test_device_stays_busy_until_the_left_over_mkfs_ends(killed_agent, devices):
    image, mkfs = killed_agent
    device = await devices.attach_loop(image, read_only=False)
    assert is_marked(device.path)
    with pytest.raises(Busy):
        await devices.make_filesystem(device, fs_type="ext4")
    with pytest.raises(Busy):
        await devices.detach_loop(device)
    os.kill(mkfs, signal.SIGCONT)
    await until(lambda: not os.path.exists(f"/proc/{mkfs}"))
    assert (await devices.probe(device.path)).fs_type == "ext4"
    assert (await devices.check_filesystem(device, fs_type="ext4")).clean
    await devices.detach_loop(device)


async def test_half_made_file_system_is_made_again_when_mkfs_died_too(killed_agent, devices):
    image, mkfs = killed_agent
    os.kill(mkfs, signal.SIGKILL)
    await until(lambda: not os.path.exists(f"/proc/{mkfs}"))
    device = await devices.attach_loop(image, read_only=False)
    found = await devices.probe(device.path)
    if found.blank:
        await devices.make_filesystem(device, fs_type="ext4")
    assert (await devices.probe(device.path)).fs_type == "ext4"
    assert (await devices.check_filesystem(device, fs_type="ext4")).clean
    await devices.detach_loop(device)
