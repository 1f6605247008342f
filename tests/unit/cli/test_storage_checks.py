"""What the doctor says of a storage node."""

from dataclasses import replace

import pytest
from msgspec import structs

from volagent.cli.checks import FAIL, OK, WARN
from volagent.cli.storage_checks import StorageFacts, check_storage, look_at_storage
from volagent.host.mounttable import choose_reader
from volagent.host.thin_pool import PoolState
from volagent.settings import Settings
from volagent.settings_storage import StorageSettings

ON = StorageSettings(enabled=True, directory="/srv/volumes")
GOOD = StorageFacts(
    "/srv/volumes", exists=True, mount_point="/srv/volumes", fs_type="xfs", free_bytes=1 << 40,
    modules_missing=(), login_is_stuck=False, nfs_server=True, exportfs=True,
)  # fmt: skip


THIN = structs.replace(ON, thin_pool="vg0/pool")
POOL = PoolState(1 << 40, 4 << 20, 25.5, 10.0, zeroes=True)


def findings(settings=ON, **facts):
    return {each.name: each for each in check_storage(settings, replace(GOOD, **facts))}


def test_all_is_well_with_a_disk_of_its_own_and_both_servers():
    found = findings()
    assert {each.level for each in found.values()} == {OK}
    assert set(found) == {"directory", "iSCSI target", "NFS server"}
    assert "1024 GiB free" in found["directory"].detail


@pytest.mark.parametrize(
    ("facts", "name", "level", "words"),
    [
        ({"exists": False}, "directory", FAIL, "mount its disk"),
        ({"mount_point": "/"}, "directory", WARN, "a disk of their own"),
        ({"fs_type": "ext4"}, "directory", WARN, "xfs or btrfs"),
        ({"modules_missing": ("iscsi_target_mod",)}, "iSCSI target", FAIL, "install a kernel"),
        ({"login_is_stuck": True}, "iSCSI target", FAIL, "restart this machine"),
        ({"exportfs": False}, "NFS server", FAIL, "nfs-kernel-server"),
        ({"nfs_server": False}, "NFS server", FAIL, "nfs-server"),
    ],
)
def test_what_will_not_do_is_told_with_a_remedy(facts, name, level, words):
    found = findings(**facts)[name]
    assert found.level == level
    assert words in found.remedy


def test_only_what_the_settings_ask_for_is_looked_at():
    settings = StorageSettings(enabled=True, kinds=("iscsi",))
    assert "NFS server" not in findings(settings, nfs_server=False)


def test_this_machine_can_be_looked_at(tmp_path):
    settings = Settings(storage=StorageSettings(enabled=True, directory=str(tmp_path)))
    facts = look_at_storage(settings, choose_reader().read_table().entries)
    assert facts.exists
    assert facts.mount_point
    assert facts.free_bytes > 0
    assert not facts.login_is_stuck


def test_thin_pool_is_told_with_what_is_taken_and_the_directory_needs_not_share_blocks():
    found = findings(THIN, pool=POOL, fs_type="ext4")
    assert {each.level for each in found.values()} == {OK}
    assert "25.5 % of its data" in found["thin pool"].detail
    assert "not active" in findings(THIN)["thin pool"].detail


@pytest.mark.parametrize(
    ("facts", "level", "words"),
    [
        ({"pool_error": "lvs vg0/pool: No such device"}, FAIL, "vgs"),
        ({"pool": replace(POOL, zeroes=False)}, FAIL, "lvchange --zero y vg0/pool"),
        ({"pool": replace(POOL, metadata_percent=80.0)}, WARN, "--poolmetadatasize"),
        ({"pool": POOL, "thin_check": False}, WARN, "thin-provisioning-tools"),
    ],
)
def test_thin_pool_that_will_not_do_is_told_with_a_remedy(facts, level, words):
    found = findings(THIN, **facts)["thin pool"]
    assert found.level == level
    assert words in found.remedy


@pytest.mark.root
def test_thin_pool_that_is_not_there_is_an_error_and_not_more(tmp_path):
    settings = Settings(storage=structs.replace(THIN, thin_pool="no-such-group/pool"))
    facts = look_at_storage(settings, choose_reader().read_table().entries)
    assert facts.pool is None
    assert facts.pool_error
