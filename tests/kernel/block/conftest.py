"""Loop devices for tests, given back also when a test run before this one was killed."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kernel.block.volumes import IMAGE, Volume
from tests.loop_leftovers import give_back, owned_directory, sweep_dead
from volagent.host.contract import BlockDevice, Host
from volagent.host.devices import RealDevices
from volagent.host.process import Helpers
from volagent.host.real import make_host


@pytest.fixture(scope="session", autouse=True)
def _sweep_loop_devices() -> None:
    if os.geteuid() == 0:
        sweep_dead()


@pytest.fixture
def images(scratch: Path) -> Iterator[Path]:
    """Where images of this test go.

    A failed test's devices are given back, so that the tests after it are judged by themselves.
    """
    path = owned_directory(scratch)
    path.mkdir()
    yield path
    give_back(path)


@pytest.fixture
def devices(helpers: Helpers) -> RealDevices:
    return RealDevices(helpers=helpers)


@pytest.fixture
def host(helpers: Helpers) -> Host:
    return make_host(helpers=helpers)


class Loops:
    """Attaches images and gives all of them back in the end."""

    def __init__(self, devices: RealDevices, images: Path):
        self.devices = devices
        self.images = images
        self.attached: list[BlockDevice] = []

    async def attach(self, name: str, size_bytes: int = 0, *, read_only: bool = False):
        path = self.images / name
        if size_bytes:
            await self.devices.create_image(str(path), size_bytes=size_bytes)
        device = await self.devices.attach_loop(str(path), read_only=read_only)
        self.attached.append(device)
        return device


@pytest.fixture
async def loops(devices: RealDevices, images: Path) -> AsyncIterator[Loops]:
    made = Loops(devices, images)
    yield made
    for device in made.attached:
        await devices.detach_loop(device)


async def run(helpers: Helpers, *argv: str) -> str:
    """Run a tool to its success; what it said."""
    outcome = await helpers.run(argv, backend="tests", timeout_s=60)
    assert outcome.returncode == 0, outcome.complaint
    return outcome.stdout.decode()


async def until(condition, seconds: float = 10.0) -> None:
    """Wait for something that the kernel or another process does."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def declare(host, images):
    made = []

    def make(name=IMAGE, body=None, **spec):
        if name == IMAGE:
            body = {"driver": IMAGE, "volumeHandle": "db", **(body or {})}
        volume = Volume(host, images, name, body, **spec)
        made.append(volume)
        return volume

    yield make
    for volume in reversed(made):
        await volume.take_down()
