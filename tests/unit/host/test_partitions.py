"""Which node a partition has, from a sysfs of plain files."""

import pytest

from volagent.host.partitions import disk_below, find_node, has_maps_of_parts

DISK, PART, MAP, PART_OF_MAP = "8:0", "8:2", "253:0", "253:1"
UUID = "mpath-3600140"


@pytest.fixture
def sysfs(tmp_path):
    """A disk with the partition 2, and a map with the partition 2, on which also something lies."""
    files = {
        f"{DISK}/dev": DISK, f"{DISK}/sda2/partition": "2", f"{DISK}/sda2/dev": PART,
        f"{MAP}/dm/uuid": UUID,
        f"{MAP}/holders/dm-1/dm/uuid": f"part2-{UUID}",
        f"{MAP}/holders/dm-2/dm/uuid": "LVM-abc",
        f"{MAP}/holders/dm-3/dm/uuid": "part2-mpath-another",
        f"{PART_OF_MAP}/dm/uuid": f"part2-{UUID}",
        f"{PART_OF_MAP}/slaves/dm-0/dev": MAP,
    }  # fmt: skip
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    (tmp_path / PART).symlink_to(tmp_path / DISK / "sda2")
    return str(tmp_path)


def test_partition_of_a_disk_is_found(sysfs):
    assert find_node(DISK, 2, sysfs=sysfs) == "/dev/sda2"
    assert find_node(DISK, 1, sysfs=sysfs) is None
    assert not has_maps_of_parts(DISK, sysfs=sysfs)


def test_partition_of_a_map_is_a_map_and_nothing_else_on_it_is(sysfs):
    assert find_node(MAP, 2, sysfs=sysfs) == "/dev/dm-1"
    assert find_node(MAP, 1, sysfs=sysfs) is None
    assert has_maps_of_parts(MAP, sysfs=sysfs)


@pytest.mark.parametrize(
    ("number", "below"),
    [(DISK, DISK), (PART, DISK), (MAP, MAP), (PART_OF_MAP, MAP), ("9:9", "9:9")],
)
def test_disk_below_a_partition_is_found(sysfs, number, below):
    assert disk_below(number, sysfs=sysfs) == below
