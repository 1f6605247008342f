"""subPath on this kernel: what a container that is not root finds in a directory made for it."""

import asyncio
import os
import stat
from pathlib import Path

import pytest

from tests.contract.drivers.test_sub_path import Case
from tests.contract.drivers.worlds import RealWorld
from tests.kernel.block.conftest import until
from tests.kernel.block.dead_server import DeadServer
from volagent.drivers.contract import HeldMount
from volagent.host.contract import BindOptions

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


@pytest.fixture
def dead(real_host, scratch):
    """A volume whose server does not answer."""
    case = Case(RealWorld(real_host, scratch), "nfs:server")
    server = DeadServer(Path(case.root))
    yield case, server
    server.answer()


async def test_loop_goes_on_while_a_dead_server_is_asked_for_a_sub_path(helpers, dead):
    case, server = dead
    task = asyncio.get_running_loop().create_task(case.publish())
    await until(server.has_request)  # the loop runs: it is the one that looks
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not case.world.exists(case.target)
    server.answer()
    await until(lambda: not any(state.abandoned for state in helpers.backends()))


async def test_sub_path_of_a_server_that_died_is_taken_down_without_asking_it(real_host, dead):
    case, server = dead
    real_host.trees.ensure_dir(case.target, mode=0o750)
    mount_id = real_host.mounts.bind(case.root, case.target, BindOptions())
    done = await case.unpublish(HeldMount(case.target, mount_id, "nfs:server"))
    assert done.evidence == "unbound"
    case.is_gone()
    assert not server.has_request()
