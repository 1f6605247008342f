"""The worlds in which the host contract is judged. Add another implementation to `params`."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from volagent.host.real import make_host

from volagent.host.contract import Host
from volagent.host.process import Helpers


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


@pytest.fixture
async def real_world(scratch: Path, no_leaks: None) -> AsyncIterator[RealWorld]:
    helpers = Helpers()
    yield RealWorld(make_host(helpers=helpers), str(scratch))
    await helpers.close()


@pytest.fixture(params=[pytest.param("real_world", marks=pytest.mark.root, id="real")])
def world(request: pytest.FixtureRequest) -> RealWorld:
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
