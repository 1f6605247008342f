"""Disks in a thin pool: what is refused, what is found again, what stays a file, what is gone."""

from pathlib import Path

import pytest

from tests.contract.provisioners.backends import ManualClock
from tests.contract.provisioners.test_provisioner import released
from tests.simulation.fake_configfs import FakeTarget
from tests.simulation.fake_lvm import EXTENT, FakeLvm, Volume
from volagent.daemon.errors import StartError
from volagent.daemon.storage_side import _check_groups
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.provisioning.contract import OutOfSpace, SnapshotRequest, VolumeRequest
from volagent.drivers.provisioning.disk_content import FileContent
from volagent.drivers.provisioning.export import Export, in_pool
from volagent.drivers.provisioning.image_copies import ImageCopies
from volagent.drivers.provisioning.storage_iscsi import IscsiProvisioner
from volagent.drivers.provisioning.storage_pool import StoragePool
from volagent.drivers.provisioning.thin_content import ThinContent
from volagent.drivers.showing.contract import Peer
from volagent.drivers.showing.iscsi import IscsiShower
from volagent.host.process import Helpers
from volagent.host.real import make_host
from volagent.host.thin_pool import ThinPool
from volagent.objects.storage_nodes import ISCSI_PROVISIONER

MIB = 1 << 20
IQN = "iqn.2026-01.dev.volagent:vm1"
pytestmark = pytest.mark.root


class Node:
    """A storage node whose LVM remembers, and whose daemon may be started again."""

    def __init__(self, root: Path, helpers: Helpers) -> None:
        self.root, self.helpers, self.clock = root, helpers, ManualClock()
        self.directory = root / "pool"
        self.directory.mkdir()
        self.lvm = FakeLvm("vg0", "pool")
        self.overcommit = 1.0

    def content(self) -> ThinContent:
        directory, host = str(self.directory), make_host(helpers=self.helpers)
        copies = ImageCopies(host, self.helpers)
        files = FileContent(directory, StoragePool(directory, "disk.img", 1.0), host, copies)
        pool = ThinPool(self.lvm, "vg0/pool", "store-1")
        return ThinContent(directory, pool, self.overcommit, copies, files)

    def start(self, *, thin: bool = True) -> IscsiProvisioner:
        content = self.content() if thin else self.content().files
        export = Export(
            in_pool(self.helpers), self.clock, str(self.directory), ISCSI_PROVISIONER,
            remove_outside=content.remove,
        )  # fmt: skip
        target = FakeTarget(self.root / "configfs", str(self.directory), IQN)
        shower = IscsiShower(target, content.activate)
        portals = ("192.0.2.1:3260",)
        return IscsiProvisioner(
            export, content, make_host(helpers=self.helpers), shower, "vm1", IQN, portals
        )

    def link(self, name: str) -> Path:
        return self.directory / name / "disk.img"


@pytest.fixture
async def node(tmp_path):
    helpers = Helpers()
    yield Node(tmp_path, helpers)
    await helpers.close()


def a_request(name="pvc-1", size=10 * MIB, owner="uid-1"):
    return VolumeRequest(
        name=name, owner=owner, claim_namespace="default", claim_name="data",
        capacity_bytes=size, access_modes=("ReadWriteOnce",),
    )  # fmt: skip


async def test_disk_has_whole_extents_and_says_so(node):
    made = await node.start().create(a_request())
    assert made.capacity_bytes == node.lvm.volumes["volagent-pvc-1"].size == 12 * MIB
    assert node.link("pvc-1").readlink() == Path("/dev/vg0/volagent-pvc-1")


async def test_pool_that_does_not_zero_is_refused_with_what_helps(node):
    node.lvm.zero = ""
    with pytest.raises(OutOfSpace) as caught:
        await node.start().create(a_request())
    assert caught.value.remedy == "lvchange --zero y vg0/pool"
    assert list(node.lvm.volumes) == ["pool"]


@pytest.mark.parametrize(
    ("data", "metadata", "remedy"),
    [("95.00", "1.00", "lvextend --size"), ("1.00", "90.00", "lvextend --poolmetadatasize")],
)
async def test_pool_that_is_nearly_full_takes_no_new_disk_whatever_may_be_promised(
    node, data, metadata, remedy
):
    node.overcommit = 10.0
    node.lvm.data_percent, node.lvm.metadata_percent = data, metadata
    with pytest.raises(OutOfSpace) as caught:
        await node.start().create(a_request())
    assert remedy in caught.value.remedy


async def test_more_than_the_pool_has_is_refused_unless_the_settings_allow_it(node):
    node.lvm.volumes["somebodys"] = Volume(1000 * MIB, [], "pool")
    await node.start().create(a_request("pvc-1", 20 * MIB))
    with pytest.raises(OutOfSpace, match="over 1 times its size"):
        await node.start().create(a_request("pvc-2", 8 * MIB))
    node.overcommit = 2.0
    await node.start().create(a_request("pvc-2", 8 * MIB))


async def test_volume_of_an_interrupted_create_is_found_and_made_as_large_as_it_is_to_be(node):
    pool = ThinPool(node.lvm, "vg0/pool", "store-1")
    await pool.create("pvc-1", "uid-1", EXTENT)
    node.lvm.power_cut()
    await node.start().create(a_request())
    assert node.lvm.volumes["volagent-pvc-1"].size == 12 * MIB
    assert node.lvm.volumes["volagent-pvc-1"].active
    assert [call[0] for call in node.lvm.calls].count("lvcreate") == 1


@pytest.mark.parametrize("step", range(12))
async def test_create_that_fails_anywhere_is_completed_or_discarded(node, step):
    node.lvm.fail_at = step
    try:
        await node.start().create(a_request())
    except Uncertain:
        pass
    node.lvm.fail_at = None
    await node.start().create(a_request())
    await node.start().discard(a_request())
    assert list(node.lvm.volumes) == ["pool"]
    assert not node.link("pvc-1").parent.exists()


async def test_what_an_interrupted_create_has_left_is_discarded_with_its_thin_volume(node):
    await node.start().create(a_request())
    await node.start().discard(a_request())
    assert list(node.lvm.volumes) == ["pool"]
    await node.start().discard(a_request())


async def test_volume_with_our_name_that_is_not_ours_is_neither_used_nor_removed(node):
    node.lvm.volumes["volagent-pvc-1"] = Volume(EXTENT, ["mine"], "pool")
    with pytest.raises(Rejected, match="has not the tags"):
        await node.start().create(a_request())
    node.link("pvc-1").parent.mkdir()
    with pytest.raises(Rejected):
        await node.content().make("pvc-1", "uid-1", EXTENT)
    assert node.lvm.volumes["volagent-pvc-1"].tags == ["mine"]


async def test_volume_that_was_made_for_another_owner_is_not_taken(node):
    await ThinPool(node.lvm, "vg0/pool", "store-1").create("pvc-1", "uid-2", EXTENT)
    with pytest.raises(Rejected, match="was made for uid-2"):
        await node.start().create(a_request())


async def test_trash_keeps_the_thin_volume_and_its_end_removes_it(node):
    request = a_request()
    provisioner = node.start()
    made = await provisioner.create(request)
    await provisioner.reclaim(released(request, made, keep_s=600))
    assert "volagent-pvc-1" in node.lvm.volumes
    node.clock.now_s += 601
    assert await node.start().sweep() is None
    assert list(node.lvm.volumes) == ["pool"]


async def test_expired_disk_that_somebody_has_open_stays_and_does_not_keep_the_others(node):
    provisioner = node.start()
    for name in ("pvc-1", "pvc-2"):
        request = a_request(name)
        await provisioner.reclaim(released(request, await provisioner.create(request), keep_s=600))
    node.lvm.volumes["volagent-pvc-1"].open = True
    node.clock.now_s += 601
    with pytest.raises(Transient, match="in use"):
        await node.start().sweep()
    assert list(node.lvm.volumes) == ["pool", "volagent-pvc-1"]
    with pytest.raises(Rejected):  # a part of it may be gone
        await node.start().restore("iscsi.volagent.dev/pvc-1")
    node.lvm.volumes["volagent-pvc-1"].open = False
    await node.start().sweep()
    assert list(node.lvm.volumes) == ["pool"]


async def test_shared_directories_sweep_of_the_same_trash_removes_thin_volumes_too(node):
    request, provisioner = a_request(), node.start()
    await provisioner.reclaim(released(request, await provisioner.create(request), keep_s=600))
    node.clock.now_s += 601
    other = Export(
        in_pool(node.helpers), node.clock, str(node.directory), "nfs.volagent.dev",
        remove_outside=node.content().remove,
    )  # fmt: skip
    await other.sweep()
    assert list(node.lvm.volumes) == ["pool"]


async def test_snapshot_is_taken_once_and_dropped_with_its_thin_volume(node):
    provisioner = node.start()
    made = await provisioner.create(a_request())
    asked = SnapshotRequest(
        name="snapshot-1", owner="uid-s", volume_name="pvc-1", source=made.source
    )
    taken = await provisioner.snapshot(asked)
    again = await node.start().snapshot(asked)
    assert taken.handle == again.handle == "vm1/snapshot-1"
    assert (taken.size_bytes, taken.created_ns) == (12 * MIB, 1796134321 * 10**9)
    assert node.lvm.volumes["volagent-snapshot-1"].origin == "volagent-pvc-1"
    await provisioner.drop_snapshot(taken.handle, "uid-s")
    await provisioner.drop_snapshot(taken.handle, "uid-s")
    assert "volagent-snapshot-1" not in node.lvm.volumes


async def test_grown_disk_is_as_large_as_extents_allow(node):
    provisioner = node.start()
    made = await provisioner.create(a_request())
    owner = {"volagent.dev/owner": "uid-1"}
    for _ in range(2):
        grown = await provisioner.grow(made.source, owner, 21 * MIB)
        assert grown.capacity_bytes == node.lvm.volumes["volagent-pvc-1"].size == 24 * MIB


async def test_disk_that_was_a_file_stays_one_and_so_does_its_snapshot(node):
    made = await node.start(thin=False).create(a_request("pvc-old"))
    provisioner = node.start()
    grown = await provisioner.grow(made.source, {"volagent.dev/owner": "uid-1"}, 16 * MIB)
    assert grown.capacity_bytes == node.link("pvc-old").stat().st_size == 16 * MIB
    await provisioner.snapshot(
        SnapshotRequest(name="snapshot-1", owner="s", volume_name="pvc-old", source=made.source)
    )
    assert node.link("snapshot-1").is_file()
    request = a_request("pvc-old")
    await provisioner.reclaim(released(request, made))
    assert not node.link("pvc-old").exists()
    assert list(node.lvm.volumes) == ["pool"]


async def test_devices_are_there_again_before_anything_is_shown(node):
    provisioner = node.start()
    await provisioner.create(a_request())
    node.lvm.power_cut()
    with pytest.raises(Rejected, match="does not exist"):  # LVM of a test makes no devices
        await provisioner.shower.show("pvc-1", Peer("node01", "iqn.2026-01.lab:one"))
    assert node.lvm.volumes["volagent-pvc-1"].active


async def test_disk_on_record_whose_volume_group_is_away_is_told_with_what_helps(node):
    provisioner = node.start()
    await provisioner.create(a_request())
    records = node.directory / ".volagent/iscsi/pvc-1.json"
    records.parent.mkdir()
    records.write_text('{"nodes": {"node01": "iqn.2026-01.lab:one"}}')
    del node.lvm.volumes["volagent-pvc-1"]
    with pytest.raises(Transient, match=r"1 on record have no content.*Failed to find") as caught:
        await node.start().shower.restore()
    assert "vgs" in caught.value.remedy


async def test_content_that_went_by_hand_is_told(node):
    made = await node.start().create(a_request())
    del node.lvm.volumes["volagent-pvc-1"]
    with pytest.raises(Uncertain, match="has no content"):
        await node.start().grow(made.source, {}, 16 * MIB)
    with pytest.raises(Uncertain):
        await node.content().grow("pvc-1", 16 * MIB)


async def test_directory_counts_nothing_for_a_thin_disk_and_all_for_a_link_in_a_shared_one(node):
    await node.start().create(a_request())
    shared = node.directory / "pvc-shared"
    shared.mkdir()
    (shared / "disk.img").symlink_to("/dev/vg0/volagent-pvc-shared")
    (node.directory / ".volagent/pvc-shared.json").write_text(
        f'{{"provisioner": "nfs.volagent.dev", "capacity_bytes": {7 * MIB}}}'
    )
    pool = StoragePool(str(node.directory), "disk.img", 1.0)
    assert pool.measure().promised_bytes == 7 * MIB
    content = node.content()
    assert (await content.measure(await content.fetch_state())).promised_bytes == 12 * MIB


async def test_settings_without_the_pool_of_the_disks_that_are_there_are_refused(node):
    await node.start().create(a_request())
    _check_groups(str(node.directory), "vg0/pool")
    _check_groups(str(node.directory), "vg0/another")
    for setting in ("", "vg1/pool"):
        with pytest.raises(StartError, match="volume group vg0"):
            _check_groups(str(node.directory), setting)


async def test_machine_without_lvm_lets_another_storage_node_take_the_claim(node):
    node.lvm.installed = False
    with pytest.raises(OutOfSpace) as caught:
        await node.start().create(a_request())
    assert "lvm2" in caught.value.remedy
