"""Each test of the suite runs on every backend: add a name here and its maker in `backends.py`."""

import pytest

from tests.contract.provisioners.backends import (
    ManualClock,
    directory_backend,
    ebs_backend,
    fake_backend,
)
from tests.moto_server import ENVIRONMENT
from volagent.host.process import Helpers

BACKENDS = ("fake", "ebs", pytest.param("directory", marks=pytest.mark.root))


@pytest.fixture(params=BACKENDS)
async def backend(request, tmp_path, monkeypatch):
    clock = ManualClock()
    if request.param == "ebs":
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        yield ebs_backend(clock, request.getfixturevalue("moto"))
        return
    if request.param == "fake":
        yield fake_backend(clock)
        return
    helpers = Helpers()
    yield directory_backend(clock, helpers, tmp_path)
    await helpers.close()


@pytest.fixture
def provisioner(backend):
    return backend.start()
