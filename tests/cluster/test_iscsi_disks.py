"""Disks of an iSCSI target between real kernels: grown, raw, read-only, exchanged behind a number.

What stands under a number is never believed: only what the disk says of itself.
"""

from collections.abc import Iterator

import pytest

from tests.cluster.iscsi_site import Site, check_clean, make_site, step
from tests.cluster.lab.iscsi_initiator import source
from tests.cluster.lab.machine import Lab

MIB = 1 << 20


@pytest.fixture(scope="module")
def whole_site(lab: Lab) -> Site:
    return make_site(lab)


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """The site, which must be as clean after each test as it was before."""
    yield whole_site
    check_clean(whole_site)


def test_volume_grows_while_it_is_mounted(site):
    site.target.make_disk("growing", 64)
    site.target.show(3, "growing")
    body = source(site.target, 3)
    site.node.drive(step("set-up", "grows", body))
    before = int(site.node.machine.run("df --output=size /run/pods/grows | tail -1").out)
    (early,) = site.node.drive(step("expand", "grows", body, capacity_bytes=160 * MIB))
    assert early["error"] == "Transient"
    assert "not yet 160" in early["message"]
    site.target.grow("growing", 160)
    (done,) = site.node.drive(step("expand", "grows", body, capacity_bytes=160 * MIB))
    assert done.get("evidence") == ["grown to its device"], done
    after = int(site.node.machine.run("df --output=size /run/pods/grows | tail -1").out)
    assert after > before * 2
    (down,) = site.node.drive(step("take-down", "grows", body))
    assert "error" not in down, down
    site.target.hide(3)


def test_raw_disk_is_linked_and_written_through(site):
    site.target.make_disk("raw", 32)
    site.target.show(4, "raw")
    body = source(site.target, 4)
    (up,) = site.node.drive(step("set-up", "raw", body, block=True))
    assert "error" not in up, up
    site.node.machine.run("echo through | dd of=/run/pods/raw conv=fsync,notrunc 2>/dev/null")
    (down,) = site.node.drive(step("take-down", "raw", body, block=True))
    assert "error" not in down, down
    assert site.target.read("raw", 8) == b"through\n"
    site.target.hide(4)


def test_read_only_disk_refuses_every_write(site):
    body = source(site.target, 1)
    site.node.drive(step("set-up", "one", body), step("take-down", "one", body))
    before = site.target.checksum("first")
    only = body | {"readOnly": True}
    (up,) = site.node.drive(step("set-up", "one", only))
    assert "read-only" in up["evidence"][-1]
    wrote = site.node.machine.run(f"dd if=/dev/zero of={up['device']} bs=4k count=1", check=False)
    assert wrote.code != 0
    (down,) = site.node.drive(step("take-down", "one", only))
    assert "error" not in down, down
    assert site.target.checksum("first") == before


def test_nothing_is_mounted_when_another_disk_is_shown_under_the_number(site):
    site.target.make_disk("mine", 64)
    site.target.show(5, "mine")
    body = source(site.target, 5)
    site.node.drive(step("attach", "mine", body))
    site.target.swap(5, "other")
    prepared, staged = site.node.drive(step("prepare", "mine", body), step("stage", "mine", body))
    for answer in (prepared, staged):
        assert answer["error"] == "Uncertain", answer
        assert "another disk" in answer["message"]
        assert "exchanged" in answer["remedy"]
    (again,) = site.node.drive(step("attach", "mine", body))
    assert again["error"] == "Uncertain", again
    assert "when it was attached" in again["message"]
    assert site.target.read("other", 4096) == bytes(4096)
    (down,) = site.node.drive(step("detach", "mine", body))
    assert "unwritten" in down["evidence"][0], down
    up, down = site.node.drive(step("attach", "new", body), step("detach", "new", body))
    assert "naa.6001405" in up["evidence"][0]
    assert "written out" in down["evidence"][0]
    site.target.hide(5)


def test_stale_disk_is_deleted_and_found_anew_before_it_is_used(site):
    site.target.make_disk("old", 64)
    site.target.make_disk("fresh", 48)
    site.target.show(6, "old")
    beside = source(site.target, 1)
    site.node.drive(step("attach", "beside", beside))
    site.node.machine.run(  # its other hosts are of other hardware
        "for host in /sys/class/iscsi_host/*; do"
        " echo 0 0 6 >/sys/class/scsi_host/${host##*/}/scan; done"
    )
    site.target.swap(6, "fresh")
    body = source(site.target, 6)
    (up,) = site.node.drive(step("set-up", "fresh", body))
    assert "error" not in up, up
    assert any("a left-over device by" in each for each in up["evidence"]), up
    used = site.node.machine.run("df --output=size /run/pods/fresh | tail -1").out
    assert int(used) < 48 * 1024
    answers = site.node.drive(step("take-down", "fresh", body), step("detach", "beside", beside))
    assert all("error" not in answer for answer in answers), answers
    site.target.hide(6)


def test_mounted_volume_is_not_touched_when_its_number_shows_another_disk(site):
    site.target.make_disk("used", 64)
    site.target.show(7, "used")
    body = source(site.target, 7)
    site.node.drive(step("set-up", "used", body))
    site.target.swap(7, "other")
    (again,) = site.node.drive(step("attach", "used", body))
    assert again["error"] == "Uncertain"
    assert "is in use" in again["message"]
    assert len(site.node.disks()) == 1
    assert site.target.read("other", 4096) == bytes(4096)
    site.target.swap(7, "used")
    (down,) = site.node.drive(step("take-down", "used", body))
    assert "error" not in down, down
    site.target.hide(7)
