"""Each test of the suite runs on every backend: add a name here and its maker in `backends.py`."""

import pytest

from tests.contract.provisioners.backends import (
    ManualClock,
    directory_backend,
    ebs_backend,
    fake_backend,
    image_backend,
    iscsi_backend,
    iscsi_thin_backend,
    nfs_backend,
)
from tests.moto_server import ENVIRONMENT
from volagent.host.process import Helpers

LOCAL = {
    "directory": directory_backend, "image": image_backend, "iscsi": iscsi_backend,
    "iscsi-thin": iscsi_thin_backend,
    "nfs": nfs_backend,
}  # fmt: skip
BACKENDS = (
    "fake",
    "ebs",
    *(pytest.param(name, marks=pytest.mark.root) for name in LOCAL),
)


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
    yield LOCAL[request.param](clock, helpers, tmp_path)
    await helpers.close()


@pytest.fixture
def provisioner(backend):
    return backend.start()
