"""Tests on this machine's kernel: all as root, in a private mount namespace, without a leak."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from volagent.host.holders import RealHolders
from volagent.host.mountinfo import MountinfoReader
from volagent.host.mounts import RealMounts
from volagent.host.mounttable import TableReader, choose_reader
from volagent.host.payload import PayloadWriter
from volagent.host.process import Helpers
from volagent.host.statmount import StatmountReader, statmount_is_complete
from volagent.host.trees import RealTrees

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.root)


@pytest.fixture(autouse=True)
def _watch_for_leaks(no_leaks: None) -> None:
    return


@pytest.fixture
async def helpers() -> AsyncIterator[Helpers]:
    made = Helpers()
    yield made
    await made.close()


@pytest.fixture
def reader() -> TableReader:
    return choose_reader()


@pytest.fixture(params=[StatmountReader, MountinfoReader])
def each_reader(request: pytest.FixtureRequest) -> TableReader:
    """Both ways to read the mount table, where the kernel has both."""
    if request.param is StatmountReader and not statmount_is_complete():
        pytest.skip("statmount tells too little before Linux 6.13")
    return request.param()


@pytest.fixture
def mounts(helpers: Helpers, reader: TableReader) -> RealMounts:
    return RealMounts(helpers=helpers, reader=reader)


@pytest.fixture
def trees(helpers: Helpers, reader: TableReader) -> RealTrees:
    return RealTrees(helpers=helpers, reader=reader, payloads=PayloadWriter(boot_mark="thisboot"))


@pytest.fixture
def holders(helpers: Helpers, reader: TableReader) -> RealHolders:
    return RealHolders(helpers=helpers, reader=reader)
