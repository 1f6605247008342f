"""A daemon whose EC2 is moto's server, on an instance that moto knows."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import moto_server
from tests.kernel.daemon.conftest import (  # noqa: F401  # fixtures
    _swept,
    pytest_runtest_makereport,
    stopped,
)
from tests.kernel.daemon.harness import Daemon
from tests.moto_server import KEYS, REGION, ZONE
from volagent.aio.clock import SystemClock
from volagent.drivers.ebs.api import Ec2
from volagent.drivers.ebs.credentials import Credentials
from volagent.drivers.ebs.driver import LINK
from volagent.host import loop
from volagent.host.devices import RealDevices
from volagent.host.process import Helpers

IMAGE = {"ImageId": "ami-12c6146b", "MinCount": "1", "MaxCount": "1"}


@dataclass
class Cloud:
    """EC2, and this machine as one of its instances."""

    url: str
    links: Path
    instance: str = ""
    disks: dict = field(default_factory=dict)

    @property
    def settings(self) -> str:
        return (
            f'[aws]\nenabled = true\nregion = "{REGION}"\nendpoint = "{self.url}"\n'
            f'instance_id = "{self.instance}"\nzone = "{ZONE}"\ndevice_links = "{self.links}"\n'
        )

    def ask(self, method: str, *arguments: object):
        """One call of our own client."""
        clock = SystemClock()
        ec2 = Ec2(Credentials(clock), clock, REGION, self.url, self.instance, ZONE)
        return asyncio.run(getattr(ec2, method)(*arguments))

    def plug(self, id: str, image: Path, size_bytes: int) -> None:
        """What happens on an instance when a volume is attached: a disk, and udev's link."""
        with open(image, "ab") as file:
            file.truncate(size_bytes)
        self.disks[id] = asyncio.run(_attach(str(image)))
        (self.links / f"{LINK}{id.replace('-', '')}").symlink_to(self.disks[id].path)

    def grow(self, id: str, image: Path, size_bytes: int) -> None:
        """The disk follows its volume."""
        os.truncate(image, size_bytes)
        loop.take_new_size(self.disks[id])

    def unplug(self, id: str) -> None:
        """The volume was detached."""
        (self.links / f"{LINK}{id.replace('-', '')}").unlink()
        loop.detach(self.disks.pop(id))


async def _attach(image: str):
    helpers = Helpers()
    try:
        return await RealDevices(helpers=helpers).attach_loop(image, read_only=False)
    finally:
        await helpers.close()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    moto_server.skip_without_moto()
    yield from moto_server.run_moto()


@pytest.fixture
def cloud(moto: str, stopped: Daemon, monkeypatch) -> Iterator[Cloud]:  # noqa: F811
    moto_server.reset(moto)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    links = stopped.base / "by-id"
    links.mkdir()
    cloud = Cloud(moto, links)
    answer = cloud.ask("_call", "RunInstances", {**IMAGE, "Placement.AvailabilityZone": ZONE})
    cloud.instance = answer.findtext(".//instanceId")
    yield cloud
    for id in tuple(cloud.disks):
        cloud.unplug(id)


@pytest.fixture
def daemon(stopped: Daemon, cloud: Cloud) -> Daemon:  # noqa: F811
    stopped.start(settings=cloud.settings)
    return stopped
