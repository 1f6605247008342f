"""What plugs disks into a machine of moto's: a loop device for each volume that the API attaches.

A process of its own (`python disk_plant.py ENDPOINT INSTANCE DIRECTORY LINKS`), since a daemon is
started from tests without threads. An image outlives its attachment, as a volume does; it grows
when the API says so, and the device takes the size, as a hypervisor does it. udev's links are made
too. A disk that is pulled out while it is mounted is told in the file `torn`.
"""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.kernel.daemon.harness import until
from tests.loop_leftovers import owned_directory
from tests.moto_server import MotoServer, die_with_pytest
from volagent.drivers.ebs.names import link_of
from volagent.host import block_devices, loop
from volagent.host.contract import BlockDevice
from volagent.host.errors import Busy

_LOOK_AGAIN_S = 0.02


class DiskPlant:
    """The disks of one machine."""

    def __init__(self, server: MotoServer, instance: str, images: Path, links: Path) -> None:
        self.server = server
        self.instance = instance
        self.images = images
        self.links = links
        self.disks: dict[str, BlockDevice] = {}

    def follow(self) -> None:
        """Do what the API says."""
        wanted = self.server.attachments(self.instance)
        for volume in self.disks.keys() - wanted.keys():
            self.pull(volume)
        for volume, size_gib in wanted.items():
            self._plug(volume, size_gib << 30)

    def _plug(self, volume: str, size_bytes: int) -> None:
        image = self.images / volume
        if not image.exists() or image.stat().st_size < size_bytes:
            with image.open("ab") as file:
                file.truncate(size_bytes)
        disk = self.disks.get(volume)
        if disk is None:
            disk = loop.attach(str(image), read_only=False)
            (self.links / link_of(volume)).symlink_to(disk.path)
        elif disk.size_bytes < size_bytes:
            loop.take_new_size(disk)
        self.disks[volume] = block_devices.identify(disk.path)

    def pull(self, volume: str) -> None:
        """Take a disk away."""
        disk = self.disks.pop(volume)
        try:
            block_devices.flush(disk.path, disk.identity)
        except Busy as error:
            with (self.images / "torn").open("a") as torn:
                torn.write(f"{volume}: {error}\n")
        (self.links / link_of(volume)).unlink()
        loop.detach(disk)


@contextlib.contextmanager
def planted(server: MotoServer, instance: str, log: Path, links: Path) -> Iterator[Path]:
    """A plant until the end; where its images are."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.kernel.daemon.disk_plant", server.endpoint, instance,
             str(log.parent), str(links)],
            stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            preexec_fn=die_with_pytest, cwd=Path(__file__).parents[3],
        )  # fmt: skip
    images = log.parent / f"p{process.pid}"
    try:
        until(lambda: process.poll() is not None or images.exists(), told=log.read_text)
        assert process.poll() is None, log.read_text()
        yield images
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(30)


def main(endpoint: str, instance: str, directory: str, links: str) -> None:
    images = owned_directory(Path(directory))
    server = MotoServer(int(endpoint.rpartition(":")[2]))
    plant = DiskPlant(server, instance, images, Path(links))
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    images.mkdir()
    while not stopped:
        plant.follow()
        time.sleep(_LOOK_AGAIN_S)
    for volume in list(plant.disks):
        plant.pull(volume)


if __name__ == "__main__":
    main(*sys.argv[1:])
