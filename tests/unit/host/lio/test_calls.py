"""What is asked of the target, over a directory that behaves as configfs does."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.simulation.fake_configfs import FakeConfigfs, prepare
from volagent.host.errors import HostError
from volagent.host.lio import calls

VOLUME = "pvc-12345678-1234-4234-9234-123456789abc"
SERIAL = "12345678123442349234123456789abc"
BASE = "iqn.2026-01.dev.volagent:storage01"
ONE, TWO = "iqn.2026-01.lab:one", "iqn.2026-01.lab:two"


class Machine:
    """A storage node: a pool that lasts, and a kernel that forgets."""

    def __init__(self, root: Path) -> None:
        self.kernel, self.pool = root / "configfs", root / "pool"
        self.pool.mkdir()
        self.tree = FakeConfigfs(str(self.kernel))
        prepare(self.kernel)

    def make_disk(self, volume: str = VOLUME, size: int = 1 << 20) -> Path:
        file = self.pool / volume / "disk.img"
        file.parent.mkdir()
        with file.open("wb") as made:
            made.truncate(size)
        return file

    def ask(self, do: str, **request: object) -> dict:
        return calls.perform(
            {
                "do": do, "path": str(self.pool), "iqn_base": BASE,
                "portals": ["192.0.2.1:3260"], "configfs": str(self.kernel), **request,
            },
            FakeConfigfs,
        )  # fmt: skip

    def publish(self, node: str, initiator: str, volume: str = VOLUME) -> dict:
        return self.ask("publish", volume=volume, node=node, initiator=initiator)

    def power_cut(self) -> None:
        shutil.rmtree(self.kernel)
        prepare(self.kernel)

    def group(self, volume: str = VOLUME) -> Path:
        return self.kernel / "iscsi" / f"{BASE}.{volume}" / "tpgt_1"

    def initiators(self, volume: str = VOLUME) -> list[str]:
        acls = self.group(volume) / "acls"
        return sorted(os.listdir(acls)) if acls.exists() else []

    def barred(self) -> list[str]:
        record = self.pool / ".volagent/iscsi" / f"{VOLUME}.json"
        return json.loads(record.read_text()).get("barred", []) if record.exists() else []

    def read(self, path: str) -> str:
        return (self.kernel / path).read_text().strip()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_published_disk_is_shown_to_that_initiator_with_credentials_and_to_no_other(machine):
    file = machine.make_disk()
    answer = machine.publish("node01", ONE)
    assert answer == {"iqn": f"{BASE}.{VOLUME}", "lun": 0}
    assert machine.initiators() == [ONE]
    group = machine.group()
    assert (group / "enable").read_text() == "1"
    assert (group / "attrib/generate_node_acls").read_text() == "0"
    assert (group / "attrib/authentication").read_text() == "1"
    assert os.listdir(group / "np") == ["192.0.2.1:3260"]
    chap = machine.ask("password", volume=VOLUME)
    assert (group / "acls" / ONE / "auth/password").read_text() == chap["password"]
    disk = f"core/fileio_7000/{VOLUME}"
    assert machine.read(f"{disk}/control") == f"fd_dev_name={file},fd_dev_size={1 << 20}"
    assert machine.read(f"{disk}/wwn/vpd_unit_serial") == SERIAL


def test_publishing_again_changes_nothing(machine):
    machine.make_disk()
    assert machine.publish("node01", ONE) == machine.publish("node01", ONE)
    assert machine.initiators() == [ONE]


def test_unpublished_disk_is_nowhere_and_says_what_was_read_back(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    said = machine.ask("unpublish", volume=VOLUME, node="node01")["evidence"]
    assert said.startswith(f"{ONE} is not let in")
    assert not machine.group().exists()
    assert not (machine.kernel / "core/fileio_7000" / VOLUME).exists()
    assert machine.ask("describe") == {"shown": {}}


def test_one_of_two_is_kept_out_and_the_other_goes_on(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    machine.publish("node02", TWO)
    machine.ask("unpublish", volume=VOLUME, node="node01")
    assert machine.initiators() == [TWO]
    assert machine.ask("describe") == {"shown": {VOLUME: ["node02"]}}


def test_unpublishing_what_was_never_published_is_done(machine):
    assert "was not let in" in machine.ask("unpublish", volume=VOLUME, node="node01")["evidence"]


def test_everything_is_shown_again_after_a_power_cut_with_the_same_password(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    password = machine.ask("password", volume=VOLUME)
    machine.power_cut()
    assert machine.ask("restore") == {"shown": [VOLUME], "missing": []}
    assert machine.initiators() == [ONE]
    assert machine.ask("password", volume=VOLUME) == password
    assert machine.read("dbroot") == f"{machine.pool}/.volagent/lio"


def test_reservations_that_the_kernel_wrote_are_put_back_before_the_disk_is_shown(machine):
    machine.make_disk()
    machine.ask("restore")
    machine.publish("node01", ONE)
    kept = machine.pool / ".volagent/lio/pr" / f"aptpl_{SERIAL}"
    kept.write_text(
        "PR_REG_START: 0\ninitiator_fabric=iSCSI\ninitiator_node=a\nsa_res_key=1\nPR_REG_END: 0\n"
        "PR_REG_START: 1\ninitiator_fabric=iSCSI\ninitiator_node=b\nsa_res_key=2\nPR_REG_END: 1\n"
    )
    machine.power_cut()
    machine.ask("restore")
    assert machine.read(f"core/fileio_7000/{VOLUME}/pr/res_aptpl_metadata").splitlines() == [
        "initiator_fabric=iSCSI,initiator_node=a,sa_res_key=1",
        "initiator_fabric=iSCSI,initiator_node=b,sa_res_key=2",
    ]
    machine.ask("unpublish", volume=VOLUME, node="node01")
    assert not kept.exists()  # of a disk that nobody has, nobody has a reservation


def test_disk_whose_file_is_not_there_is_told_and_its_record_kept(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    machine.power_cut()
    (machine.pool / VOLUME).rename(machine.pool / "elsewhere")
    assert machine.ask("restore") == {"shown": [], "missing": [VOLUME]}
    assert machine.ask("describe") == {"shown": {VOLUME: ["node01"]}}


def test_target_that_is_on_no_record_is_removed_and_those_of_others_stay(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    (machine.pool / ".volagent/iscsi" / f"{VOLUME}.json").unlink()
    machine.tree.make("iscsi/iqn.2001-01.org.example:other")
    machine.ask("restore")
    assert os.listdir(machine.kernel / "iscsi") == ["iqn.2001-01.org.example:other"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("do", ["publish", "unpublish", "fence"])
def test_killed_anywhere_restore_shows_what_is_on_record_and_nothing_else(machine, tmp_path, do):
    machine.make_disk()
    for step in range(100):
        machine.power_cut()
        shutil.rmtree(machine.pool / ".volagent", ignore_errors=True)
        if do != "publish":
            machine.publish("node01", ONE)
        left = step

        class Dying(FakeConfigfs):
            def _tick(self) -> None:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1

            def make(self, path: str) -> bool:
                self._tick()
                return FakeConfigfs.make(self, path)

            def write(self, path: str, text: str) -> None:
                self._tick()
                FakeConfigfs.write(self, path, text)

            def unlink(self, path: str) -> None:
                self._tick()
                FakeConfigfs.unlink(self, path)

            def remove(self, path: str) -> None:
                self._tick()
                FakeConfigfs.remove(self, path)

        request = {
            "do": do, "path": str(machine.pool), "iqn_base": BASE, "portals": ["192.0.2.1:3260"],
            "configfs": str(machine.kernel), "volume": VOLUME, "node": "node01", "initiator": ONE,
        }  # fmt: skip
        try:
            calls.perform(request, Dying)
        except Killed:
            machine.ask("restore")
            recorded = machine.ask("describe")["shown"].get(VOLUME, [])
            let_in = bool(recorded) and "node01" not in machine.barred()
            assert machine.initiators() == ([ONE] if let_in else []), step
            continue
        assert step > 3
        return
    raise AssertionError("it never ends")


def test_fenced_node_stays_out_across_a_power_cut_until_it_was_detached(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    machine.publish("node02", TWO)
    assert "not let in" in machine.ask("fence", volume=VOLUME, node="node01")["evidence"]
    assert machine.initiators() == [TWO]
    assert "was fenced" in machine.publish("node01", ONE)["refused"]["fact"]
    machine.power_cut()
    machine.ask("restore")
    assert machine.initiators() == [TWO]
    assert "was fenced" in machine.publish("node01", ONE)["refused"]["fact"]
    machine.ask("unpublish", volume=VOLUME, node="node01")
    machine.publish("node01", ONE)
    assert machine.initiators() == [ONE, TWO]


def test_only_node_that_is_fenced_leaves_nothing_but_its_name(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    machine.ask("fence", volume=VOLUME, node="node01")
    assert not machine.group().exists()
    assert machine.ask("describe") == {"shown": {VOLUME: ["node01"]}}
    assert machine.ask("restore") == {"shown": [], "missing": []}
    machine.ask("unpublish", volume=VOLUME, node="node01")
    assert machine.ask("describe") == {"shown": {}}


def test_disk_that_is_shown_takes_on_its_files_size(machine):
    file = machine.make_disk()
    assert machine.ask("resize", volume=VOLUME) == {"shown": False}
    machine.publish("node01", ONE)
    with file.open("r+b") as grown:
        grown.truncate(3 << 20)
    assert machine.ask("resize", volume=VOLUME) == {"shown": True}
    control = machine.read(f"core/fileio_7000/{VOLUME}/control")
    assert control == f"fd_dev_name={file},fd_dev_size={3 << 20}"


@pytest.mark.parametrize("initiator", ["", "iqn.x/../y", "somebody", "iqn.a\nb"])
def test_initiators_name_that_is_none_is_refused(machine, initiator):
    machine.make_disk()
    assert "initiator" in machine.publish("node01", initiator)["refused"]["fact"]
    assert machine.ask("describe") == {"shown": {}}


def test_two_nodes_of_one_initiators_name_are_refused(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    assert "same initiator" in machine.publish("node02", ONE)["refused"]["fact"]


def test_node_whose_initiator_has_another_name_now_is_let_in_by_that_alone(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    machine.publish("node01", TWO)
    assert machine.initiators() == [TWO]


@pytest.mark.parametrize("name", ["../etc", "a/b", "", "A"])
def test_name_that_would_lead_elsewhere_is_refused(machine, name):
    assert "refused" in machine.publish("node01", ONE, name)


def test_disk_that_does_not_exist_is_refused(machine):
    assert "does not exist" in machine.publish("node01", ONE)["refused"]["fact"]


def test_record_that_is_none_is_told_not_overlooked(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    (machine.pool / ".volagent/iscsi" / f"{VOLUME}.json").write_text("{")
    with pytest.raises(HostError, match="is no record"):
        machine.ask("restore")


def test_records_and_key_are_readable_by_root_alone(machine):
    machine.make_disk()
    machine.publish("node01", ONE)
    folder = machine.pool / ".volagent/iscsi"
    assert {each.stat().st_mode & 0o077 for each in folder.iterdir()} == {0}
    assert json.loads((folder / f"{VOLUME}.json").read_text()) == {"nodes": {"node01": ONE}}
