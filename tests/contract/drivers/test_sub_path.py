"""subPath on the fake machine and on this one: there and back, interrupted anywhere, never out."""

import pytest

from tests.contract.drivers.worlds import Killed, drivers_on, find_standing, interrupt
from volagent.drivers.contract import (
    HeldMount,
    Publication,
    VolumeKey,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected, Transient
from volagent.drivers.layout import Layout
from volagent.drivers.sub_path import SUB_PATH_DRIVER
from volagent.objects.meta import PodUid

UID = PodUid("0f8fad5b-d9cb-469f-a165-70867728950e")
PAST_THE_END = 100


class Case:
    """One sub-path of a volume that stands in a world."""

    def __init__(self, world, backend):
        self.world = world
        self.backend = backend
        self.root = f"{world.root}/volume"
        self.target = Layout(world.root).sub_path(UID, "v", "main", 0)
        self.use = Publication(UID, "shop/web", self.target)
        world.host.trees.ensure_dir(f"{self.root}/part", mode=0o755)
        world.write(f"{self.root}/part/file", b"content")
        world.write(f"{self.root}/file", b"a file")

    async def publish(self, sub_path="part", *, host=None, root=None, **options):
        body = {"root": root or self.root, "sub_path": sub_path, "backend": self.backend}
        driver = drivers_on(host or self.world.host)[SUB_PATH_DRIVER]
        read = driver.read_options(VolumeSource("subPath", {**body, **options}))
        volume = VolumeSpec(
            VolumeKey("sub/x"), SUB_PATH_DRIVER, "v:main:0", read, backend=self.backend
        )
        return await driver.publish(volume, self.use, staged=None, device=None)

    async def unpublish(self, held, host=None):
        return await drivers_on(host or self.world.host)[SUB_PATH_DRIVER].unpublish(held)

    def standing(self):
        held = find_standing(self.world, self.target)
        return HeldMount(held.path, held.mount_id, "" if self.backend == "local" else self.backend)

    def stands(self):
        assert self.world.mounts_at(self.target) == 1
        assert self.world.files(self.target) == {"file": b"content"}

    def is_gone(self):
        assert self.world.mounts_at(self.target) == 0
        assert not self.world.exists(self.target)


@pytest.fixture(params=["local", "nfs:server"])
def case(world, request):
    return Case(world, request.param)


async def test_sub_path_stands_when_published_and_is_gone_when_unpublished(case):
    done = await case.publish()
    case.stands()
    assert done.mount == case.standing()
    await case.unpublish(done.mount)
    case.is_gone()
    await case.unpublish(done.mount)
    await case.unpublish(HeldMount(case.target, backend=done.mount.backend))


async def test_file_of_a_volume_is_published_and_its_placeholder_goes(case):
    done = await case.publish("file")
    assert case.world.mounts_at(case.target) == 1
    await case.unpublish(done.mount)
    case.is_gone()


async def test_nothing_is_stacked_when_no_record_tells_of_the_bind(case):
    await case.publish("file")
    done = await case.publish()
    case.stands()
    await case.unpublish(done.mount)
    case.is_gone()


async def test_missing_directory_is_made_in_the_volume(case):
    done = await case.publish("new/deep")
    assert case.world.exists(f"{case.root}/new/deep")
    await case.unpublish(done.mount)
    assert case.world.exists(f"{case.root}/new/deep")


async def test_link_that_leads_outside_is_rejected_and_nothing_is_left(case):
    case.world.host.trees.ensure_link(f"{case.root}/link", "../secret")
    with pytest.raises(Rejected, match="leads outside") as caught:
        await case.publish("link")
    assert caught.value.remedy
    case.is_gone()


async def test_missing_volume_is_tried_again_and_nothing_is_left(case):
    with pytest.raises(Transient):
        await case.publish(root=f"{case.root}/missing")
    case.is_gone()


async def test_volume_that_a_user_named_may_be_reached_through_a_link(case):
    link = f"{case.world.root}/link"
    case.world.host.trees.ensure_link(link, case.root)
    with pytest.raises(Rejected):
        await case.publish(root=link)
    done = await case.publish(root=link, named_by_user=True)
    case.stands()
    await case.unpublish(done.mount)


async def test_busy_sub_path_stays_and_names_who_holds_it(case):
    done = await case.publish()
    release = case.world.hold(case.target)
    with pytest.raises(Transient, match="held by"):
        await case.unpublish(done.mount)
    case.stands()
    release()
    await case.unpublish(done.mount)
    case.is_gone()


async def test_publication_is_completed_after_a_kill_at_any_moment(case):
    for moments in range(PAST_THE_END):
        try:
            await case.publish(host=interrupt(case.world.host, moments))
            killed = False
        except Killed:
            killed = True
        done = await case.publish()
        case.stands()
        await case.unpublish(done.mount)
        case.is_gone()
        if not killed:
            return
    pytest.fail("it never came to its end")


async def test_taking_down_is_completed_after_a_kill_at_any_moment(case):
    for moments in range(PAST_THE_END):
        await case.publish()
        try:
            await case.unpublish(case.standing(), interrupt(case.world.host, moments))
            killed = False
        except Killed:
            killed = True
        await case.unpublish(case.standing())
        case.is_gone()
        if not killed:
            return
    pytest.fail("it never came to its end")
