"""Each test of the suite runs on every backend: add a name here and its maker in `backends.py`."""

import pytest

from tests import moto_server
from tests.contract.provisioners.backends import (
    ManualClock,
    directory_backend,
    ebs_backend,
    fake_backend,
    image_backend,
    nfs_backend,
)
from volagent.host.process import Helpers

LOCAL = {"directory": directory_backend, "image": image_backend, "nfs": nfs_backend}
BACKENDS = (
    "fake",
    "ebs",
    *(pytest.param(name, marks=pytest.mark.root) for name in LOCAL),
)


@pytest.fixture(scope="session")
def moto():
    moto_server.skip_without_moto()
    yield from moto_server.run_moto()


@pytest.fixture(params=BACKENDS)
async def backend(request, tmp_path, monkeypatch):
    clock = ManualClock()
    if request.param == "fake":
        yield fake_backend(clock)
        return
    if request.param == "ebs":
        url = request.getfixturevalue("moto")
        moto_server.reset(url)
        for name, value in moto_server.KEYS.items():
            monkeypatch.setenv(name, value)
        yield ebs_backend(clock, url)
        return
    helpers = Helpers()
    yield LOCAL[request.param](clock, helpers, tmp_path)
    await helpers.close()


@pytest.fixture
def provisioner(backend):
    return backend.start()
