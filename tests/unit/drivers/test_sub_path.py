"""subPath of a volume whose server is dead: bounded, and nothing is touched from this process."""

import pytest

from tests.contract.drivers.test_sub_path import Case
from tests.contract.drivers.worlds import FakeWorld
from tests.simulation.virtual_time import run_virtually
from volagent.drivers.errors import Uncertain
from volagent.host.errors import Busy

SERVER = "nfs:server"


class UntouchedWhenHung:
    """The kernel's fault: a call on the loop that would wait for the dead server fails the test."""

    def __init__(self, kernel):
        self.kernel = kernel
        kernel.fault = self

    def __call__(self, call, subject):
        if self.kernel.hung and call in ("before bind sub-path", "before unmount"):
            raise AssertionError(f"{call} {subject} would hang")


@pytest.fixture
def case():
    world = FakeWorld()
    UntouchedWhenHung(world.kernel)
    return Case(world, SERVER)


def test_bind_is_uncertain_within_its_time_when_the_server_is_dead(case):
    async def main():
        case.world.kernel.hung.add(SERVER)
        with pytest.raises(Uncertain, match="subPath `part`") as caught:
            await case.publish()
        assert SERVER in caught.value.remedy

    run_virtually(main())


def test_bind_of_a_dead_server_is_detached_within_bounds_and_its_place_removed(case):
    async def main():
        done = await case.publish()
        case.world.kernel.hung.add(SERVER)
        took = await case.unpublish(done.mount)
        assert "lazily detached" in took.evidence
        case.is_gone()

    run_virtually(main())


def test_bind_that_came_late_goes_with_the_one_above_it(case):
    async def main():
        done = await case.publish()
        kernel = case.world.kernel
        tree, root = kernel.locate(f"{case.root}/part")
        late = kernel.add_mount(case.target, tree, root, read_only=False)
        await case.unpublish(case.standing())
        case.is_gone()
        assert late != done.mount.mount_id

    run_virtually(main())


def test_mount_of_somebody_else_is_never_unmounted_in_place_of_ours(case):
    async def main():
        done = await case.publish()
        kernel = case.world.kernel
        kernel.remove_mount(case.target)
        case.world.cover(case.target)
        with pytest.raises(Exception, match="rmdir") as caught:
            await case.unpublish(done.mount)
        assert isinstance(caught.value.__cause__, Busy)
        assert case.world.mounts_at(case.target) == 1

    run_virtually(main())
