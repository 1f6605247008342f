"""The whole host, for drivers."""

import pytest

from volagent.host.contract import Host
from volagent.host.process import Helpers
from volagent.host.real import make_host


@pytest.fixture
def real_host(helpers: Helpers) -> Host:
    return make_host(helpers=helpers)
