"""Each contract test runs on the fake kernel and, as root, on this one."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.drivers.worlds import FakeWorld, RealWorld, World
from volagent.host.contract import Host
from volagent.host.process import Helpers
from volagent.host.real import make_host


@pytest.fixture
async def real_host() -> AsyncIterator[Host]:
    helpers = Helpers()
    yield make_host(helpers=helpers)
    await helpers.close()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.root)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "fake":
        yield FakeWorld()
        return
    request.getfixturevalue("no_leaks")
    scratch = request.getfixturevalue("scratch")
    yield RealWorld(request.getfixturevalue("real_host"), scratch)
