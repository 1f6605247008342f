"""What the doctor says of a storage node."""

from dataclasses import replace

import pytest

from volagent.cli.checks import FAIL, OK, WARN
from volagent.cli.storage_checks import StorageFacts, check_storage, look_at_storage
from volagent.host.mounttable import choose_reader
from volagent.settings import Settings
from volagent.settings_storage import StorageSettings

ON = StorageSettings(enabled=True, directory="/srv/volumes")
GOOD = StorageFacts(
    "/srv/volumes", exists=True, mount_point="/srv/volumes", fs_type="xfs", free_bytes=1 << 40,
    modules_missing=(), login_is_stuck=False, nfs_server=True, exportfs=True,
)  # fmt: skip


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
