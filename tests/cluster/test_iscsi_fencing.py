"""A LUN is taken from a node that writes: by the storage (LIO), between real kernels.

The driver and the fence are called directly, in a new process each time. What is on the disk is
read from the array, which nobody can fence. The contract of fencing is asked of it, too.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.iscsi_site import NODE, step
from tests.cluster.lab.iscsi_initiator import IscsiInitiator, Json, source
from tests.cluster.lab.iscsi_target import IscsiTarget
from tests.cluster.lab.machine import Hardware, Lab
from tests.contract.fencing.suite import FenceContract

LOOK_S = 0.5
TRY_S = 60


@dataclass(frozen=True)
class Ring:
    """An array, and two nodes that may have its disk."""

    target: IscsiTarget
    one: IscsiInitiator
    two: IscsiInitiator

    def show(self, lun: int, name: str) -> Json:
        """A blank disk under a number."""
        self.target.make_disk(name, 16)
        self.target.show(lun, name)
        return source(self.target, lun)

    def fence(self, body: Json, *, uid: str = "a1") -> Json:
        """Keep the first node out, by the second."""
        order = {"uid": uid, "by": "node02", "node": "node01"}
        (said,) = self.two.drive(step("fence", "fenced", body, **order))
        return said

    def registrants(self, body: Json) -> list[str]:
        (said,) = self.two.drive(step("registrants", "shown", body))
        return list(said["evidence"])


@pytest.fixture(scope="module")
def whole_ring(lab: Lab) -> Ring:
    array = lab.add_machine("array", Hardware(memory_mib=512, disks_mib=(256,)))
    one, two = (lab.add_machine(name, NODE) for name in ("one", "two"))
    lab.start_all()
    target = IscsiTarget(array, disk=array.disks[0])
    target.serve()
    ring = Ring(target, IscsiInitiator(one), IscsiInitiator(two))
    for node in (ring.one, ring.two):
        node.start(patience_s=20)
    return ring


@pytest.fixture
def ring(whole_ring: Ring) -> Iterator[Ring]:
    """The ring, with nodes as clean after each test as they were before."""
    yield whole_ring
    for node in (whole_ring.one, whole_ring.two):
        assert node.sessions() == []
        assert node.disks() == []


def on_one(what: str, name: str, body: Json, uid: str = "a1", **more: object) -> Json:
    return step(what, name, body, uid=uid, node="node01", block=True, **more)


def on_two(what: str, name: str, body: Json, uid: str = "a2", **more: object) -> Json:
    return step(what, name, body, uid=uid, node="node02", block=True, **more)


def start_writer(node: IscsiInitiator, device: str) -> None:
    """Write records to a raw disk, and wait until some are acknowledged."""
    here = node.machine.installation
    program = f"{here.python} {here.guest_files}/block_writer.py {device} node01"
    node.machine.run(
        "rm -f /run/acknowledged /run/writer-ended\n"
        f"setsid {program} >/dev/null 2>&1 &\n"
        "until [ -s /run/acknowledged ] && [ $(cat /run/acknowledged) -gt 20 ]; do sleep 0.05; done"
    )


def wait_for_writer(node: IscsiInitiator) -> int:
    """How many records were acknowledged when one was refused."""
    node.machine.run("until [ -e /run/writer-ended ]; do sleep 0.05; done")
    return int(node.machine.run("cat /run/writer-ended").out.split()[0])


def record_at(ring: Ring, name: str, number: int) -> str:
    place = (number - 1) % 1024
    said = ring.target.read(name, (place + 1) * 4096)[place * 4096 :]
    return said.rstrip(b"\0").decode().strip()


def test_writer_is_stopped_the_moment_another_node_fences(ring, figure):
    body = ring.show(1, "written")
    (up,) = ring.one.drive(on_one("set-up", "mine", body))
    assert "reserved (type 5)" in up["evidence"][0], up
    start_writer(ring.one, up["device"])

    fenced = ring.fence(body)
    before = ring.target.checksum("written")
    assert "error" not in fenced, fenced
    figure("fenced by another node, read back in a second session", fenced["took_ms"])
    assert "removed, its commands aborted" in fenced["evidence"][0]
    assert "type 5 by 0x7647" in fenced["evidence"][0]
    written = wait_for_writer(ring.one)
    time.sleep(LOOK_S)
    assert ring.target.checksum("written") == before
    assert record_at(ring, "written", written) == f"node01 {written}"

    (checked,) = ring.one.drive(on_one("prepare", "mine", body))
    assert "was fenced" in checked["message"], checked
    (taken,) = ring.two.drive(on_two("set-up", "taken", body))
    ring.two.machine.run(f"echo node02 | dd of={taken['device']} conv=fsync,notrunc 2>/dev/null")
    (down,) = ring.one.drive(on_one("take-down", "mine", body))
    assert any("unwritten" in text for text in down.get("evidence", ())), down
    (down,) = ring.two.drive(on_two("take-down", "taken", body))
    assert any("guarded by 0x7647" in text for text in down.get("evidence", ())), down
    assert ring.target.read("written", 7) == b"node02\n"


def test_what_was_not_written_yet_stays_unwritten(ring):
    body = ring.show(2, "cached")
    (up,) = ring.one.drive(on_one("set-up", "mine", body) | {"block": False})
    assert "error" not in up, up
    ring.one.machine.run("echo kept >/run/pods/mine/kept; sync")
    fenced = ring.fence(body)
    assert "error" not in fenced, fenced
    ring.one.machine.run("head -c 100000 /dev/urandom >/run/pods/mine/lost", check=False)
    before = ring.target.checksum("cached")
    (down,) = ring.one.drive(on_one("take-down", "mine", body) | {"block": False})
    assert "error" not in down, down
    assert [text for text in down.get("evidence", ()) if "unwritten" in text], down
    assert ring.target.checksum("cached") == before
    up, down = ring.two.drive(
        on_two("set-up", "taken", body) | {"block": False},
        on_two("take-down", "taken", body) | {"block": False},
    )
    assert "error" not in up, up
    assert "error" not in down, down


def test_both_paths_of_a_map_are_fenced_at_once(ring):
    body = ring.show(3, "wide") | {"portals": [ring.target.portals[1]]}
    ring.one.start_multipath()
    try:
        (up,) = ring.one.drive(on_one("set-up", "mine", body))
        assert "2 paths" in up["evidence"][0], up
        assert len(ring.registrants(body)) == 2
        start_writer(ring.one, up["device"])
        fenced = ring.fence(body)
        before = ring.target.checksum("wide")
        assert "removed, its commands aborted" in fenced["evidence"][0], fenced
        wait_for_writer(ring.one)
        time.sleep(LOOK_S)
        assert ring.target.checksum("wide") == before
        (down,) = ring.one.drive(on_one("take-down", "mine", body))
        assert any("unwritten" in text for text in down.get("evidence", ())), down
    finally:
        ring.one.stop_multipath()


class LioStorage:
    """A disk of the array, for the contract."""

    def __init__(self, ring: Ring, lun: int) -> None:
        self.ring = ring
        self.nodes = {"node01": ring.one, "node02": ring.two}
        self.body = ring.show(lun, f"disk-{lun}")
        self.devices: dict[str, str] = {}

    def _step(self, what: str, where: str, **more: object) -> Json:
        name = f"disk-of-{where}"
        (said,) = self.nodes[where].drive(step(what, name, self.body, block=True, **more))
        assert "error" not in said, said
        self.devices[where] = said["device"] or self.devices.get(where, "")
        return said

    def attach(self, node: str, uid: str) -> str:
        return str(self._step("set-up", node, uid=uid, node=node)["evidence"][0])

    def attach_unknown(self, node: str) -> None:
        self._step("set-up", node)

    def fence(self, node: str, uid: str) -> str:
        other = "node02" if node == "node01" else "node01"
        (said,) = self.nodes[other].drive(
            step("fence", "fenced", self.body, uid=uid, node=node, by=other)
        )
        assert "error" not in said, said
        return str(said["evidence"][0])

    def give_back(self, node: str) -> str:
        return "; ".join(self._step("take-down", node)["evidence"])

    def _try(self, node: str, dd: str) -> bool:
        script = f"timeout {TRY_S} dd bs=4k count=1 {dd} 2>/dev/null"
        return self.nodes[node].machine.run(script, check=False, timeout_s=TRY_S + 5).code == 0

    def writes(self, node: str) -> bool:
        return self._try(node, f"if=/dev/zero of={self.devices[node]} oflag=direct")

    def reads(self, node: str) -> bool:
        return self._try(node, f"if={self.devices[node]} of=/dev/null iflag=direct")

    def registered(self) -> list[str]:
        return [line.split()[0] for line in self.ring.registrants(self.body)]

    def cut_power(self) -> None:
        self.ring.target.machine.power_cut()
        self.ring.target.machine.start()
        self.ring.target.serve()


class TestLio(FenceContract):
    _luns = itertools.count(10)

    @pytest.fixture
    def storage(self, ring: Ring) -> LioStorage:
        return LioStorage(ring, next(self._luns))
