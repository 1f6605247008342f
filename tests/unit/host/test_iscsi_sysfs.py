"""Sessions, paths and maps as a tree like the kernel's shows them."""

import pytest

from volagent.host import scsi
from volagent.host.iscsi.sysfs import Map, Sysfs

IQN = "iqn.2026-01.lab:array"
WWID = "naa.60014050000000100000000000000000"


class Tree:
    """A sysfs of a machine with iSCSI sessions."""

    def __init__(self, root):
        self.root = root
        for name in ("class/iscsi_session", "class/scsi_host", "block", "devices/platform"):
            (root / name).mkdir(parents=True)

    def put(self, path, **attributes):
        path.mkdir(parents=True, exist_ok=True)
        for name, value in attributes.items():
            (path / name).write_text(f"{value}\n")
        return path

    def add_session(self, number, *, address="10.0.0.5", state="LOGGED_IN", iqn=IQN):
        device = self.root / f"devices/platform/host{number}/session{number}"
        shown = self.put(
            device / "iscsi_session" / f"session{number}",
            targetname=iqn, state=state, ifacename="default", target_id=0,
        )  # fmt: skip
        (shown / "device").symlink_to(device)
        name = f"connection{number}:0"
        self.put(
            device / name / "iscsi_connection" / name,
            persistent_address=address, persistent_port=3260,
        )  # fmt: skip
        (self.root / f"class/iscsi_session/session{number}").symlink_to(shown)
        return device

    def add_disk(self, session, lun, name, *, wwid=WWID, size_sectors=2048, state="running"):
        host = session.parent.name.removeprefix("host")
        scsi_device = self.put(
            session / f"target{host}:0:0" / f"{host}:0:0:{lun}", wwid=wwid, state=state
        )
        block = self.put(scsi_device / "block" / name, size=size_sectors, dev="8:0")
        (block / "holders").mkdir()
        (block / "device").symlink_to(scsi_device)
        (self.root / "block" / name).symlink_to(block)
        return block

    def add_map(self, disk, name, *blocks, uuid="mpath-3600"):
        where = self.put(self.root / "block" / disk, size=2048)
        self.put(where / "dm", uuid=uuid, name=name)
        (where / "slaves").mkdir()
        for block in blocks:
            (block / "holders" / disk).symlink_to(where)
            (where / "slaves" / block.name).symlink_to(block)


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.fixture
def sysfs(tree):
    return Sysfs(str(tree.root))


def test_nothing_is_found_on_a_machine_without_iscsi(tmp_path):
    assert Sysfs(str(tmp_path)).sessions(IQN) == ()


def test_session_is_told_by_target_portal_and_state(tree, sysfs):
    tree.add_session(2)
    tree.add_session(10, address="fd00::5", state="FAILED")
    tree.add_session(3, iqn="iqn.2026-01.lab:other")
    first, second = sysfs.sessions(IQN)
    assert (first.name, first.portal, first.host) == ("session2", "10.0.0.5:3260", "host2")
    assert first.usable
    assert second.portal == "[fd00::5]:3260"
    assert not second.usable


def test_paths_below_a_session_are_its_disks(tree, sysfs):
    device = tree.add_session(1)
    tree.add_disk(device, 1, "sda")
    tree.add_disk(device, 12, "sdb", wwid="naa.other", size_sectors=0)
    (session,) = sysfs.sessions(IQN)
    one, twelve = sysfs.paths(session)
    assert (one.lun, one.disk, one.device, one.wwid) == (1, "sda", "/dev/sda", WWID)
    assert one.size_bytes == 1 << 20
    assert one.usable
    assert not twelve.usable
    assert sysfs.paths(session, 12) == (twelve,)
    assert sysfs.paths(session, 2) == ()


@pytest.mark.parametrize(
    ("state", "session_state", "usable"),
    [("running", "LOGGED_IN", True), ("offline", "LOGGED_IN", False), ("running", "FREE", False)],
)
def test_path_is_usable_when_disk_and_session_run(tree, sysfs, state, session_state, usable):
    device = tree.add_session(1, state=session_state)
    tree.add_disk(device, 1, "sda", state=state)
    (path,) = sysfs.paths(sysfs.sessions(IQN)[0])
    assert path.usable is usable


def test_path_that_went_is_gone(tree, sysfs):
    block = tree.add_disk(tree.add_session(1), 1, "sda")
    (path,) = sysfs.paths(sysfs.sessions(IQN)[0])
    assert sysfs.refresh(path) == path
    block.parents[1].rename(tree.root / "elsewhere")
    assert sysfs.refresh(path) is None


def test_map_is_found_by_its_paths_and_other_holders_are_none(tree, sysfs):
    one = tree.add_disk(tree.add_session(1), 1, "sda")
    two = tree.add_disk(tree.add_session(2, address="10.0.0.6"), 1, "sdb", wwid="naa.other")
    tree.add_map("dm-0", "crypt", one, uuid="CRYPT-LUKS2-1")
    first, second = sysfs.sessions(IQN)
    (path,), (other,) = sysfs.paths(first), sysfs.paths(second)
    assert sysfs.map_over(path) is None
    tree.add_map("dm-1", "3600", one, two)
    found = sysfs.map_over(path)
    assert found == Map("dm-1", "3600", "mpath-3600", 1 << 20, "")
    assert sysfs.map_over(other) == found
    assert sysfs.names_below(found) == {WWID, "naa.other"}
    assert sysfs.has_map("3600")
    assert not sysfs.has_map("3601")


@pytest.mark.parametrize(
    ("states", "runs"),
    [(("running",), True), (("transport-offline",), False), (("blocked", "running"), True)],
)
def test_device_takes_requests_when_one_path_does(tree, sysfs, states, runs):
    blocks = [
        tree.add_disk(tree.add_session(n), 1, f"sd{n}", state=state)
        for n, state in enumerate(states)
    ]
    tree.add_map("dm-0", "3600", *blocks)
    (tree.root / "dev/block").mkdir(parents=True)
    (tree.root / "dev/block/8:0").symlink_to(blocks[-1])
    (tree.root / "dev/block/254:0").symlink_to(tree.root / "block/dm-0")
    assert sysfs.is_running("8:0") is runs
    assert sysfs.is_running("254:0") is runs
    assert not sysfs.is_running("8:99")


def designator(association, kind, data):
    return bytes((0x01, association << 4 | kind, 0, len(data))) + data


def page(*designators):
    body = b"".join(designators)
    return bytes((0, 0x83)) + len(body).to_bytes(2, "big") + body


def test_names_of_the_disk_are_read_in_any_order_and_those_of_ports_are_not():
    name, other = designator(0, 3, b"\x60\x01\x40\x50"), designator(0, 1, b"LIO")
    port = designator(1, 4, b"\0\0\0\1")
    assert scsi.read_names(page(name, port, other)) == scsi.read_names(page(other, name))
    assert scsi.read_names(page(name)) == (name,)
    assert scsi.read_names(page(port)) == ()


@pytest.mark.parametrize("data", [b"", b"\0\x83", page(designator(0, 3, b"1234"))[:-9]])
def test_page_that_is_cut_short_names_nothing(data):
    assert scsi.read_names(data) == ()
