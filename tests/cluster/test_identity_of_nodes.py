"""Who a node is: its name, its certificate, and what a wrong clock does to both."""

import time
from collections.abc import Iterator

import pytest

from tests.cluster import manifests
from tests.cluster.lab.cluster import Agent, Cluster, on
from tests.cluster.lab.node import Json

DAY_S = 86400


@pytest.fixture
def site(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    cluster.clean()


def declare_scratch(site: Cluster, name: str, node: Agent) -> Json:
    pod = manifests.pod(name, [manifests.scratch("work")])
    site.server.declare_ready(on(pod, node))
    return pod


def jump(node: Agent, seconds: int) -> None:
    """Set a machine's clock."""
    node.machine.run(f"date -s @$(( $(date +%s) + {seconds} )) >/dev/null")


def is_ready(site: Cluster, name: str) -> bool:
    node = site.server.call("GET", f"/api/v1/nodes/{name}")
    states = {each["type"]: each["status"] for each in node["status"]["conditions"]}
    return states["Ready"] == "True" and not node.get("spec", {}).get("taints")


def test_second_machine_of_a_name_is_refused(site):
    one, two = site.nodes
    two.machine.run("mkdir -p /run/other")
    program = two.machine.installation.program
    command = site.server.make_join_command()
    said = two.machine.run(
        f"{program} {command} --node-name {one.name} --state-dir /run/other", check=False
    )
    if one.machine.run("cat /etc/machine-id").out == two.machine.run("cat /etc/machine-id").out:
        pytest.skip("these machines have one machine id: they share their root file system")
    assert said.code != 0
    assert "has joined from another machine" in said.err
    assert is_ready(site, one.name)


def test_clock_that_jumps_by_a_day_loses_no_node_and_no_volume(site):
    one, _ = site.nodes
    pod = declare_scratch(site, "steady", one)
    before = one.mounts()
    for seconds in (DAY_S, -2 * DAY_S, DAY_S):
        jump(one, seconds)
        end_s = time.monotonic() + 12.0  # beyond the lease
        while time.monotonic() < end_s:
            assert is_ready(site, one.name)
            time.sleep(1.0)
        assert one.mounts() == before
        another = declare_scratch(site, "another", one)
        site.server.delete_gone(another)
    site.server.delete_gone(pod)


def test_agent_whose_certificate_has_expired_says_so_and_touches_nothing(site):
    one, _ = site.nodes
    pod = declare_scratch(site, "kept", one)
    before = one.mounts()
    one.stop()
    jump(one, 400 * DAY_S)
    try:
        with pytest.raises(Exception, match="expired"):
            one.start()
        assert one.mounts() == before
    finally:
        jump(one, -400 * DAY_S)
    one.start()
    assert one.mounts() == before
    site.server.wait_ready(pod)
