"""The kinds that are only published: emptyDir, hostPath and the API-backed ones.

Judged by looking at the world. Every set-up and tear-down is also interrupted at every moment and
tried again, as the node does it after `kill -9`.
"""

import msgspec
import pytest

from tests.contract.drivers.worlds import Killed, drivers_on, find_standing, interrupt
from volagent.drivers import choose_driver
from volagent.drivers.contract import (
    Attaches,
    DriverName,
    HeldMount,
    Phase,
    Prepares,
    Publication,
    Stages,
    VolumeKey,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected, Transient
from volagent.drivers.layout import Layout
from volagent.host.contract import Payload, PayloadFile
from volagent.objects.meta import PodUid

UID = PodUid("0f8fad5b-d9cb-469f-a165-70867728950e")
OLD = Payload((PayloadFile("user", b"root", 0o644), PayloadFile("d/x", b"1", 0o400)), "a" * 32)
NEW = Payload((PayloadFile("user", b"admin", 0o644), PayloadFile("extra", b"2", 0o644)), "b" * 32)
SHOWN = {"user": b"root", "d/x": b"1"}
SHOWN_NEW = {"user": b"admin", "extra": b"2"}

API_BACKED = {
    "secret": {"secretName": "s"},
    "configMap": {"name": "c"},
    "downwardAPI": {"items": []},
    "projected": {"sources": []},
}
EMPTY_DIRS = {"disk": {}, "memory": {"medium": "Memory", "sizeLimit": "1Mi"}}
IN_MEMORY = ("secret", "downwardAPI", "projected", "memory")
KINDS = [*API_BACKED, *EMPTY_DIRS]


class Case:
    """One volume of a kind, published and taken down in a world."""

    def __init__(self, world, kind):
        self.world = world
        self.kind = "emptyDir" if kind in EMPTY_DIRS else kind
        self.in_memory = kind in IN_MEMORY
        body = EMPTY_DIRS.get(kind) or API_BACKED.get(kind) or {}
        self.source = VolumeSource(self.kind, body)
        self.name = choose_driver(self.kind, body)
        self.target = Layout(world.root).volume(UID, self.name, "v")
        self.payload = OLD if kind in API_BACKED else None
        options = self.driver().read_options(self.source)
        key = VolumeKey(f"pod/{UID}/v")
        self.volume = VolumeSpec(key, self.name, "v", options)

    def driver(self, host=None):
        return drivers_on(host or self.world.host)[self.name]

    async def publish(self, host=None, payload=None, **use):
        payload = payload or self.payload
        publication = Publication(UID, "shop/web", self.target, payload=payload, **use)
        return await self.driver(host).publish(self.volume, publication, staged=None, device=None)

    async def unpublish(self, held, host=None):
        return await self.driver(host).unpublish(held)

    def stands(self, content):
        world, target = self.world, self.target
        assert world.mounts_at(target) == (1 if self.in_memory else 0)
        assert world.exists(target)
        assert world.files(target) == content

    def is_gone(self):
        assert self.world.mounts_at(self.target) == 0
        assert not self.world.exists(self.target)


@pytest.fixture(params=KINDS)
def case(world, request):
    return Case(world, request.param)


@pytest.fixture(params=API_BACKED)
def api_case(world, request):
    return Case(world, request.param)


@pytest.fixture(params=EMPTY_DIRS)
def empty_dir(world, request):
    return Case(world, request.param)


@pytest.fixture(params=IN_MEMORY)
def memory_case(world, request):
    return Case(world, request.param)


def content_of(case):
    return SHOWN if case.payload is not None else {}


# -- there and back -------------------------------------------------------------------------


async def test_volume_stands_when_published_and_is_gone_when_unpublished(case):
    done = await case.publish()
    case.stands(content_of(case))
    assert done.evidence
    assert done.mount == msgspec.structs.replace(
        find_standing(case.world, case.target),
        fingerprint=case.payload.fingerprint if case.payload else "",
    )
    assert (await case.unpublish(done.mount)).evidence
    case.is_gone()


async def test_publishing_again_changes_nothing(case):
    first = await case.publish()
    assert await case.publish() == first
    case.stands(content_of(case))
    await case.unpublish(first.mount)


async def test_unpublishing_again_succeeds(case):
    done = await case.publish()
    await case.unpublish(done.mount)
    await case.unpublish(done.mount)
    await case.unpublish(HeldMount(case.target))
    case.is_gone()


async def test_empty_dir_keeps_what_the_pod_wrote_when_published_again(empty_dir):
    done = await empty_dir.publish()
    empty_dir.world.write(f"{empty_dir.target}/data", b"precious")
    await empty_dir.publish()
    empty_dir.stands({"data": b"precious"})
    await empty_dir.unpublish(done.mount)
    empty_dir.is_gone()


async def test_content_is_replaced_in_place_when_refreshed(api_case):
    first = await api_case.publish()
    second = await api_case.publish(payload=NEW)
    api_case.stands(SHOWN_NEW)
    assert second.mount.mount_id == first.mount.mount_id
    assert second.mount.fingerprint == NEW.fingerprint
    await api_case.unpublish(second.mount)
    api_case.is_gone()


# -- what others do -------------------------------------------------------------------------


async def test_volume_is_mounted_again_when_somebody_unmounted_it(memory_case):
    first = await memory_case.publish()
    memory_case.world.unmount_by_hand(memory_case.target)
    again = await memory_case.publish()
    memory_case.stands(content_of(memory_case))
    assert again.mount.mount_id != first.mount.mount_id
    await memory_case.unpublish(again.mount)
    memory_case.is_gone()


async def test_volume_is_taken_down_when_somebody_unmounted_it(memory_case):
    done = await memory_case.publish()
    memory_case.world.unmount_by_hand(memory_case.target)
    await memory_case.unpublish(done.mount)
    memory_case.is_gone()


@pytest.mark.parametrize("kind", [*API_BACKED, "memory"])
async def test_nothing_is_written_when_another_file_system_covers_the_volume(world, kind):
    case = Case(world, kind)
    done = await case.publish()
    uncover = world.cover(case.target)
    with pytest.raises(Transient, match="is covered by a mount of") as caught:
        await case.publish(payload=NEW if case.payload else None)
    assert "umount" in caught.value.remedy
    with pytest.raises(Transient):
        await case.unpublish(done.mount)
    uncover()
    case.stands(content_of(case))
    await case.unpublish(done.mount)
    case.is_gone()


async def test_holder_is_named_when_the_volume_is_busy(memory_case):
    done = await memory_case.publish()
    release = memory_case.world.hold(memory_case.target)
    with pytest.raises(Transient, match=r"EBUSY.*held by pid \d+") as caught:
        await memory_case.unpublish(done.mount)
    assert caught.value.remedy
    assert caught.value.reason == "FailedUnMount"
    memory_case.stands(content_of(memory_case))
    release()
    await memory_case.unpublish(done.mount)
    memory_case.is_gone()


async def test_what_lies_below_an_api_volume_is_left_alone_when_it_is_not_ours(world):
    case = Case(world, "secret")
    done = await case.publish()
    world.unmount_by_hand(case.target)
    world.write(f"{case.target}/stray", b"x")
    with pytest.raises(Transient, match="somebody wrote there"):
        await case.unpublish(done.mount)
    assert world.files(case.target) == {"stray": b"x"}


async def test_what_lies_below_a_memory_empty_dir_goes_with_it(world):
    case = Case(world, "memory")
    done = await case.publish()
    world.unmount_by_hand(case.target)
    world.write(f"{case.target}/scratch", b"x")
    await case.unpublish(done.mount)
    case.is_gone()


# -- interruptions --------------------------------------------------------------------------


async def test_publishing_converges_when_killed_at_any_moment(case):
    moments = 0
    while True:
        try:
            await case.publish(interrupt(case.world.host, moments))
            break
        except Killed:
            moments += 1
        done = await case.publish()
        case.stands(content_of(case))
        await case.unpublish(done.mount)
        case.is_gone()
    assert moments >= 4
    await case.unpublish(find_standing(case.world, case.target))
    case.is_gone()


async def test_half_published_volume_can_be_taken_down_when_killed_at_any_moment(case):
    for moments in range(100):
        try:
            await case.publish(interrupt(case.world.host, moments))
            await case.unpublish(find_standing(case.world, case.target))
            break
        except Killed:
            await case.unpublish(find_standing(case.world, case.target))
            case.is_gone()
    case.is_gone()


async def test_unpublishing_converges_when_killed_at_any_moment(case):
    for moments in range(100):
        done = await case.publish()
        try:
            await case.unpublish(done.mount, interrupt(case.world.host, moments))
            break
        except Killed:
            await case.unpublish(done.mount)
            case.is_gone()
    assert moments >= 2
    case.is_gone()


async def test_refreshing_converges_when_killed_at_any_moment(api_case):
    for moments in range(100):
        await api_case.publish()
        try:
            await api_case.publish(interrupt(api_case.world.host, moments), NEW)
            break
        except Killed:
            assert api_case.world.files(api_case.target) in (SHOWN, SHOWN_NEW)
            await api_case.publish(payload=NEW)
            api_case.stands(SHOWN_NEW)
    await api_case.unpublish(find_standing(api_case.world, api_case.target))
    api_case.is_gone()


# -- declarations ---------------------------------------------------------------------------


def test_driver_has_exactly_the_capabilities_of_a_published_volume(case):
    driver = case.driver()
    assert driver.phases(case.volume.options, VolumeMode.FILESYSTEM) == (Phase.PUBLISH,)
    assert driver.backend(case.volume.options) == "local"
    assert not isinstance(driver, Attaches | Stages | Prepares)
    assert driver.name == case.name


def test_unknown_field_is_rejected_by_name(case):
    body = {**case.source.body, "colour": "red"}
    with pytest.raises(Rejected, match="unknown field `colour`") as caught:
        case.driver().read_options(VolumeSource(case.kind, body))
    assert caught.value.remedy.startswith(f"fields of {case.kind}: ")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"medium": "Tape"}, 'unknown storage medium "Tape"'),
        ({"medium": "HugePagesX"}, "emptyDir.medium HugePagesX"),
        ({"medium": "HugePages-"}, "emptyDir.medium HugePages-"),
        ({"medium": "HugePages-3Mi"}, "no page has this size"),
        ({"medium": "Memory", "sizeLimit": "lots"}, "emptyDir.sizeLimit: quantities must match"),
        ({"sizeLimit": "-1"}, "must be greater than or equal to 0"),
        ({"medium": 7}, r"Expected `str`, got `int` - at `\$.medium`"),
    ],
)
def test_empty_dir_is_rejected_when_declared_wrongly(world, body, words):
    driver = drivers_on(world.host)[DriverName("kubernetes.io/empty-dir")]
    with pytest.raises(Rejected, match=words):
        driver.read_options(VolumeSource("emptyDir", body))


def test_csi_volume_names_its_driver_itself():
    assert choose_driver("csi", {"driver": "image.volagent.dev"}) == "image.volagent.dev"
    assert choose_driver("emptyDir", {}) == "kubernetes.io/empty-dir"
    assert choose_driver("local", {}) == "kubernetes.io/local-volume"


async def test_limit_on_disk_is_told_not_to_be_enforced(world):
    driver = drivers_on(world.host)[DriverName("kubernetes.io/empty-dir")]
    options = driver.read_options(VolumeSource("emptyDir", {"sizeLimit": "1Mi"}))
    volume = VolumeSpec(VolumeKey("pod/x/v"), driver.name, "v", options)
    target = f"{world.root}/limited"
    use = Publication(UID, "shop/web", target)
    done = await driver.publish(volume, use, staged=None, device=None)
    assert "1048576 bytes is not enforced on disk" in done.evidence
    await driver.unpublish(done.mount)
    assert not world.exists(target)
