"""A VM dies, and nothing else does: its LUN and its pod move by the storage's proof."""

import time
from collections.abc import Iterator

import pytest

from tests.cluster.lab.cluster import Agent, Cluster
from tests.cluster.lab.iscsi_initiator import IscsiInitiator
from tests.cluster.lab.iscsi_target import IscsiTarget
from tests.cluster.lab.node import Json
from tests.cluster.test_iscsi_between_nodes import (
    MOVE_S,
    Luns,
    declare_volume,
    holders,
    home_of,
)

FENCINGS = "/apis/volagent.dev/v1/fencings"


@pytest.fixture(scope="module")
def target(cluster: Cluster) -> IscsiTarget:
    made = IscsiTarget(cluster.storage, iqn="iqn.2026-01.lab:failing-over")
    made.serve()
    for node in cluster.nodes:
        IscsiInitiator(node.machine).start(patience_s=120)
    return made


@pytest.fixture
def site(cluster: Cluster, target: IscsiTarget) -> Iterator[Cluster]:
    yield cluster
    cluster.clean()


@pytest.fixture(scope="module")
def luns(target: IscsiTarget) -> Luns:
    return Luns(target)


def node_of(site: Cluster, pod: Json) -> str:
    path = f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}"
    return str(site.server.call("GET", path)["spec"].get("nodeName", ""))


def split_by_pod(site: Cluster, pod: Json) -> tuple[Agent, Agent]:
    """The node of a pod, and the other one."""
    held = node_of(site, pod)
    one, two = site.nodes
    return (one, two) if one.name == held else (two, one)


def await_true(site: Cluster, look, within_s: float) -> None:
    end_s = time.monotonic() + within_s * site.server.machine.patience
    while not look():
        if time.monotonic() > end_s:
            pytest.fail(
                f"{site.server.call('GET', FENCINGS)['items']}"
                f" {site.server.call('GET', '/api/v1/nodes')['items']}"
                f" {site.server.call('GET', '/api/v1/events')['items']}"
            )
        time.sleep(0.1)


def come_back(node: Agent) -> None:
    node.machine.start()
    IscsiInitiator(node.machine).start(patience_s=120)
    node.start()


def test_pod_of_a_node_that_loses_power_is_mounted_on_the_other_one(site, luns, figure):
    pod = declare_volume(site, luns, "survivor")
    site.server.declare_ready(pod, within_s=MOVE_S)
    lost, other = split_by_pod(site, pod)
    home = home_of(lost, pod, "survivor")
    lost.machine.run(f"echo precious >{home}/note; sync -f {home}")

    lost.machine.power_cut()
    began = time.monotonic()
    await_true(site, lambda: node_of(site, pod) == other.name, 60.0)
    site.server.wait_ready(pod, within_s=MOVE_S)
    figure("failover_s: powered off to mounted elsewhere", (time.monotonic() - began) * 1000)
    assert other.machine.run(f"cat {home_of(other, pod, 'survivor')}/note").out == "precious\n"
    assert holders(site) == [other.name]
    (fencing,) = site.server.call("GET", FENCINGS)["items"]
    assert (fencing["spec"]["method"], fencing["spec"]["executor"]) == ("Storage", other.name)
    assert fencing["status"]["phase"] == "Proven"

    come_back(lost)
    await_true(site, lambda: not site.server.call("GET", FENCINGS)["items"], 60.0)
    assert lost.mounts() == []
    node = f"/api/v1/nodes/{lost.name}"
    await_true(site, lambda: not site.server.call("GET", node)["spec"].get("taints"), 60.0)
    assert node_of(site, pod) == other.name


def test_pod_of_a_node_that_is_cut_off_moves_and_the_node_cleans_up(site, luns, figure):
    """The node runs on, and is cut off from the servers and from the storage."""
    pod = declare_volume(site, luns, "cutoff")
    site.server.declare_ready(pod, within_s=MOVE_S)
    lost, other = split_by_pod(site, pod)
    home = home_of(lost, pod, "cutoff")
    lost.machine.run(f"echo precious >{home}/note; sync -f {home}")

    lost.machine.partition()
    began = time.monotonic()
    await_true(site, lambda: node_of(site, pod) == other.name, 60.0)
    site.server.wait_ready(pod, within_s=MOVE_S)
    figure("cut off to mounted elsewhere", (time.monotonic() - began) * 1000)
    assert other.machine.run(f"cat {home_of(other, pod, 'cutoff')}/note").out == "precious\n"

    lost.machine.heal()
    await_true(site, lambda: not site.server.call("GET", FENCINGS)["items"], 120.0)
    assert lost.mounts() == []
    assert holders(site) == [other.name]
