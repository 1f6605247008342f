"""`make try-three` does what docs/operations.md says of it."""

import subprocess
import sys

import pytest

from tests import etcd_server
from tests.meta.source_tree import ROOT


@pytest.mark.skipif(etcd_server.PROGRAM is None, reason=etcd_server.MISSING)
@pytest.mark.timeout(240)
def test_three_servers_over_three_members_lose_one_of_each_and_no_write():
    command = [sys.executable, str(ROOT / "config/examples/three/run.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=220, check=False)

    assert done.returncode == 0, done.stderr
    assert "both writes are there" in done.stdout
