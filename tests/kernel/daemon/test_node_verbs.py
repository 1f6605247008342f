"""`volagent node`: cordon, drain, confirm-off, retire, against a server and an agent."""

import subprocess

from tests.cluster.manifests import claim_volume, pod
from tests.kernel.daemon.harness import Daemon, Json, until
from tests.kernel.daemon.test_agent import NODE, agent, ready_of, server, volagent

__all__ = ["agent", "server"]  # fixtures

CLASS: Json = {
    "kind": "StorageClass", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": "here"},
    "provisioner": "directory.volagent.dev", "volumeBindingMode": "WaitForFirstConsumer",
}  # fmt: skip
CLAIM: Json = {
    "kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "data"},
    "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "here",
        "resources": {"requests": {"storage": "1Mi"}},
    },
}  # fmt: skip
THE_NODE: Json = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE}}


def node(server: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return volagent("node", *arguments, "--run-dir", server.run)


def scratch(name: str) -> Json:
    return pod(name, [{"name": "m", "emptyDir": {}}])


def with_claim(name: str) -> Json:
    return pod(name, [claim_volume("data", "data")])


def has_left(server: Daemon, pod: Json) -> bool:
    """Whether a pod is declared again, and not on the node that it was on."""
    return server.get(pod)["spec"].get("nodeName") != NODE


def test_cordoned_node_gets_no_pods_and_a_drained_one_has_none(server, agent):
    first, second = scratch("first"), scratch("second")
    server.declare_ready(first)
    assert node(server, "cordon", NODE).stdout == f"node {NODE} is cordoned\n"
    server.declare(second)
    explained = until(lambda: server.ask_node("explain", second))
    assert "unschedulable" in explained["nodes"][0]["says"]
    server.wait_ready(first)
    done = node(server, "drain", NODE, "--yes")
    assert done.stdout == f"node {NODE} is drained\n", done.stderr
    assert not server.exists(first)
    assert agent.mounts() == {}
    assert node(server, "uncordon", NODE).returncode == 0
    server.wait_ready(second)
    server.delete_gone(second)


def test_drain_asks_before_it_deletes(server, agent):
    web = scratch("web")
    server.declare_ready(web)
    done = node(server, "drain", NODE)  # no answer on standard input
    assert done.returncode != 0
    assert "pod default/web" in done.stderr
    server.wait_ready(web)
    assert node(server, "uncordon", NODE).returncode == 0
    server.delete_gone(web)


def test_node_whose_agent_is_heard_of_is_not_off(server, agent):
    until(lambda: ready_of(server) == "True")
    done = node(server, "confirm-off", NODE, "--yes")
    assert done.returncode == 1
    assert "is not off: its agent was heard of" in done.stderr


def test_pods_of_a_node_that_is_off_leave_it_until_it_boots_anew(server, agent):
    web = scratch("web")
    server.declare_ready(web)
    agent.kill()
    until(lambda: ready_of(server) == "Unknown", told=server.read_log)
    assert server.exists(web)
    done = node(server, "confirm-off", NODE, "--yes")
    assert done.returncode == 0, done.stderr
    assert "pod default/web will leave it" in done.stderr
    until(lambda: has_left(server, web), told=server.read_log)
    agent.serve()
    # The same boot: it was never off, and that is told.
    server.wait_event(THE_NODE, "NodeWasNotOff", "Reboot it")
    until(lambda: agent.mounts() == {}, told=agent.read_log)


def test_retired_node_takes_its_own_volumes_along_when_their_loss_is_accepted(server, agent):
    web = with_claim("web")
    server.declare(CLASS, CLAIM)
    server.declare_ready(web)
    refused = node(server, "retire", NODE, "--accept-loss")
    assert "is not empty: pod default/web" in refused.stderr
    agent.kill()
    until(lambda: ready_of(server) == "Unknown", told=server.read_log)
    assert node(server, "confirm-off", NODE, "--yes").returncode == 0
    until(lambda: has_left(server, web), told=server.read_log)
    server.delete_gone(web)
    asked = node(server, "retire", NODE)
    assert asked.returncode != 0
    assert "of default/data is on vm1 only" in asked.stderr
    done = node(server, "retire", NODE, "--accept-loss")
    assert done.returncode == 0, done.stderr
    assert not server.exists(THE_NODE)
    until(lambda: server.get(CLAIM)["status"]["phase"] == "Lost", told=server.read_log)
    server.delete_gone(CLAIM)
