"""An NFS server that loses its power hurts its own volumes and nothing else."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.cluster import manifests
from tests.cluster.lab.machine import Hardware, Lab
from tests.cluster.lab.nfs_server import NfsServer
from tests.cluster.lab.node import Json, VolagentNode

KIND = "kubernetes.io~nfs"
VICTIMS = 4
ROUNDS = 5
RESTART_WITHIN_MS = 20_000
OTHERS_WITHIN_MS = 2_000
DELETE_WITHIN_S = 60.0
HEAL_WITHIN_S = 120.0

SETTINGS = """
[nfs]
mount_timeout_s = 5.0
unmount_timeout_s = 5.0
"""


@dataclass(frozen=True)
class Site:
    server: NfsServer
    node: VolagentNode
    victims: tuple[Json, ...]
    """Pods with a volume on the server."""

    def read_victim(self, pod: Json, *, timeout_s: float = 60.0) -> str:
        note = f"{self.node.volume(pod, KIND, 'data')}/note"
        return self.node.machine.run(f"cat {note}", timeout_s=timeout_s).out


@pytest.fixture(scope="module")
def machines(lab: Lab) -> tuple[NfsServer, VolagentNode]:
    export = lab.add_machine("nfs", Hardware(disks_mib=(64,)))
    machine = lab.add_machine("node", Hardware(memory_mib=640, disks_mib=(256,)))
    node = VolagentNode(machine, settings=SETTINGS)
    lab.start_all()
    server = NfsServer(export, export.disks[0])
    server.serve()
    for number in range(VICTIMS):
        server.make_directory(f"victim-{number}")
    node.start()
    return server, node


@pytest.fixture
def site(machines: tuple[NfsServer, VolagentNode]) -> Iterator[Site]:
    """The server without power, some pods with volumes on it; everything is well again after."""
    server, node = machines
    victims = tuple(
        manifests.pod(
            f"victim-{number}",
            [manifests.nfs("data", server.address, server.path(f"victim-{number}"))],
        )
        for number in range(VICTIMS)
    )
    site = Site(server, node, victims)
    for pod in victims:
        node.declare_ready(pod)
        directory = node.volume(pod, KIND, "data")
        node.machine.run(f"echo note >{directory}/note; sync -f {directory}")
    server.machine.power_cut()
    yield site
    if not server.machine.is_on:
        server.machine.start()
        server.serve()
    left = node.call("GET", "/api/v1/namespaces/default/pods")["items"]
    node.delete_gone(*({**pod, "kind": "Pod"} for pod in left), within_s=HEAL_WITHIN_S)
    assert node.mounts() == []


def test_other_pods_come_and_go_at_their_speed(site: Site, figure: Callable[[str, float], None]):
    up, down = [], []
    site.node.declare(manifests.secret("token", key="value"))
    for number in range(ROUNDS):
        pod = manifests.pod(
            f"other-{number}",
            [
                manifests.scratch("memory", "Memory"),
                manifests.scratch("disk"),
                {"name": "secret", "secret": {"secretName": "token"}},
            ],
        )
        up.append(site.node.declare_ready(pod).took_ms)
        down.append(site.node.delete_gone(pod).took_ms)
    site.node.delete(manifests.secret("token"))
    figure("pod ready beside a dead NFS server (median)", statistics.median(up))
    figure("pod gone beside a dead NFS server (median)", statistics.median(down))
    bound_ms = OTHERS_WITHIN_MS * site.node.machine.patience
    assert max(up) < bound_ms
    assert max(down) < bound_ms


def test_pod_with_a_new_volume_on_the_dead_server_says_why_it_waits(site: Site):
    pod = manifests.pod(
        "late", [manifests.nfs("data", site.server.address, site.server.path("victim-0"))]
    )
    site.node.declare(pod)
    site.node.wait_unready(pod)
    explained = str(site.node.explain(pod))
    assert site.server.address in explained
    site.node.delete_gone(pod, within_s=DELETE_WITHIN_S)


def test_killed_daemon_is_ready_again_and_keeps_the_mounts(
    site: Site, figure: Callable[[str, float], None]
):
    before = site.node.mounts()
    site.node.kill()
    ready = site.node.start()
    figure("daemon ready beside a dead NFS server", ready.took_ms)
    assert ready.took_ms < RESTART_WITHIN_MS * site.node.machine.patience
    assert site.node.mounts() == before
    pod = manifests.pod("after", [manifests.scratch("memory", "Memory")])
    site.node.declare_ready(pod)
    site.node.delete_gone(pod)


def test_rebooted_node_does_not_call_ready_what_it_could_not_mount(site: Site):
    site.node.machine.power_cut()
    site.node.machine.start()
    site.node.start()
    assert [site.node.is_ready(pod) for pod in site.victims] == [False] * VICTIMS
    for pod in site.victims:
        site.node.wait_unready(pod)
    pod = manifests.pod("after", [manifests.scratch("memory", "Memory")])
    site.node.declare_ready(pod)
    site.node.delete_gone(pod)


def test_pods_on_the_dead_server_can_be_deleted_in_bounded_time(
    site: Site, figure: Callable[[str, float], None]
):
    gone = site.node.delete_gone(*site.victims, within_s=DELETE_WITHIN_S)
    figure(f"{VICTIMS} pods on a dead NFS server deleted", gone.took_ms)
    assert site.node.mounts() == []
    assert site.node.leftovers() == []


def test_volumes_heal_when_the_server_returns(site: Site, figure: Callable[[str, float], None]):
    before = site.node.mounts()
    site.server.machine.start()
    site.server.serve()
    for pod in site.victims:
        assert site.read_victim(pod, timeout_s=HEAL_WITHIN_S) == "note\n"
        assert site.node.wait_ready(pod).body["metadata"]["name"] == pod["metadata"]["name"]
    assert site.node.mounts() == before
