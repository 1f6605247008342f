"""Each test of the suite runs on every backend: add a name here and its maker in `backends.py`."""

import pytest

from tests.contract.provisioners.backends import ManualClock, directory_backend, fake_backend
from volagent.host.process import Helpers

BACKENDS = ("fake", pytest.param("directory", marks=pytest.mark.root))


@pytest.fixture(params=BACKENDS)
async def backend(request, tmp_path):
    clock = ManualClock()
    if request.param == "fake":
        yield fake_backend(clock)
        return
    helpers = Helpers()
    yield directory_backend(clock, helpers, tmp_path)
    await helpers.close()


@pytest.fixture
def provisioner(backend):
    return backend.start()
