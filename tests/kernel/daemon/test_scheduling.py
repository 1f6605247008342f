"""Pods find their node on a real daemon; other nodes are objects that no agent stands behind."""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.manifests import pod
from tests.kernel.daemon.harness import Daemon, Json, Refused, path_of, until
from tests.simulation.scheduling import a_claim, a_class, a_node, a_volume

OWN, OTHER = "vm1", "vm2"
SLOW = {"key": "disk", "value": "slow", "effect": "NoSchedule"}


def with_claims(name: str, *claims: str, **spec: Any) -> Json:
    volumes = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims]
    made: Json = pod(name, volumes)
    made["spec"].update(spec)
    return made


def local_volume(daemon: Daemon, name: str, node: str = OWN, size: str = "1Gi") -> Json:
    path = daemon.base / "disks" / name
    path.mkdir(parents=True, exist_ok=True)
    volume: Json = a_volume(name, node, size)
    volume["spec"]["local"]["path"] = str(path)
    return volume


def node_of(daemon: Daemon, web: Json) -> str:
    name: str = daemon.get(web)["spec"].get("nodeName", "")
    return name


def wait_placed(daemon: Daemon, web: Json) -> str:
    return until(lambda: node_of(daemon, web), told=lambda: told(daemon, web))


def told(daemon: Daemon, web: Json) -> str:
    conditions = daemon.get(web)["status"].get("conditions", [])
    scheduled = [c for c in conditions if c["type"] == "PodScheduled"]
    return str(scheduled[0].get("message", "")) if scheduled else ""


def wait_told(daemon: Daemon, web: Json, message: str) -> None:
    until(lambda: told(daemon, web) == message, told=lambda: told(daemon, web))


def force_away(daemon: Daemon, *pods: Json) -> None:
    """Pods of a node without an agent: nobody there would confirm their end."""
    for each in pods:
        daemon.call("DELETE", path_of(each), {"gracePeriodSeconds": 0})


def data_of(daemon: Daemon, web: Json, volume: str) -> Path:
    uid = daemon.get(web)["metadata"]["uid"]
    return daemon.pods / uid / "volumes/kubernetes.io~local-volume" / volume


def test_pod_goes_where_its_local_volume_is_and_returns_to_its_data(daemon: Daemon) -> None:
    claim, web = {**a_claim("data")}, with_claims("web", "data")
    daemon.declare(a_node(OTHER, cpu="512"), a_class(), local_volume(daemon, "pv"), claim)
    daemon.wait_event(claim, "WaitForFirstConsumer", "waiting for first consumer")
    assert daemon.get(claim)["status"]["phase"] == "Pending"

    for expected in ("", "kept"):
        daemon.declare_ready(web)
        assert node_of(daemon, web) == OWN
        assert daemon.get(claim)["spec"]["volumeName"] == "pv"
        file = data_of(daemon, web, "pv") / "file"
        assert (file.read_text() if file.exists() else "") == expected
        file.write_text("kept")
        daemon.delete_gone(web)
    assert (daemon.base / "disks/pv/file").read_text() == "kept"


def test_two_claims_that_only_fit_together_are_both_bound(daemon: Daemon) -> None:
    web = with_claims("web", "small", "large")
    daemon.declare(
        a_node(OTHER), a_class(),
        local_volume(daemon, "two", size="2Gi"), local_volume(daemon, "three", size="3Gi"),
        local_volume(daemon, "lonely", OTHER, "2Gi"),
        a_claim("small", "1Gi"), a_claim("large", "3Gi"), web,
    )  # fmt: skip
    daemon.wait_ready(web)
    assert node_of(daemon, web) == OWN
    assert daemon.get(a_claim("small"))["spec"]["volumeName"] == "two"
    assert daemon.get(a_claim("large"))["spec"]["volumeName"] == "three"


def test_plain_pod_has_its_node_in_the_answer_while_there_is_only_one(daemon: Daemon) -> None:
    (alone,) = daemon.declare(pod("alone", []))
    assert alone["spec"]["nodeName"] == OWN
    daemon.declare(a_node(OTHER, cpu="512"))
    until(
        lambda: (
            OTHER in [n["metadata"]["name"] for n in daemon.call("GET", "/api/v1/nodes")["items"]]
        )
    )
    picky = pod("picky", [])
    picky["spec"]["nodeSelector"] = {"kubernetes.io/hostname": OTHER}
    (created,) = daemon.declare(picky)
    assert "nodeName" not in created["spec"]
    assert wait_placed(daemon, picky) == OTHER
    daemon.wait_event(picky, "Scheduled", f"Successfully assigned default/picky to {OTHER}")
    force_away(daemon, picky)


def test_cordoned_and_tainted_nodes_are_told_one_by_one_until_one_is_free(daemon: Daemon) -> None:
    web = pod("web", [])
    own = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": OWN}}
    daemon.declare(a_node(OTHER, taints=[SLOW]))
    daemon.patch(own, {"spec": {"unschedulable": True}})
    until(lambda: daemon.get(own)["spec"]["unschedulable"])
    daemon.declare(web)
    wait_told(
        daemon, web,
        "0/2 nodes are available: 1 node(s) had untolerated taint {disk: slow}, "
        "1 node(s) were unschedulable.",
    )  # fmt: skip
    daemon.wait_event(
        web, "FailedScheduling",
        f"{OWN}: node(s) were unschedulable", f"{OTHER}: node(s) had untolerated taint",
    )  # fmt: skip
    explained = daemon.ask_node("explain", web)
    assert [(each["node"], each["says"]) for each in explained["nodes"]] == [
        (OWN, f"node(s) were unschedulable (`kubectl uncordon {OWN}` lets pods in again)"),
        (OTHER, "node(s) had untolerated taint {disk: slow}"),
    ]
    assert explained["steps"][-1]["step"] == "schedule"
    assert explained["steps"][-1]["remedy"]
    daemon.patch(own, {"spec": {"unschedulable": None}})
    assert wait_placed(daemon, web) == OWN
    daemon.wait_ready(web)


def test_request_beyond_the_machine_is_told_and_met_by_a_larger_node(daemon: Daemon) -> None:
    web = pod("web", [])
    web["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "400"}}
    daemon.declare(web)
    wait_told(daemon, web, "0/1 nodes are available: 1 Insufficient cpu.")
    daemon.declare(a_node(OTHER, cpu="512"))
    assert wait_placed(daemon, web) == OTHER
    force_away(daemon, web)


def test_pod_of_another_scheduler_is_bound_by_its_request(daemon: Daemon) -> None:
    web = pod("web", [])
    web["spec"]["schedulerName"] = "mine"
    (created,) = daemon.declare(web)
    assert "nodeName" not in created["spec"]
    binding = {
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"},
        "target": {"apiVersion": "v1", "kind": "Node", "name": OWN},
    }  # fmt: skip
    answer = daemon.call("POST", f"{path_of(web)}/binding", binding)
    assert answer["status"] == "Success"
    daemon.wait_ready(web)
    with pytest.raises(Refused, match=f'already assigned to node \\\\?"{OWN}'):
        daemon.call("POST", f"{path_of(web)}/binding", binding)


def test_pods_that_were_being_scheduled_when_the_daemon_was_killed_all_arrive(
    daemon: Daemon,
) -> None:
    count = 12
    webs = [with_claims(f"web{i}", f"c{i}") for i in range(count)]
    daemon.declare(a_node(OTHER), a_class())
    daemon.declare(*(local_volume(daemon, f"pv{i}") for i in range(count)))
    for kills in range(3):
        for i in range(kills * 4, kills * 4 + 4):
            daemon.declare(a_claim(f"c{i}"), webs[i])
        daemon.restart()
    for web in webs:
        daemon.wait_ready(web)
        assert node_of(daemon, web) == OWN
    volumes = {daemon.get(a_claim(f"c{i}"))["spec"]["volumeName"] for i in range(count)}
    assert len(volumes) == count
