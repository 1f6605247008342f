"""A machine that is installed anew, or gets another name; the server remembers the old one."""

import shutil
import subprocess

from tests.kernel.daemon.harness import until
from tests.kernel.daemon.test_agent import (
    NODE,
    Agent,
    agent,
    join,
    ready_of,
    server,
    volagent,
)
from tests.kernel.daemon.test_node_verbs import THE_NODE, has_left, node, scratch

__all__ = ["agent", "server"]  # fixtures


def wipe(agent: Agent) -> None:
    """The machine is installed anew: nothing is left, and nothing is mounted."""
    agent.kill()
    for point in sorted(agent.mounts(), reverse=True):
        subprocess.run(["umount", point], check=True)
    for path in (agent.state, agent.run, agent.root):
        shutil.rmtree(path)


def test_machine_that_is_installed_anew_comes_back_under_its_name_after_retire(server, agent):
    web = scratch("web")
    server.declare_ready(web)
    wipe(agent)
    # A new installation has a new machine id; here it is the old one's that is changed.
    other = {"status": {"nodeInfo": {"machineID": "of the old installation"}}}
    server.call(
        "PATCH", f"/api/v1/nodes/{NODE}/status", other,
        **{"Content-Type": "application/merge-patch+json"},
    )  # fmt: skip
    refused = join(server, agent)
    assert refused.returncode == 1
    assert "has joined from another machine" in refused.stderr
    until(lambda: ready_of(server) == "Unknown", told=server.read_log)
    assert node(server, "confirm-off", NODE, "--yes").returncode == 0
    until(lambda: has_left(server, web), told=server.read_log)
    assert node(server, "retire", NODE, "--accept-loss").returncode == 0
    assert not server.exists(THE_NODE)

    assert join(server, agent).returncode == 0
    agent.serve()
    until(lambda: ready_of(server) == "True", told=agent.read_log)
    server.wait_ready(web)
    server.delete_gone(web)


def test_machine_with_a_new_name_is_a_new_node_and_takes_the_old_ones_mounts_down(server, agent):
    web = scratch("web")
    server.declare_ready(web)
    assert agent.stop() == 0
    shutil.rmtree(agent.state / "node")
    assert join(server, agent, "renamed").returncode == 0
    agent.serve()
    until(lambda: agent.mounts() == {}, told=agent.read_log)
    until(lambda: ready_of(server) == "Unknown", told=server.read_log)
    assert server.exists(web)  # nobody said that the old node is gone
    assert node(server, "confirm-off", NODE, "--yes").returncode == 0
    until(lambda: has_left(server, web), told=server.read_log)
    assert node(server, "retire", NODE, "--accept-loss").returncode == 0
    server.wait_ready(web)
    assert server.get(web)["spec"]["nodeName"] == "renamed"
    assert "renamed" in volagent("get", "nodes", "--run-dir", server.run).stdout
    server.delete_gone(web)
