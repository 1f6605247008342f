"""Volumes that are a partition of an iSCSI target's disk: the rest of the disk is left alone.

NBD's is in `test_nbd.py`.
"""

from collections.abc import Iterator

import pytest

from tests.cluster import manifests
from tests.cluster.iscsi_site import Site, check_clean, make_site, step
from tests.cluster.lab.iscsi_initiator import source
from tests.cluster.lab.machine import Lab
from tests.cluster.lab.node import Json
from tests.cluster.lab.partition_table import write_table

MIB = 1 << 20
OTHER_MIB, MINE_MIB = 8, 40
"""The sizes of the partitions 1, which is nobody's here, and 2."""
BEFORE_BYTES = (1 + OTHER_MIB) * MIB


@pytest.fixture(scope="module")
def whole_site(lab: Lab) -> Site:
    return make_site(lab)


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """The site, which must be as clean after each test as it was before."""
    yield whole_site
    check_clean(whole_site)


def show_divided(site: Site, lun: int, name: str) -> Json:
    """Show a new disk with two partitions, the first full of letters; its source."""
    site.target.make_disk(name, 64)
    image = site.target.file(name)
    write_table(site.target.machine, image, OTHER_MIB, MINE_MIB)
    site.target.machine.run(
        f"(yes other || true) | dd of={image} bs=1M seek=1 count={OTHER_MIB} iflag=fullblock"
        " conv=notrunc,fsync status=none"
    )
    site.target.show(lun, name)
    return source(site.target, lun)


def test_one_partition_is_formatted_and_used_and_the_others_stay(site):
    body = show_divided(site, 3, "divided")
    before = site.target.read("divided", BEFORE_BYTES)
    (up,) = site.node.drive(step("set-up", "part", body, partition="2"))
    assert "error" not in up, up
    assert up["device"].endswith("2"), up
    site.node.machine.run("echo mine >/run/pods/part/note; sync -f /run/pods/part")
    kib = int(site.node.machine.run("df --output=size /run/pods/part | tail -1").out)
    assert (MINE_MIB // 2) * 1024 < kib < MINE_MIB * 1024
    down, again = site.node.drive(
        step("take-down", "part", body, partition="2"), step("set-up", "part", body, partition="2")
    )
    assert "written out" in str(down), down
    assert "error" not in again, again
    assert site.node.machine.run("cat /run/pods/part/note").out == "mine\n"
    (down,) = site.node.drive(step("take-down", "part", body, partition="2"))
    assert "error" not in down, down
    assert site.target.read("divided", BEFORE_BYTES) == before
    site.target.hide(3)


def test_disk_with_a_partition_table_is_not_formatted_as_a_whole(site):
    body = show_divided(site, 4, "whole")
    before = site.target.checksum("whole")
    up, down = site.node.drive(step("set-up", "whole", body), step("take-down", "whole", body))
    assert up["error"] == "Rejected", up
    assert "a partition table (dos)" in up["message"]
    assert "error" not in down, down
    assert site.target.checksum("whole") == before
    site.target.hide(4)


def test_partition_that_is_not_there_is_told_and_its_disk_given_back(site):
    body = show_divided(site, 5, "lacking")
    (up,) = site.node.drive(step("attach", "none", body, partition="3"))
    assert up["error"] == "Transient", up
    assert "has no partition 3" in up["message"]
    site.target.hide(5)


def test_raw_partition_is_linked_and_nothing_before_it_is_written(site):
    body = show_divided(site, 6, "raw")
    before = site.target.read("raw", BEFORE_BYTES)
    (up,) = site.node.drive(step("set-up", "raw", body, block=True, partition="2"))
    assert "error" not in up, up
    site.node.machine.run("echo through | dd of=/run/pods/raw conv=fsync,notrunc 2>/dev/null")
    (down,) = site.node.drive(step("take-down", "raw", body, block=True, partition="2"))
    assert "error" not in down, down
    now = site.target.read("raw", BEFORE_BYTES + 8)
    assert (now[:BEFORE_BYTES], now[BEFORE_BYTES:]) == (before, b"through\n")
    site.target.hide(6)


def test_read_only_partition_refuses_every_write(site):
    body = show_divided(site, 7, "fixed")
    site.node.drive(*(step(what, "one", body, partition="2") for what in ("set-up", "take-down")))
    before = site.target.checksum("fixed")
    only = body | {"readOnly": True}
    (up,) = site.node.drive(step("set-up", "one", only, partition="2"))
    assert "error" not in up, up
    wrote = site.node.machine.run(f"dd if=/dev/zero of={up['device']} bs=4k count=1", check=False)
    assert wrote.code != 0
    (down,) = site.node.drive(step("take-down", "one", only, partition="2"))
    assert "error" not in down, down
    assert site.target.checksum("fixed") == before
    site.target.hide(7)


def test_partition_of_a_disk_with_two_paths_outlives_one_of_them(site):
    body = show_divided(site, 8, "wide") | {"portals": [site.target.portals[1]]}
    before = site.target.read("wide", BEFORE_BYTES)
    site.node.start_multipath()
    try:
        (up,) = site.node.drive(step("set-up", "wide", body, partition="2"))
        assert "error" not in up, up
        assert "2 paths as " in up["evidence"][0], up
        assert up["device"].startswith("/dev/dm-")
        site.target.cut_portal(1)
        site.node.machine.run(
            "echo mine >/run/pods/wide/note; sync -f /run/pods/wide", timeout_s=90
        )
        site.target.heal_portal(1)
        site.node.machine.run(
            "for i in $(seq 900); do"
            ' [ "$(cat /sys/class/iscsi_session/*/state | sort -u)" = LOGGED_IN ] && exit 0;'
            " sleep 0.2; done; exit 1",
            timeout_s=60,
        )
        down, again = site.node.drive(
            step("take-down", "wide", body, partition="2"),
            step("set-up", "wide", body, partition="2"),
        )
        assert "error" not in down, down
        assert "error" not in again, again
        assert site.node.machine.run("cat /run/pods/wide/note").out == "mine\n"
        whole = step("attach", "other", body)
        (taken,) = site.node.drive(step("take-down", "wide", body, partition="2"))
        assert "error" not in taken, taken
        # As udev does on its own: the maps of partitions that nobody asked for are in nobody's way.
        (up,) = site.node.drive(whole)
        site.node.machine.run(f"kpartx -a {up['device']}; udevadm settle")
        (down,) = site.node.drive(step("detach", "other", body))
        assert "written out" in str(down), down
    finally:
        site.node.stop_multipath()
    assert site.target.read("wide", BEFORE_BYTES) == before
    site.target.hide(8)


def test_pod_gets_the_partition_that_its_volume_names(site):
    node = site.daemon
    node.start()
    body = show_divided(site, 9, "named")
    volume, claim = manifests.bound_pair("part", {"iscsi": body}, access_mode="ReadWriteOnce")
    volume["metadata"]["annotations"] = {"volagent.dev/partition": "2"}
    node.declare(volume, claim)
    pod = manifests.pod("db", [manifests.claim_volume("data", "part")])
    node.declare_ready(pod, within_s=60)
    where = node.volume(pod, "kubernetes.io~iscsi", "pv-part")
    assert node.machine.run(f"findmnt -no SOURCE {where}").out.strip()[-1] == "2"
    node.delete_gone(pod, within_s=60)
    node.machine.run(
        "for i in $(seq 600); do"
        " ls /sys/class/iscsi_session/* >/dev/null 2>&1 || exit 0; sleep 0.1; done; exit 1"
    )
    node.stop()
    site.target.hide(9)
