"""An agent and its server in two processes: joining, rights, leases, a server that goes away."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.manifests import pod
from tests.kernel.daemon.harness import Daemon, Json, Refused, until
from tests.kernel.daemon.test_access import free_port

NODE = "vm1"
SECRET: Json = {
    "kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "data": {"k": "dg=="},
}  # fmt: skip
OTHER: Json = {**SECRET, "metadata": {"name": "other"}}
LEASES = "\n[lease]\nperiod_s = 0.2\ntimeout_s = 1.0\n\n[failover]\nunsteady_losses = 1000\n"
"""Short, so a busy machine loses nodes that are only slow: none is kept from pods for that."""


class Server(Daemon):
    """`volagent server`."""

    verb = "server"

    def serve(self) -> None:
        """Start it with a port for agents; the same one when it is started again."""
        port = getattr(self, "port", None) or free_port()
        self.port = port
        listen = ("--listen", f"unix://{self.run}/volagent.sock")
        self.start(*listen, "--listen", f"https://127.0.0.1:{port}", settings=LEASES)


class Agent(Daemon):
    """`volagent agent`."""

    verb = "agent"

    def serve(self) -> None:
        """Start it as this machine's agent."""
        self.start(settings=LEASES)


def volagent(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "volagent"
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def join_command(server: Daemon) -> list[str]:
    """What `volagent token create` says to run, without the program's name."""
    made = volagent("token", "create", "--run-dir", server.run)
    assert made.returncode == 0, made.stderr
    return made.stdout.split()[1:]


def join(server: Daemon, agent: Daemon, name: str = NODE) -> subprocess.CompletedProcess[str]:
    command = join_command(server)
    return volagent(*command, "--node-name", name, "--state-dir", agent.state)


@pytest.fixture
def server(stopped: Daemon) -> Iterator[Server]:
    server = Server(stopped.base / "server")
    server.serve()
    yield server
    if server.running:
        assert server.stop() == 0, server.read_log()


@pytest.fixture
def agent(stopped: Daemon, server: Server) -> Iterator[Agent]:
    agent = Agent(stopped.base / "agent")
    done = join(server, agent)
    assert done.returncode == 0, done.stderr
    agent.serve()
    yield agent
    if agent.running:
        assert agent.stop() == 0, agent.read_log()


def secret_pod(name: str = "web") -> Json:
    return pod(name, [{"name": "s", "secret": {"secretName": "s"}}])


def file_of(agent: Daemon, server: Daemon, web: Json) -> Path:
    uid = server.get(web)["metadata"]["uid"]
    return agent.pods / uid / "volumes/kubernetes.io~secret/s/k"


def ready_of(server: Daemon) -> str:
    node = server.get({"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE}})
    conditions = node.get("status", {}).get("conditions", ())
    return next((str(each["status"]) for each in conditions if each["type"] == "Ready"), "")


def test_pod_declared_at_the_server_gets_its_volumes_on_the_agents_machine(server, agent):
    web = secret_pod()
    server.declare(SECRET)
    server.declare_ready(web)
    assert file_of(agent, server, web).read_text() == "v"
    assert agent.ask_node("explain", web)["node"] == NODE
    server.patch(SECRET, {"data": {"k": "dw=="}})
    until(lambda: file_of(agent, server, web).read_text() == "w")
    server.delete_gone(web)


def test_node_tells_its_drivers_and_how_many_volumes_they_take(server, agent):
    agent.stop()
    limits = '{ "image.volagent.dev" = 7, "kubernetes.io/iscsi" = 9 }'
    agent.start(settings=f"attach_limits = {limits}\n{LEASES}")
    csi_node = {
        "kind": "CSINode", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": NODE},
    }  # fmt: skip
    drivers = until(lambda: server.exists(csi_node) and server.get(csi_node)["spec"]["drivers"])
    known = {each["name"]: each for each in drivers}
    assert known["image.volagent.dev"]["nodeID"] == NODE
    until(
        lambda: (
            {"name": "image.volagent.dev", "count": 7}
            in [
                {"name": each["name"], "count": (each.get("allocatable") or {}).get("count")}
                for each in server.get(csi_node)["spec"]["drivers"]
            ]
        )
    )
    node = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": NODE}}
    until(lambda: server.get(node)["status"]["allocatable"].get("attachable-volumes-iscsi") == "9")


def test_agent_sees_the_secrets_of_its_pods_and_no_others(server, agent):
    web = secret_pod()
    server.declare(SECRET, OTHER)
    server.declare_ready(web)
    secrets = "/api/v1/namespaces/default/secrets"
    # The agent's own socket asks the server as the node.
    assert agent.call("GET", f"{secrets}/s")["data"] == {"k": "dg=="}
    for path in (secrets, f"{secrets}/other"):
        with pytest.raises(Refused, match=f"system:node:{NODE}.*cannot"):
            agent.call("GET", path)
    for change in (
        ("PUT", "/api/v1/nodes/vm2", {"metadata": {"name": "vm2", "labels": {"a": "b"}}}),
        ("POST", "/api/v1/namespaces/default/pods", secret_pod("more")),
        ("DELETE", f"{secrets}/s", None),
        ("POST", "/api/v1/persistentvolumes", {
            "kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": "v"},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "nfs": {"server": "10.0.0.1", "path": "/"},
            },
        }),
    ):  # fmt: skip
        with pytest.raises(Refused, match="403"):
            agent.call(*change)
    server.delete_gone(web)
    until(lambda: _is_refused(agent, f"{secrets}/s"))


def _is_refused(agent: Daemon, path: str) -> bool:
    try:
        agent.call("GET", path)
    except Refused as refusal:
        return refusal.status == 403
    return False


def test_volumes_stay_and_are_mended_while_there_is_no_server(server, agent):
    web = secret_pod()
    server.declare(SECRET)
    server.declare_ready(web)
    file = file_of(agent, server, web)
    server.kill()
    subprocess.run(["umount", file.parent], check=True)
    until(file.exists, told=agent.read_log)
    server.serve()
    later = secret_pod("later")
    server.declare_ready(later)
    agent.restart()
    until(file.exists)
    server.delete_gone(web, later)
    assert not file.exists()


def test_machine_that_boots_without_a_server_mounts_what_needs_none(server, agent):
    volumes = [
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "config", "configMap": {"name": "c"}},
    ]
    web = pod("web", volumes)
    config = {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": "c"},
        "data": {"a": "1"},
    }
    server.declare(SECRET, config)
    server.declare_ready(web)
    home = file_of(agent, server, web).parents[2]
    remembered = agent.state / "node/remembered.json"
    until(lambda: remembered.exists() and '"web"' in remembered.read_text(), told=agent.read_log)
    assert "dg==" not in remembered.read_text()
    assert remembered.stat().st_mode & 0o777 == 0o600
    server.stop()
    agent.kill()
    for point in sorted(agent.mounts(), reverse=True):
        subprocess.run(["umount", point], check=True)
    shutil.rmtree(agent.run)

    agent.launch(settings=LEASES)

    memory = home / "kubernetes.io~empty-dir/memory"
    until(lambda: os.path.ismount(memory), told=agent.read_log)
    until((home / "kubernetes.io~configmap/config/a").exists, told=agent.read_log)
    assert not os.path.ismount(home / "kubernetes.io~secret/s")
    server.serve()
    until(lambda: file_of(agent, server, web).exists(), told=agent.read_log)
    server.wait_ready(web)
    server.delete_gone(web)
    until(lambda: '"web"' not in remembered.read_text(), told=agent.read_log)


def test_node_is_lost_when_its_lease_runs_out_and_comes_back_with_it(server, agent):
    until(lambda: ready_of(server) == "True")
    agent.kill()
    until(lambda: ready_of(server) == "Unknown", told=server.read_log)
    web = secret_pod()
    server.declare(SECRET, web)
    explained = until(lambda: server.ask_node("explain", web))
    assert "not ready" in explained["nodes"][0]["says"]
    agent.serve()
    until(lambda: ready_of(server) == "True", told=server.read_log)
    server.wait_ready(web)
    server.delete_gone(web)


def test_machine_that_may_not_join_is_told_why(server, stopped):
    joiner = Agent(stopped.base / "joiner")
    command = join_command(server)
    wrong = [part if not part.startswith("sha256:") else "sha256:00" for part in command]
    done = volagent(*wrong, "--state-dir", joiner.state)
    assert "belongs to another cluster" in done.stderr
    token = command[command.index("--token") + 1]
    wrong = [part if part != token else "aaaaaa.bbbbbbbbbbbbbbbb" for part in command]
    assert "not known" in volagent(*wrong, "--state-dir", joiner.state).stderr
    assert "no lower-case DNS name" in join(server, joiner, "a_b").stderr
    node = {
        "kind": "Node", "apiVersion": "v1", "metadata": {"name": "taken"},
        "status": {"nodeInfo": {"machineID": "another"}},
    }  # fmt: skip
    server.declare(node)
    done = join(server, joiner, "taken")
    assert "has joined from another machine" in done.stderr
    assert "volagent delete node/taken" in done.stderr
    server.delete(node)
    assert join(server, joiner, "taken").returncode == 0
    stranger = Agent(stopped.base / "stranger")
    stranger.launch()
    assert stranger.process is not None
    assert stranger.process.wait(30) == 1
    assert "has not joined a cluster" in stranger.read_log()
