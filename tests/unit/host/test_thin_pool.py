"""What LVM is asked for thin volumes, what its answers mean, and what is left alone."""

import asyncio
import errno
import os

import pytest

from tests.simulation.fake_lvm import EXTENT, FakeLvm, Volume
from volagent.host import thin_links
from volagent.host.child import OUTPUT_MAX_BYTES
from volagent.host.errors import Busy, HostError, Unsupported
from volagent.host.process import Helpers, Outcome
from volagent.host.thin_names import device_of, group_of, name_of
from volagent.host.thin_pool import ThinPool

VOLUME = "pvc-12345678-1234-4234-9234-123456789abc"
LV = f"volagent-{VOLUME}"
MIB = 1 << 20


@pytest.fixture
def lvm():
    return FakeLvm("vg0", "pool")


@pytest.fixture
def pool(lvm):
    return ThinPool(lvm, "vg0/pool", "store-1")


async def test_volume_bears_its_name_its_directory_and_its_owner(lvm, pool):
    await pool.create(VOLUME, "uid-1", 10 * MIB)
    assert lvm.volumes[LV].tags == [
        "volagent", f"volagent.volume={VOLUME}", "volagent.store=store-1", "volagent.owner=uid-1",
    ]  # fmt: skip
    found = await pool.find(VOLUME)
    assert (found.size_bytes, found.owner, found.made_s) == (12 * MIB, "uid-1", 1796134321)
    assert await pool.find("pvc-other") is None


async def test_copy_is_of_its_originals_pool_and_size_and_has_tags_of_its_own(lvm, pool):
    await pool.create(VOLUME, "uid-1", 8 * MIB)
    await pool.copy(VOLUME, "snapshot-2", "uid-2")
    copy = lvm.volumes["volagent-snapshot-2"]
    assert (copy.origin, copy.pool, copy.size) == (LV, "pool", 8 * MIB)
    assert (await pool.find("snapshot-2")).owner == "uid-2"


@pytest.mark.parametrize(
    "tags",
    [
        [],
        ["volagent", f"volagent.volume={VOLUME}"],
        ["volagent", f"volagent.volume={VOLUME}", "volagent.store=store-2"],
        ["volagent", "volagent.volume=pvc-other", "volagent.store=store-1"],
        [f"volagent.volume={VOLUME}", "volagent.store=store-1"],
    ],
)
async def test_volume_that_only_has_our_name_is_neither_found_nor_removed(lvm, pool, tags):
    lvm.volumes[LV] = Volume(EXTENT, tags, "pool", uuid="u")
    for act in (pool.find, pool.remove):
        with pytest.raises(HostError) as caught:
            await act(VOLUME)
        assert caught.value.errno == errno.EEXIST
    assert LV in lvm.volumes


async def test_ordinary_logical_volume_of_our_name_is_not_ours(lvm, pool):
    await pool.create(VOLUME, "uid-1", MIB)
    lvm.volumes[LV].pool = ""
    with pytest.raises(HostError):
        await pool.remove(VOLUME)
    assert LV in lvm.volumes


async def test_removed_volume_is_gone_and_a_second_removal_finds_nothing(lvm, pool):
    await pool.create(VOLUME, "uid-1", MIB)
    assert await pool.remove(VOLUME)
    assert LV not in lvm.volumes
    assert not await pool.remove(VOLUME)


async def test_volume_that_was_made_anew_since_it_was_looked_at_is_not_removed(lvm, pool):
    await pool.create(VOLUME, "uid-1", MIB)
    found = lvm.volumes[LV]

    class Replacing:
        async def run(self, argv, **how):
            if "lvremove" in argv:
                lvm.volumes[LV] = Volume(EXTENT, found.tags, "pool", uuid="another")
            return await lvm.run(argv, **how)

    with pytest.raises(HostError, match="yet it is there"):
        await ThinPool(Replacing(), "vg0/pool", "store-1").remove(VOLUME)
    assert lvm.volumes[LV].uuid == "another"


async def test_volume_that_is_open_is_busy_and_stays(lvm, pool):
    await pool.create(VOLUME, "uid-1", MIB)
    lvm.volumes[LV].open = True
    with pytest.raises(Busy):
        await pool.remove(VOLUME)
    assert LV in lvm.volumes


async def test_promises_are_those_of_all_volumes_in_the_pool(lvm, pool):
    await pool.create(VOLUME, "uid-1", 8 * MIB)
    lvm.volumes["somebodys"] = Volume(100 * MIB, [], "pool")
    lvm.volumes["elsewhere"] = Volume(500 * MIB, [], "other")
    assert await pool.count_promised() == 108 * MIB


async def test_list_that_was_cut_off_is_no_sum():
    class Endless:
        async def run(self, argv, *, backend, timeout_s):
            return Outcome(0, (b"  12582912\n" * OUTPUT_MAX_BYTES)[:OUTPUT_MAX_BYTES], b"")

    with pytest.raises(HostError, match="more volumes than can be counted"):
        await ThinPool(Endless(), "vg0/pool", "s").count_promised()


async def test_state_says_how_full_the_pool_is_and_rounds_to_its_extents(lvm, pool):
    lvm.data_percent, lvm.metadata_percent = "45.50", "12.30"
    state = await pool.fetch_state()
    assert (state.size_bytes, state.data_percent, state.metadata_percent) == (1 << 30, 45.5, 12.3)
    assert state.zeroes
    assert state.round_up(10 * MIB) == 12 * MIB
    assert state.round_up(12 * MIB) == 12 * MIB


async def test_pool_that_nobody_has_activated_yet_is_activated_to_be_asked(lvm, pool):
    lvm.power_cut()
    assert (await pool.fetch_state()).data_percent == 0


@pytest.mark.parametrize("zero", ["", "unknown"])
async def test_pool_that_does_not_say_that_it_zeroes_does_not(lvm, pool, zero):
    lvm.zero = zero
    assert not (await pool.fetch_state()).zeroes


async def test_what_is_no_thin_pool_is_told(lvm, pool):
    lvm.segtype = "linear"
    with pytest.raises(HostError, match="is linear, no thin pool"):
        await pool.fetch_state()


async def test_volume_group_that_is_not_there_is_no_volume_that_is_gone(lvm, pool):
    await pool.create(VOLUME, "uid-1", MIB)
    lvm.is_away = True
    for act in (pool.find, pool.remove):
        with pytest.raises(HostError) as caught:
            await act(VOLUME)
        assert caught.value.errno == errno.ENODEV


async def test_one_that_cannot_be_activated_does_not_keep_the_others(lvm, pool):
    for number in range(70):
        await pool.create(f"pvc-{number}", "u", MIB)
    lvm.power_cut()
    del lvm.volumes["volagent-pvc-3"]
    with pytest.raises(HostError, match="pvc-3"):
        await pool.activate([f"pvc-{number}" for number in range(70)])
    assert all(each.active for name, each in lvm.volumes.items() if name != "pool")


async def test_change_that_nobody_waits_for_any_more_is_made_all_the_same(tmp_path):
    told, begun = tmp_path / "told", tmp_path / "begun"
    os.mkfifo(told)
    os.mkfifo(begun)
    script = tmp_path / "lvchange"
    script.write_text(f"#!/bin/sh\necho >{begun}\nread word <{told}\necho $word >{tmp_path}/done\n")
    script.chmod(0o755)
    helpers = Helpers()

    class OnPath:
        async def run(self, argv, **how):
            assert argv[-1] == f"vg0/{LV}"
            path = f"{tmp_path}:/usr/bin:/bin"
            return await helpers.run(argv, env={"PATH": path}, **how)

    waiting = asyncio.ensure_future(ThinPool(OnPath(), "vg0/pool", "s").activate([VOLUME]))
    await asyncio.to_thread(begun.read_text)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.to_thread(told.write_text, "on\n")
    ended = tmp_path / "done"
    while not (ended.exists() and ended.read_text() == "on\n"):
        await asyncio.sleep(0.01)
    await helpers.close()


async def test_lvm_that_is_not_installed_is_told_with_what_helps(lvm, pool):
    lvm.installed = False
    with pytest.raises(Unsupported, match="apt-get install lvm2"):
        await pool.find(VOLUME)


def test_long_name_becomes_a_digest_that_device_mapper_can_take():
    name = name_of("a-" * 100 + "b")
    assert len(name) == 49
    assert name != name_of("a-" * 100 + "c")
    assert name_of(VOLUME) == LV


@pytest.mark.parametrize("volume", ["../other", "a/b", "-a", "", "A"])
def test_what_is_no_name_of_a_volume_has_no_device(volume):
    with pytest.raises(HostError):
        device_of("vg0", volume)


@pytest.mark.parametrize(
    ("link", "group"),
    [
        (f"/dev/vg0/{LV}", "vg0"),
        ("/dev/vg0/volagent-pvc-other", ""),
        (f"/dev/../tmp/{LV}", ""),
        (f"/dev/vg0/sub/{LV}", ""),
        ("/dev/sda", ""),
        (f"/tmp/vg0/{LV}", ""),
    ],
)
def test_link_counts_only_when_it_leads_to_the_volumes_own_device(link, group):
    assert group_of(link, VOLUME) == group


def test_link_is_found_again_and_never_replaced(tmp_path):
    path = str(tmp_path / "disk.img")
    thin_links.make(path, "vg0", VOLUME)
    thin_links.make(path, "vg0", VOLUME)
    assert os.readlink(path) == f"/dev/vg0/{LV}"
    with pytest.raises(HostError, match="leads to /dev/vg0"):
        thin_links.make(path, "vg1", VOLUME)
    os.unlink(path)
    (tmp_path / "disk.img").write_bytes(b"data")
    with pytest.raises(HostError):
        thin_links.make(path, "vg0", VOLUME)
    assert (tmp_path / "disk.img").read_bytes() == b"data"


def test_groups_are_those_of_disks_and_trash_not_of_links_in_shared_directories(
    tmp_path,
):
    for folder, name, kind, group in (
        ("", "pvc-1", "iscsi.volagent.dev", "vg0"),
        (".volagent/trash/", "pvc-2", "iscsi.volagent.dev", "vg1"),
        ("", "pvc-3", "nfs.volagent.dev", "vg2"),
    ):
        (tmp_path / f"{folder}{name}").mkdir(parents=True)
        thin_links.make(str(tmp_path / f"{folder}{name}/disk.img"), group, name)
        marker = tmp_path / (folder or ".volagent") / f"{name}.json"
        marker.parent.mkdir(exist_ok=True)
        marker.write_text(f'{{"provisioner": "{kind}"}}')
    found = thin_links.find_groups(str(tmp_path), "iscsi.volagent.dev", "disk.img")
    assert found == {"vg0": "pvc-1", "vg1": "pvc-2"}
