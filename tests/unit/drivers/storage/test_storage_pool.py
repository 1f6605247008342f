"""What may be promised of a storage node's disk."""

import json

import pytest

from volagent.drivers.provisioning.contract import OutOfSpace
from volagent.drivers.provisioning.storage_pool import StoragePool

MIB = 1 << 20


@pytest.fixture
def directory(tmp_path):
    for name, size in (("pvc-a", 5 * MIB), (".volagent/trash/pvc-b", 7 * MIB)):
        (tmp_path / name).mkdir(parents=True)
        with (tmp_path / name / "disk.img").open("wb") as file:
            file.truncate(size)
    (tmp_path / "pvc-shared").mkdir()
    record = {"capacity_bytes": 11 * MIB}
    (tmp_path / ".volagent/pvc-shared.json").write_text(json.dumps(record))
    return tmp_path


def test_promises_are_those_of_disks_directories_and_trash_together(directory):
    pool = StoragePool(str(directory), "disk.img", 1.0)
    assert pool.measure().promised_bytes == 23 * MIB
    assert pool.size_of("pvc-shared") == 11 * MIB
    assert pool.size_of("pvc-a") == 5 * MIB
    assert pool.size_of("pvc-nothing") == 0


def test_promise_beyond_the_disk_is_refused_with_what_helps(directory):
    pool = StoragePool(str(directory), "disk.img", 1.0)
    pool.refuse_overcommitment(pool.measure().left_bytes)
    with pytest.raises(OutOfSpace) as caught:
        pool.refuse_overcommitment(pool.measure().left_bytes + MIB)
    assert "storage.overcommit" in caught.value.remedy


def test_more_may_be_promised_where_the_settings_say_so(directory):
    room = StoragePool(str(directory), "disk.img", 1.0).measure()
    StoragePool(str(directory), "disk.img", 3.0).refuse_overcommitment(2 * room.total_bytes)
