"""The worlds in which the host contract is judged. Add another implementation to `params`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.simulation.fake_host import make_fake_host
from tests.simulation.fake_kernel import FakeKernel
from volagent.host.contract import Host
from volagent.host.process import Helpers
from volagent.host.real import make_host


@dataclass
class RealWorld:
    """A host, a directory that is its root, and a way round it to look and to write."""

    host: Host
    root: str

    def write(self, path: str, content: bytes) -> None:
        """Write a file as a container would; its directory exists."""
        Path(path).write_bytes(content)

    def read(self, path: str) -> bytes | None:
        """A file's content as a container sees it; None when there is no such file."""
        try:
            return Path(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None


class FakeWorld:
    """The simulation's host, on a kernel of dictionaries."""

    root = "/root"

    def __init__(self) -> None:
        self.kernel = FakeKernel()
        self.kernel.make_dir(self.root, 0o755)
        self.host = make_fake_host(self.kernel)

    def write(self, path: str, content: bytes) -> None:
        """Write a file as a container would; its directory exists."""
        self.kernel.write(path, content)

    def read(self, path: str) -> bytes | None:
        """A file's content as a container sees it; None when there is no such file."""
        inode = self.kernel.inode(path)
        return inode.data if inode is not None and inode.kind == "file" else None


@pytest.fixture
def fake_world() -> FakeWorld:
    return FakeWorld()


@pytest.fixture
async def real_world(scratch: Path, no_leaks: None) -> AsyncIterator[RealWorld]:
    helpers = Helpers()
    yield RealWorld(make_host(helpers=helpers), str(scratch))
    await helpers.close()


@pytest.fixture(
    params=["fake_world", pytest.param("real_world", marks=pytest.mark.root)],
    ids=["fake", "real"],
)
def world(request: pytest.FixtureRequest) -> FakeWorld | RealWorld:
    return request.getfixturevalue(request.param)


@pytest.fixture
def mounts(world):
    return world.host.mounts


@pytest.fixture
def trees(world):
    return world.host.trees


@pytest.fixture
def place(world):
    """Make a directory under the root and return its path."""

    def place(name, mode=0o755):
        path = f"{world.root}/{name}"
        world.host.trees.ensure_dir(path, mode=mode)
        return path

    return place
