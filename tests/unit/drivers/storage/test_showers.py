"""What shows volumes, over a fake target and a fake exportfs; and what fences by it."""

from pathlib import Path

import pytest

from tests.simulation.fake_configfs import FakeTarget
from volagent.drivers.contract import VolumeSource
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.fencing.contract import FenceOrder, NoProof
from volagent.drivers.fencing.shown import HidingFence, join_fences
from volagent.drivers.showing.contract import Peer
from volagent.drivers.showing.iscsi import IscsiShower
from volagent.drivers.showing.nfs import NfsShower
from volagent.host.nfs_exports import ShownExports
from volagent.host.process import Outcome

VOLUME = "pvc-12345678-1234-4234-9234-123456789abc"
ONE = Peer("node01", "iqn.2026-01.lab:one", ("192.0.2.11",))
TWO = Peer("node02", "iqn.2026-01.lab:two", ("192.0.2.12", "192.0.2.22"))


class FakeExportfs:
    """`exportfs` over one file, and the pool of threads."""

    def __init__(self, exports_file: Path) -> None:
        self._file = exports_file
        self.shown = ""
        self.broken = False
        self.deaf = False

    async def run(self, argv, *, backend, timeout_s):
        if self.broken:
            return Outcome(1, b"", b"exportfs: no server")
        if argv == ("exportfs", "-r") and not self.deaf:
            lines = [line for line in self._file.read_text().splitlines() if line[:1] != "#"]
            self.shown = "\n".join(line.replace(" ", "  ", 1) for line in lines)
        return Outcome(0, self.shown.encode(), b"")

    async def run_in_pool(self, function, *arguments):
        return function(*arguments)


class Site:
    def __init__(self, kind: str, root: Path) -> None:
        self.pool = root / "pool"
        (self.pool / VOLUME).mkdir(parents=True)
        (self.pool / VOLUME / "disk.img").write_bytes(bytes(4096))
        self.exportfs = FakeExportfs(root / "exports.d" / "volagent.exports")
        self.kind, self.root = kind, root

    def start(self):
        """As a daemon that was started again."""
        if self.kind == "iscsi":
            return IscsiShower(
                FakeTarget(self.root / "configfs", str(self.pool), "iqn.2026-01.x:s")
            )
        exports = ShownExports(str(self.pool), str(self.exportfs._file))
        return NfsShower(self.exportfs, exports)

    def reached_by(self) -> set[str]:
        if self.kind == "iscsi":
            acls = self.root / "configfs/iscsi" / f"iqn.2026-01.x:s.{VOLUME}" / "tpgt_1/acls"
            names = {each.name for each in acls.iterdir()} if acls.exists() else set()
            return {peer.name for peer in (ONE, TWO) if peer.initiator in names}
        return {peer.name for peer in (ONE, TWO) if peer.addresses[0] in self.exportfs.shown}


@pytest.fixture(params=["iscsi", "nfs"])
def site(request, tmp_path):
    return Site(request.param, tmp_path)


async def test_volume_is_reached_by_those_it_is_shown_to(site):
    shower = site.start()
    await shower.show(VOLUME, ONE)
    assert site.reached_by() == {"node01"}
    await shower.show(VOLUME, TWO)
    await shower.show(VOLUME, ONE)
    assert site.reached_by() == {"node01", "node02"}
    assert {volume: set(nodes) for volume, nodes in (await shower.list_shown()).items()} == {
        VOLUME: {"node01", "node02"}
    }


async def test_hidden_volume_is_reached_by_the_others_only_and_says_so(site):
    shower = site.start()
    await shower.show(VOLUME, ONE)
    await shower.show(VOLUME, TWO)
    assert "not" in await shower.hide(VOLUME, "node01")
    assert site.reached_by() == {"node02"}
    await shower.hide(VOLUME, "node02")
    assert site.reached_by() == set()
    assert await shower.list_shown() == {}
    await shower.hide(VOLUME, "node02")


async def test_what_is_on_record_is_shown_again(site):
    await site.start().show(VOLUME, ONE)
    shower = site.start()
    await shower.restore()
    assert site.reached_by() == {"node01"}


async def test_fenced_node_is_let_in_again_only_after_it_was_detached(site):
    shower = site.start()
    await shower.show(VOLUME, ONE)
    await shower.fence(VOLUME, "node01")
    assert site.reached_by() == set()
    again = site.start()
    await again.restore()
    with pytest.raises(Rejected, match="fenced"):
        await again.show(VOLUME, ONE)
    assert site.reached_by() == set()
    await again.hide(VOLUME, "node01")
    await again.show(VOLUME, ONE)
    assert site.reached_by() == {"node01"}


async def test_node_that_never_had_the_volume_can_be_fenced_from_it(site):
    shower = site.start()
    await shower.fence(VOLUME, "node01")
    with pytest.raises(Rejected, match="fenced"):
        await shower.show(VOLUME, ONE)


async def test_volumes_name_that_leads_elsewhere_is_refused(site):
    with pytest.raises((Rejected, Uncertain)):
        await site.start().show("../other", ONE)


async def test_fence_answers_with_what_was_read_back_and_knows_its_own_volumes(site):
    shower = site.start()
    await shower.show(VOLUME, ONE)
    fence = HidingFence(shower, lambda source: str(source.body["name"]))
    order = FenceOrder(VolumeSource("x", {"name": VOLUME}), "unique", "node01", "uid")
    assert "not" in await fence.fence(order)
    assert site.reached_by() == set()
    assert "not" in await fence.fence(order)
    strange = FenceOrder(VolumeSource("x", {"name": ""}), "unique", "node01", "uid")
    with pytest.raises(NoProof):
        await fence.fence(strange)


async def test_order_that_is_old_takes_nothing_from_anybody(site):
    async def is_old():
        return "it is not wanted any more"

    shower = site.start()
    await shower.show(VOLUME, ONE)
    before = site.reached_by()
    fence = HidingFence(shower, lambda source: str(source.body["name"]))
    source = VolumeSource("x", {"name": VOLUME})
    order = FenceOrder(source, "unique", "node01", "uid", None, is_old)
    with pytest.raises(Transient, match="not wanted any more"):
        await fence.fence(order)
    assert before
    assert site.reached_by() == before


class OtherFence:
    async def fence(self, order):
        return "by reservation"


async def test_storage_node_fences_its_own_volumes_itself_and_others_as_any_node_does(site):
    own = HidingFence(site.start(), lambda source: str(source.body["name"]))
    table = join_fences({"a": own, "b": own}, {"a": OtherFence(), "c": OtherFence()})
    assert set(table) == {"a", "b", "c"}
    order = FenceOrder(VolumeSource("x", {"name": VOLUME}), "unique", "node01", "uid")
    assert "not" in await table["a"].fence(order)
    strange = FenceOrder(VolumeSource("x", {"name": ""}), "unique", "node01", "uid")
    assert await table["a"].fence(strange) == "by reservation"
    with pytest.raises(NoProof):
        await table["b"].fence(strange)


@pytest.fixture
def nfs(tmp_path):
    return Site("nfs", tmp_path)


async def test_directory_is_exported_with_a_number_that_lasts(nfs):
    await nfs.start().show(VOLUME, ONE)
    text = nfs.exportfs._file.read_text()
    assert f"{nfs.pool}/{VOLUME} 192.0.2.11(rw,sync,no_subtree_check," in text
    assert "fsid=12345678-1234-4234-9234-123456789abc" in text


async def test_server_that_does_not_follow_is_told_and_the_record_stays(nfs):
    shower = nfs.start()
    await shower.show(VOLUME, ONE)
    nfs.exportfs.deaf = True
    with pytest.raises(Uncertain, match="still shown"):
        await shower.hide(VOLUME, "node01")
    assert await shower.list_shown() == {VOLUME: ["node01"]}
    with pytest.raises(Uncertain, match="not shown"):
        await shower.show(VOLUME, TWO)


async def test_server_that_is_not_installed_is_told_with_what_helps(nfs):
    nfs.exportfs.broken = True
    with pytest.raises(Uncertain) as caught:
        await nfs.start().show(VOLUME, ONE)
    assert "nfs-kernel-server" in caught.value.remedy


@pytest.mark.parametrize("addresses", [(), ("*",), ("192.0.2.0/24",), ("a b",)])
async def test_only_plain_addresses_are_let_in(nfs, addresses):
    with pytest.raises((Uncertain, Transient)):
        await nfs.start().show(VOLUME, Peer("node01", "", addresses))
    assert nfs.reached_by() == set()


async def test_nothing_is_touched_where_nothing_was_ever_shown(nfs):
    nfs.exportfs.broken = True
    assert await nfs.start().restore() == "0 directories shown"
    assert not nfs.exportfs._file.exists()
