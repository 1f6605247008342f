"""Records of nodes that are copied and removed without iscsiadm, as iscsiadm lays them out."""

import os
import stat

import pytest

from volagent.host.errors import Absent, HostError
from volagent.host.iscsi.contract import Chap
from volagent.host.iscsi.node_records import NodeRecords
from volagent.host.iscsi.records import Records, node_settings, read_settings

IQN = "iqn.2026-01.lab:array"
OTHER = "iqn.2026-01.lab:other"
PORTAL = "10.0.0.5:3260"
CHAP = Chap("me", "word-of-mine")
MADE = """# BEGIN RECORD 2.1.8
node.name = {iqn}
node.tpgt = {tag}
node.startup = automatic
iface.iscsi_ifacename = default
node.discovery_type = {kind}
node.session.auth.password = of-an-administrator
node.session.queue_depth = 77
node.conn[0].address = {address}
node.conn[0].port = 3260
# END RECORD
"""


class Place:
    """A directory of open-iscsi's, and what iscsiadm does there."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "iscsid.conf").write_text("node.session.queue_depth = 77\n")

    def add(self, iqn=IQN, address="10.0.0.5", tag="1", *, kind="static"):
        """`iscsiadm -m node -o new`."""
        where = self.directory / "nodes" / iqn / f"{address},3260,{tag}"
        where.mkdir(parents=True)
        (where / "default").write_text(MADE.format(iqn=iqn, tag=tag, address=address, kind=kind))
        statics = self.directory / kind
        statics.mkdir(exist_ok=True)
        (statics / f"{iqn},{address},3260,{tag},default").symlink_to(where)
        return where / "default"

    def tree(self):
        return sorted(
            str(path.relative_to(self.directory))
            for top in ("nodes", "static")
            for path in (self.directory / top).rglob("*")
        )


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def nodes(tmp_path):
    return NodeRecords(Records((str(tmp_path),)))


def settings(chap=None):
    return node_settings(chap, several_paths=False)


def make(nodes, iqn=OTHER, portal="10.0.0.6:3260", tag="2", chap=CHAP):
    return nodes.make(iqn, portal, tag, "default", settings(chap))


@pytest.fixture
def learned(nodes, place):
    place.add()
    nodes.complete(IQN, PORTAL, "1", "default", settings(Chap("first", "word-of-first")))
    assert nodes.remove(IQN, PORTAL, "default")
    assert place.tree() == []
    return nodes


def test_first_record_is_iscsiadms(nodes, place):
    assert not make(nodes)
    file = place.add()
    nodes.complete(IQN, PORTAL, "1", "default", settings(CHAP))
    assert read_settings(file.read_text())["node.session.auth.password"] == "word-of-mine"
    with pytest.raises(Absent):
        nodes.complete(OTHER, PORTAL, "1", "default", settings())


def test_copy_is_as_iscsiadm_would_make_it(learned, place):
    assert make(learned)
    copied = place.tree()
    file = place.directory / "nodes" / OTHER / "10.0.0.6,3260,2" / "default"
    found = read_settings(file.read_text())
    assert found["node.name"] == OTHER
    assert found["node.tpgt"] == "2"
    assert found["node.conn[0].address"] == "10.0.0.6"
    assert found["node.session.queue_depth"] == "77"
    assert found["node.session.auth.password"] == "word-of-mine"
    assert found["node.startup"] == "manual"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert learned.remove(OTHER, "10.0.0.6:3260", "default")
    place.add(OTHER, "10.0.0.6", "2")
    assert place.tree() == copied


def test_copy_has_no_credentials_of_another_target(learned, place):
    assert "word-of" not in repr(learned)
    assert make(learned, chap=None)
    text = (place.directory / "nodes" / OTHER / "10.0.0.6,3260,2" / "default").read_text()
    assert "word-of" not in text
    assert "of-an-administrator" not in text


@pytest.mark.parametrize("changed", ["iscsid.conf", "ifaces/default"])
def test_nothing_is_copied_when_what_iscsiadm_reads_has_changed(learned, place, changed):
    (place.directory / "ifaces").mkdir()
    (place.directory / changed).write_text("node.session.queue_depth = 5\n")
    assert not make(learned)


def test_nothing_is_copied_over_a_record_or_without_a_tag(learned, place):
    assert not make(learned, tag="")
    place.add()
    assert not make(learned, IQN, PORTAL, "1")


def test_copy_that_cannot_be_written_is_told(learned):
    with pytest.raises(HostError, match="cannot hold"):
        make(learned, chap=Chap("me", "two\nlines"))


def test_record_of_another_layout_is_not_learned(nodes, place):
    place.add(kind="send_targets")
    nodes.complete(IQN, PORTAL, "1", "default", settings())
    assert not make(nodes)


def test_removal_leaves_what_is_of_others(learned, place):
    mine = place.add()
    other = place.add(address="10.0.0.7")
    beside = mine.with_name("volagent-1")
    beside.write_text("")
    assert learned.remove(IQN, PORTAL, "default")
    assert not mine.exists()
    assert beside.exists()
    assert other.exists()
    assert [os.path.basename(each) for each in place.tree() if each.startswith("static/")] == [
        f"{IQN},10.0.0.7,3260,1,default"
    ]
    assert learned.remove(IQN, PORTAL, "default")  # nothing is there any more


def test_record_that_another_link_leads_to_is_left_to_iscsiadm(nodes, place):
    file = place.add(kind="send_targets")
    assert not nodes.remove(IQN, PORTAL, "default")
    assert file.exists()


def test_record_without_a_tag_is_left_to_iscsiadm(nodes, place):
    old = place.directory / "nodes" / IQN / "10.0.0.5,3260"
    old.parent.mkdir(parents=True)
    old.write_text(MADE.format(iqn=IQN, tag="-1", address="10.0.0.5", kind="static"))
    assert not nodes.remove(IQN, PORTAL, "default")
    assert old.exists()
