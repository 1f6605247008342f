"""subPath on this kernel: what a container that is not root finds in a directory made for it."""

import os
import stat
from pathlib import Path

import pytest

from tests.contract.drivers.test_sub_path import Case
from tests.contract.drivers.worlds import RealWorld

GROUP = 4242


@pytest.fixture(params=["local", "nfs:server"])
def case(real_host, scratch, request):
    return Case(RealWorld(real_host, scratch), request.param)


@pytest.mark.parametrize(
    ("mode", "group"), [(0o755, 0), (0o777, 0), (0o1777, 0), (0o2770, GROUP), (0o3777, GROUP)]
)
async def test_new_directory_has_mode_and_group_of_the_volume(case, mode, group):
    root = Path(case.root)
    os.chown(root, 0, group)
    root.chmod(mode)
    done = await case.publish("new/deep")
    found = Path(case.target).stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert (found.st_uid, found.st_gid) == (0, group)
    await case.unpublish(done.mount)


async def test_existing_directory_keeps_its_mode(case):
    part = Path(case.root, "part")
    part.chmod(0o711)
    done = await case.publish("part")
    assert stat.S_IMODE(Path(case.target).stat().st_mode) == 0o711
    await case.unpublish(done.mount)


async def test_directories_on_the_way_to_the_bind_are_closed_to_others(case):
    done = await case.publish()
    parents = list(Path(case.target).parents)[:3]
    assert [stat.S_IMODE(parent.stat().st_mode) for parent in parents] == [0o750] * 3
    await case.unpublish(done.mount)
