"""Agents and servers one version apart: what one side does not know hurts nothing and is kept.

The cluster is upgraded as operators do it, the server first, and back again, while pods use their
volumes; after each step everything that was mounted is mounted still, and new pods come and go.
"""

from pathlib import Path

import pytest

from tests.cluster.manifests import claim_volume, pod
from tests.kernel.daemon.harness import Daemon, Json, until
from tests.kernel.daemon.other_version import GIVEN, NEXT, other_version
from tests.kernel.daemon.test_agent import (
    NODE,
    SECRET,
    Agent,
    agent,
    join,
    ready_of,
    server,
    volagent,
)
from tests.kernel.daemon.test_node_verbs import CLAIM, CLASS, THE_NODE
from volagent import __version__

__all__ = ["agent", "server"]  # fixtures
VOLUMES = [
    {"name": "s", "secret": {"secretName": "s"}},
    {"name": "m", "emptyDir": {"medium": "Memory"}},
]


@pytest.fixture
def other(scratch: Path) -> Path:
    return other_version(scratch / "other")


def exchange(daemon: Daemon, source: Path | None) -> None:
    """Stop it, and start the same machine's daemon in another version."""
    assert daemon.stop() == 0, daemon.read_log()
    daemon.source = source
    daemon.serve()


def a_pod(name: str, *more: Json) -> Json:
    document = pod(name, [*VOLUMES, *more])
    document["spec"]["nextField"] = {"kept": [1, 2]}
    document["spec"]["containers"][0]["nextField"] = "kept"
    return document


def check_kept(server: Daemon, document: Json) -> None:
    """Fields that nobody knows are what they were when they were declared."""
    spec = server.get(document)["spec"]
    assert spec["nextField"] == {"kept": [1, 2]}
    assert spec["containers"][0]["nextField"] == "kept"


def check_works(server: Daemon, agent: Daemon, before: dict, name: str) -> None:
    """What was there is there, untouched, and a new pod comes and goes."""
    until(lambda: ready_of(server) == "True", told=server.read_log)
    probe = a_pod(name)
    server.declare(probe)
    server.wait_ready(probe)
    check_kept(server, probe)
    server.delete_gone(probe)
    assert agent.mounts() == before


@pytest.mark.timeout(300)
def test_cluster_is_upgraded_and_downgraded_while_a_pod_uses_its_volumes(server, agent, other):
    web = a_pod("web", claim_volume("data", "data"))
    server.declare(SECRET, CLASS, CLAIM)
    server.declare_ready(web)
    before = agent.mounts()
    assert len(before) >= 3

    exchange(server, other)
    check_works(server, agent, before, "new-server")
    exchange(agent, other)
    check_works(server, agent, before, "both-new")
    exchange(server, None)
    check_works(server, agent, before, "new-agent")
    if not GIVEN:
        _check_told(server, agent)
    exchange(agent, None)
    check_works(server, agent, before, "both-old")

    check_kept(server, web)
    server.wait_ready(web)
    server.delete_gone(web, CLAIM)
    assert agent.mounts() == {}


def _check_told(server: Daemon, agent: Daemon) -> None:
    """The agent is the next version's, the server is this one's."""
    status = server.get(THE_NODE)["status"]
    assert status["nodeInfo"]["kubeletVersion"] == f"volagent-{NEXT}"
    # What the next version says of its node outlives what this one writes there.
    agent.kill()
    until(lambda: ready_of(server) == "Unknown", told=server.read_log)
    assert server.get(THE_NODE)["status"]["nextStatus"] == ["new"]
    agent.serve()
    listed = volagent("get", "nodes", "--run-dir", server.run)
    assert f"volagent-{NEXT}" in listed.stdout
    told = volagent("doctor", "--run-dir", server.run).stdout
    assert f"version of node {NODE}" in told
    assert f"{NEXT}, and {__version__} here" in told


def test_machine_joins_a_server_of_the_other_version(server, stopped, other):
    exchange(server, other)
    joiner = Agent(stopped.base / "joiner")
    done = join(server, joiner)
    assert done.returncode == 0, done.stderr
    joiner.serve()
    web = a_pod("web")
    server.declare(SECRET)
    server.declare_ready(web)
    server.delete_gone(web)
    assert joiner.stop() == 0, joiner.read_log()
