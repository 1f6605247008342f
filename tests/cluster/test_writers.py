"""A VM fails in one way or another while a pod writes: one writer at every moment, nothing lost.

The writers are not stopped by anybody here: what keeps a lost node from writing has to be the
storage, or that node's end. They write straight to a raw disk, and to a file on ext4 on another.
What is judged is what the array has, against what each writer was told is durable.

A seed moves the moment of the failure. `VOLAGENT_TORTURE_SEEDS=20` runs every failure so often.
"""

import base64
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cluster import manifests
from tests.cluster.lab import records
from tests.cluster.lab.cluster import Agent, Cluster
from tests.cluster.lab.iscsi_initiator import IscsiInitiator, source
from tests.cluster.lab.iscsi_target import IscsiTarget
from tests.cluster.lab.machine import PID_FILE, Lab
from tests.cluster.lab.node import Json
from tests.cluster.lab.uml import UmlMachine

pytestmark = pytest.mark.only_on("uml", reason="the consoles of the machines are read as they run")

WRITER = Path(__file__).parent / "lab/guest/writer.c"
KIND = "kubernetes.io~iscsi"
FENCINGS = "/apis/volagent.dev/v1/fencings"
SIZE_MIB = 64
MOVE_S = 120.0
RETURN_S = 120.0
STAYS_S = 25.0
"""Longer than a lease and a fence take."""
LINGERS_S = 3.0
"""How long the old node's writers go on trying when it is back."""
ACKNOWLEDGED_MIN = 20
SEEDS = range(int(os.environ.get("VOLAGENT_TORTURE_SEEDS", "1")))


@dataclass
class Site:
    """The cluster, its array, and what was written in which order."""

    cluster: Cluster
    target: IscsiTarget
    rounds: int = 0
    writers: list[str] = field(default_factory=list)

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
        for turn, kind in enumerate(("raw", "file")):
            name, lun = self.disk(kind), 2 * self.rounds + turn
            if not reserved:
                self.target.forbid_reservations(name)
            self.target.make_disk(name, SIZE_MIB)
            self.target.show(lun, name)
            body = {"iscsi": source(self.target, lun, fsType="ext4")}
            pair = manifests.bound_pair(name, body, access_mode="ReadWriteOnce")
            for each in pair:
                each["spec"]["volumeMode"] = "Block" if kind == "raw" else "Filesystem"
            self.server.declare(*pair)
        pod = manifests.pod(
            f"writer-{self.rounds}",
            [manifests.claim_volume(kind, self.disk(kind)) for kind in ("raw", "file")],
            mounts=[{"name": "file", "mountPath": "/file"}],
        )
        (container,) = pod["spec"]["containers"]
        container["volumeDevices"] = [{"name": "raw", "devicePath": "/dev/raw"}]
        self.server.declare(pod)
        return pod

    def node_of(self, pod: Json) -> Agent:
        found = self.server.call("GET", f"/api/v1/namespaces/default/pods/{_name(pod)}")
        return self.node(found["spec"]["nodeName"])

    def node_of_soon(self, pod: Json) -> Agent:
        """The node that a scheduler chooses for a pod."""
        path = f"/api/v1/namespaces/default/pods/{_name(pod)}"
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
            assert time.monotonic() < ends_s, (node.name, said)
            time.sleep(0.1)

    def count_acknowledged(self, node: Agent) -> tuple[int, int]:
        found = records.read_acknowledged(_console(node))
        name = f"{node.name}.{self.rounds}"
        return len(found.get(f"{name}.raw", ())), len(found.get(f"{name}.file", ()))

    def await_move(self, pod: Json, away_from: Agent) -> float:
        """Seconds until the pod has its volumes on the other node."""
        began = time.monotonic()
        path = f"/api/v1/namespaces/default/pods/{_name(pod)}"
        while True:
            found = self.server.call("GET", path)
            moved = found["spec"].get("nodeName") not in (None, away_from.name)
            if moved and self.server.is_ready(pod):
                return time.monotonic() - began
            if time.monotonic() - began > MOVE_S:
                explained = self.server.volagent(f"explain pod/{_name(pod)}")
                fencings = self.server.call("GET", FENCINGS)["items"]
                raise AssertionError(f"not moved:\n{explained}\n{fencings}\n{self.server.log()}")
            time.sleep(0.2)

    def await_return(self, node: Agent) -> None:
        """Until a node is in service again, and has nothing left of what was taken from it.

        Its writers go on for a while, then they are ended, as a runtime ends containers.
        """
        time.sleep(LINGERS_S)
        node.machine.run("pkill -KILL -x writer || true")
        ends_s = time.monotonic() + RETURN_S
        while True:
            found = self.server.call("GET", f"/api/v1/nodes/{node.name}")
            ready = [c["status"] for c in found["status"]["conditions"] if c["type"] == "Ready"]
            clean = not node.mounts() and not IscsiInitiator(node.machine).sessions()
            if ready == ["True"] and clean and not found["status"].get("volumesInUse"):
                return
            assert time.monotonic() < ends_s, (found["status"], node.mounts(), node.log())
            time.sleep(0.3)

    def finish(self, pod: Json, node: Agent) -> None:
        """End the writers and the pod in order; then judge what the array has."""
        node.machine.run("pkill -x writer; while pgrep -x writer >/dev/null; do sleep 0.05; done")
        self.server.delete_gone(pod, within_s=90.0)
        self.judge()

    def judge(self) -> None:
        console = "\n".join(_console(node) for node in self.cluster.nodes)
        told = records.read_acknowledged(console)
        for kind in ("raw", "file"):
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


def _name(pod: Json) -> str:
    return str(pod["metadata"]["name"])


def _machine(node: Agent) -> UmlMachine:
    assert isinstance(node.machine, UmlMachine)
    return node.machine


def _console(node: Agent) -> str:
    return _machine(node).log.read_text(errors="replace")


def _window(node: Agent) -> Path:
    return _machine(node).log.parent


@pytest.fixture(scope="module")
def whole_site(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Site:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler for the writer: apt-get install gcc libc6-dev")
    program = tmp_path_factory.mktemp("writer") / "writer"
    subprocess.run(["cc", "-O2", "-static", "-o", program, WRITER], check=True, timeout=60)
    cluster = Cluster.build(lab)
    target = IscsiTarget(cluster.storage, disk=cluster.storage.disks[0])
    target.serve()
    for node in cluster.nodes:
        IscsiInitiator(node.machine).start(patience_s=120)
        shutil.copy(program, _window(node))
    return Site(cluster, target)


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    yield whole_site
    whole_site.cluster.clean()


# -- failures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """What happens to a node, and how it ends."""

    name: str
    begin: Callable[[Site, Agent], None]
    end: Callable[[Site, Agent], None]


def _start_again(_: Site, node: Agent) -> None:
    node.machine.start()
    IscsiInitiator(node.machine).start(patience_s=120)
    node.start()


def _cut_off(*roles: str) -> Failure:
    def addresses(site: Site) -> list[str]:
        machines = {"server": site.server.machine, "storage": site.cluster.storage}
        return [machines[role].address for role in roles]

    def change(verb: str) -> Callable[[Site, Agent], None]:
        def do(site: Site, node: Agent) -> None:
            lines = [f"ip route {verb} blackhole {each}/32" for each in addresses(site)]
            node.machine.run("\n".join(lines))

        return do

    return Failure(f"cut off from the {' and the '.join(roles)}", change("add"), change("del"))


def _signal(name: str) -> Callable[[Site, Agent], None]:
    return lambda _, node: node.machine.run(f"kill -{name} $(cat {PID_FILE})") and None


POWER = Failure("power cut", lambda _, node: node.machine.power_cut(), _start_again)
NETWORK = Failure(
    "cable pulled", lambda _, node: node.machine.partition(), lambda _, node: node.machine.heal()
)
FROZEN = Failure(
    "frozen", lambda _, node: _machine(node).freeze(), lambda _, node: _machine(node).thaw()
)
KILLED = Failure("agent killed", lambda _, node: node.kill(), lambda _, node: node.start() and None)
STOPPED = Failure("agent stopped", _signal("STOP"), _signal("CONT"))
SERVER = _cut_off("server")
STORAGE = _cut_off("storage")


def _lose_with_the_server(site: Site, node: Agent) -> None:
    node.machine.power_cut()
    site.server.kill()
    site.server.start()


WITH_SERVER = Failure("power cut, and the server killed", _lose_with_the_server, _start_again)

SHORT = (POWER, FROZEN, SERVER)
LOSSES = (POWER, NETWORK, SERVER, FROZEN, KILLED, STOPPED, WITH_SERVER)
CHOSEN = LOSSES if len(SEEDS) > 1 else SHORT


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("failure", CHOSEN, ids=lambda each: each.name)
def test_disks_of_a_lost_node_move_with_one_writer_at_every_moment(site, failure, seed, figure):
    moment = random.Random(seed)
    pod = site.declare()
    node = site.node_of(pod)
    site.start_writers(pod, node)
    time.sleep(moment.uniform(0.0, 2.0))
    failure.begin(site, node)
    took_s = site.await_move(pod, node)
    figure(f"fail-over after {failure.name}: to mounted elsewhere", took_s * 1000)
    there = site.other(node)
    site.start_writers(pod, there)
    failure.end(site, node)
    site.await_return(node)
    site.await_progress(there)
    site.finish(pod, there)


@pytest.mark.parametrize("seed", SEEDS)
def test_node_that_dies_while_it_takes_the_disks_loses_them(site, seed):
    """At any moment of attaching, formatting, mounting, and of the storage's registrations."""
    moment = random.Random(seed)
    pod = site.begin()
    node = site.node_of_soon(pod)
    time.sleep(moment.uniform(0.0, 4.0))
    POWER.begin(site, node)
    site.await_move(pod, node)
    there = site.other(node)
    site.start_writers(pod, there)
    POWER.end(site, node)
    site.await_return(node)
    site.await_progress(there)
    site.finish(pod, there)


def test_nothing_moves_when_only_the_storage_is_away(site):
    pod = site.declare()
    node = site.node_of(pod)
    site.start_writers(pod, node)
    STORAGE.begin(site, node)
    try:
        time.sleep(STAYS_S)
        assert site.node_of(pod) is node
        assert site.server.call("GET", FENCINGS)["items"] == []
    finally:
        STORAGE.end(site, node)
    site.await_progress(node)
    site.finish(pod, node)


def test_disk_that_nobody_can_prove_free_stays_and_says_so(site):
    pod = site.declare(reserved=False)
    node = site.node_of(pod)
    site.start_writers(pod, node)
    SERVER.begin(site, node)
    try:
        time.sleep(STAYS_S + 15.0)
        assert site.node_of(pod) is node
        said = site.server.volagent(f"explain pod/{_name(pod)}")
        assert "confirm-off" in said, said
        fencings = site.server.call("GET", FENCINGS)["items"]
        assert not [each for each in fencings if each["status"].get("phase") == "Proven"], fencings
    finally:
        SERVER.end(site, node)
    site.await_progress(node)
    site.finish(pod, node)
