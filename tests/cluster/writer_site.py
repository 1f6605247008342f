"""Writers on two disks of an array, a pod that carries them from node to node, and the judgement.

They write straight to a raw disk, and to a file on ext4 on another. What is judged is what the
array has, against what each writer was told is durable.
"""

import base64
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cluster import manifests
from tests.cluster.lab import records
from tests.cluster.lab.cluster import Agent, Cluster
from tests.cluster.lab.iscsi_initiator import IscsiInitiator, source
from tests.cluster.lab.iscsi_target import IscsiTarget
from tests.cluster.lab.node import Json
from tests.cluster.lab.uml import UmlMachine

WRITER = Path(__file__).parent / "lab/guest/writer.c"
KIND = "kubernetes.io~iscsi"
FENCINGS = "/apis/volagent.dev/v1/fencings"
KINDS = ("raw", "file")
SIZE_MIB = 64
MOVE_S = 120.0
RETURN_S = 120.0
NOTICES_S = 12.0
"""An agent asks every 5 s whether it may still write, and twice when it may not."""
STAYS_S = 25.0
"""Longer than a lease and a fence take."""
LINGERS_S = 3.0
"""How long the old node's writers go on trying when it is back."""
ACKNOWLEDGED_MIN = 20
LUNS = 200
"""The array's numbers are used in turn; it has 256."""


@dataclass
class Site:
    """The cluster, its array, and what was written in which order."""

    cluster: Cluster
    target: IscsiTarget
    rounds: int = 0
    writers: list[str] = field(default_factory=list)
    _read_from: dict[str, int] = field(default_factory=dict)
    """Where this round begins on a node's console."""

    @property
    def server(self):
        return self.cluster.server

    def node(self, name: str) -> Agent:
        return next(each for each in self.cluster.nodes if each.name == name)

    def other(self, node: Agent) -> Agent:
        return next(each for each in self.cluster.nodes if each is not node)

    def disk(self, kind: str) -> str:
        return f"{kind}-{self.rounds}"

    def declare(self, *, reserved: bool = True) -> Json:
        """Two blank disks, and a pod that has them on any node."""
        pod = self.begin(reserved=reserved)
        self.server.wait_ready(pod, within_s=60.0)
        return pod

    def begin(self, *, reserved: bool = True) -> Json:
        """`declare`, and wait for nothing."""
        self.rounds += 1
        self.writers = []
        self._read_from = {each.name: _log(each).stat().st_size for each in self.cluster.nodes}
        for kind, lun in self.luns().items():
            name = self.disk(kind)
            if not reserved:
                self.target.forbid_reservations(name)
            self.target.make_disk(name, SIZE_MIB)
            self.target.show(lun, name)
            body = {"iscsi": source(self.target, lun, fsType="ext4")}
            pair = manifests.bound_pair(name, body, access_mode="ReadWriteOnce")
            for each in pair:
                each["spec"]["volumeMode"] = "Block" if kind == "raw" else "Filesystem"
            self.server.declare(*pair)
        pod = self.make_pod(f"writer-{self.rounds}")
        self.server.declare(pod)
        return pod

    def luns(self) -> dict[str, int]:
        """The numbers of this round's disks."""
        return {kind: (2 * self.rounds + turn) % LUNS for turn, kind in enumerate(KINDS)}

    def forget(self) -> None:
        """Give this round's disks back to the array."""
        for kind, lun in self.luns().items():
            self.target.hide(lun)
            self.target.remove_disk(self.disk(kind))

    def make_pod(self, name: str) -> Json:
        """A pod that has this round's disks, undeclared."""
        pod = manifests.pod(
            name,
            [manifests.claim_volume(kind, self.disk(kind)) for kind in KINDS],
            mounts=[{"name": "file", "mountPath": "/file"}],
        )
        (container,) = pod["spec"]["containers"]
        container["volumeDevices"] = [{"name": "raw", "devicePath": "/dev/raw"}]
        return pod

    def await_fencing(self) -> None:
        """Until somebody has been asked for a proof."""
        ends_s = time.monotonic() + MOVE_S
        while not self.server.call("GET", FENCINGS)["items"]:
            assert time.monotonic() < ends_s, self.server.log()
            time.sleep(0.02)

    def node_of(self, pod: Json) -> Agent:
        found = self.server.call("GET", f"/api/v1/namespaces/default/pods/{name_of(pod)}")
        return self.node(found["spec"]["nodeName"])

    def node_of_soon(self, pod: Json) -> Agent:
        """The node that a scheduler chooses for a pod."""
        path = f"/api/v1/namespaces/default/pods/{name_of(pod)}"
        while not (name := self.server.call("GET", path)["spec"].get("nodeName")):
            time.sleep(0.05)
        return self.node(name)

    def start_writers(self, pod: Json, node: Agent) -> None:
        """Write to both disks, and wait until something is durable on each."""
        name = f"{node.name}.{self.rounds}"
        home = node.pod_directory(pod)
        raw = f"{home}/volumeDevices/{KIND}/pv-{self.disk('raw')}"
        file = f"{home}/volumes/{KIND}/pv-{self.disk('file')}/records"
        writer = _window(node) / "writer"
        node.machine.run(
            f"touch {file}\n"
            f"setsid {writer} $(readlink -f {raw}) {name}.raw >/run/writer-raw.log 2>&1 &\n"
            f"setsid {writer} {file} {name}.file >/run/writer-file.log 2>&1 &\n"
        )
        if name not in self.writers:
            self.writers.append(name)
        self.await_progress(node)

    def await_progress(self, node: Agent) -> None:
        before = self.count_acknowledged(node)
        ends_s = time.monotonic() + 60.0
        while any(
            now < then + ACKNOWLEDGED_MIN
            for now, then in zip(self.count_acknowledged(node), before, strict=True)
        ):
            said = node.machine.run("tail /run/writer-*.log", check=False).out
            assert time.monotonic() < ends_s, (
                f"{node.name}: {said}\n{self.console(node)[-2000:]}\n--- node\n{node.log()}\n"
                f"--- server\n{self.server.log()}"
            )
            time.sleep(0.1)

    def count_acknowledged(self, node: Agent) -> tuple[int, int]:
        found = records.read_acknowledged(self.console(node))
        name = f"{node.name}.{self.rounds}"
        return len(found.get(f"{name}.raw", ())), len(found.get(f"{name}.file", ()))

    def await_move(self, pod: Json, away_from: Agent) -> float:
        """Seconds until the pod has its volumes on the other node."""
        began = time.monotonic()
        path = f"/api/v1/namespaces/default/pods/{name_of(pod)}"
        while True:
            found = self.server.call("GET", path)
            moved = found["spec"].get("nodeName") not in (None, away_from.name)
            if moved and self.server.is_ready(pod):
                return time.monotonic() - began
            if time.monotonic() - began > MOVE_S:
                explained = self.server.volagent(f"explain pod/{name_of(pod)}")
                fencings = self.server.call("GET", FENCINGS)["items"]
                raise AssertionError(
                    f"not moved:\n{explained}\n{fencings}\n{self.server.log()}\n"
                    f"--- the way to the array\n{self.look_at_the_array(self.other(away_from))}"
                )
            time.sleep(0.2)

    def await_settled(self, pod: Json, node: Agent) -> Agent:
        """Who has the pod's volumes, when it may be this node or, if proof came first, the other.

        On the other they are for good; on this one when nobody asks for a proof any more. Its
        writers are ended after a while: it may have lost one disk of two.
        """
        began_s = time.monotonic()
        while True:
            if time.monotonic() > began_s + LINGERS_S:
                node.machine.run("pkill -KILL -x writer || true")
            ready, there = self.server.is_ready(pod), self.node_of_soon(pod)
            if ready and there is not node:
                return there
            if (
                ready
                and _is_in_service(self.status_of(node))
                and self.server.call("GET", FENCINGS)["items"] == []
            ):
                return node
            assert time.monotonic() < began_s + MOVE_S, (there.name, self.server.log())
            time.sleep(0.1)

    def status_of(self, node: Agent) -> Json:
        """What the server has of a node."""
        found: Json = self.server.call("GET", f"/api/v1/nodes/{node.name}")["status"]
        return found

    def look_at_the_array(self, node: Agent) -> str:
        """What stands between a node and the array, for a failure's message."""
        array = self.target.machine
        here = f"ping -c 2 -W 2 {array.address}; iscsiadm -m session -P 1; ss -tn; dmesg | tail -20"
        there = (
            "ss -tn; dmesg | tail -20\n"
            "for each in $(pgrep '^(iscsi|target|tmr)'); do\n"
            "  cat /proc/$each/comm /proc/$each/stack\n"
            "done"
        )
        said = [node.machine.run(here, check=False).out, array.run(there, check=False).out]
        return "\n--- array\n".join(said)

    def await_return(self, node: Agent) -> None:
        """Until a node is in service again, and has nothing left of what was taken from it."""
        self.kill_writers(node)
        ends_s = time.monotonic() + RETURN_S
        while True:
            status = self.status_of(node)
            clean = not node.mounts() and not IscsiInitiator(node.machine).sessions()
            if _is_in_service(status) and clean and not status.get("volumesInUse"):
                return
            assert time.monotonic() < ends_s, (status, node.mounts(), node.log())
            time.sleep(0.3)

    def go_on_elsewhere(
        self, pod: Json, node: Agent, mend: "Callable[[Site, Agent], None]"
    ) -> None:
        """Write on the other node at once, have the old one return meanwhile; then judge."""
        there = self.other(node)
        self.start_writers(pod, there)
        mend(self, node)
        self.await_return(node)
        self.await_progress(there)
        self.finish(pod, there)

    def finish(self, pod: Json, node: Agent) -> None:
        """End the writers and the pod in order; then judge what the array has."""
        self.end_writers(node)
        self.server.delete_gone(pod, within_s=90.0)
        self.judge()

    def kill_writers(self, node: Agent) -> None:
        """After they have gone on for a while, as a runtime ends containers."""
        time.sleep(LINGERS_S)
        node.machine.run("pkill -KILL -x writer || true")

    def end_writers(self, node: Agent) -> None:
        node.machine.run("pkill -x writer; while pgrep -x writer >/dev/null; do sleep 0.05; done")

    def console(self, node: Agent) -> str:
        """What a node has shown on its console in this round."""
        with _log(node).open("rb") as shown:
            shown.seek(self._read_from[node.name])
            return shown.read().decode(errors="replace")

    def judge(self) -> None:
        console = "\n".join(self.console(node) for node in self.cluster.nodes)
        told = records.read_acknowledged(console)
        for kind in KINDS:
            writers = [f"{name}.{kind}" for name in self.writers]
            mine = {name: told.get(name, []) for name in writers}
            longest = 1 + max(max(numbers, default=0) for numbers in mine.values())
            length = (longest + 8) * records.RECORD_BYTES
            image = self.read_raw(length) if kind == "raw" else self.read_file()
            assert records.find_faults(records.read_records(image), mine, writers) == [], kind

    def read_raw(self, length: int) -> bytes:
        return self.target.read(self.disk("raw"), length)

    def read_file(self) -> bytes:
        """The file as the array has it, of a file system that needs no repair but its journal's."""
        said = self.target.machine.run(
            f"sync; cp --sparse=always {self.target.file(self.disk('file'))} /run/judged.img\n"
            "e2fsck -fp /run/judged.img >&2 || [ $? -le 1 ]\n"
            "e2fsck -fn /run/judged.img >&2\n"
            "debugfs -R 'dump /records /run/judged' /run/judged.img >&2\n"
            "base64 -w0 /run/judged; rm -f /run/judged*"
        )
        return base64.b64decode(said.out)


def name_of(pod: Json) -> str:
    return str(pod["metadata"]["name"])


def machine_of(node: Agent) -> UmlMachine:
    assert isinstance(node.machine, UmlMachine)
    return node.machine


def _is_in_service(status: Json) -> bool:
    return ("Ready", "True") in [(each["type"], each["status"]) for each in status["conditions"]]


def _log(node: Agent) -> Path:
    return machine_of(node).log


def _window(node: Agent) -> Path:
    return _log(node).parent


def build_site(cluster: Cluster, directory: Path) -> Site:
    """An array for a cluster whose nodes have the writer. Skips where it cannot be compiled."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler for the writer: apt-get install gcc libc6-dev")
    program = directory / "writer"
    subprocess.run(["cc", "-O2", "-static", "-o", program, WRITER], check=True, timeout=60)
    target = IscsiTarget(cluster.storage, disk=cluster.storage.disks[0])
    target.serve()
    for node in cluster.nodes:
        IscsiInitiator(node.machine).start(patience_s=120)
        shutil.copy(program, _window(node))
    return Site(cluster, target)
