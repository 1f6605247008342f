"""Disks of the block store with a server and two agents: only the server knows the credentials.

Both agents run on this kernel, each as another instance of moto's, with its own disks.
"""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.daemon.disk_plant import planted
from tests.kernel.daemon.harness import Daemon, Json, until
from tests.kernel.daemon.test_agent import Agent, Server, join
from tests.kernel.daemon.test_ebs import DRIVER, a_disk, an_inline_pod
from tests.moto_server import ENVIRONMENT, REGION, ZONE, MotoServer

NO_METADATA = "AWS_EC2_METADATA_DISABLED"


class CloudServer(Server):
    """A server that may call the API."""

    cloud = ""

    def start(self, *arguments: str, settings: str = "") -> None:
        super().start(*arguments, settings=self.cloud)


class CloudAgent(Agent):
    """An agent on an instance; nobody told it any credentials."""

    cloud = ""

    def serve(self) -> None:
        self.start(settings=self.cloud)


@dataclass
class Site:
    """The server and its machines."""

    moto: MotoServer
    server: CloudServer
    agents: dict[str, CloudAgent]
    instances: dict[str, str]

    def place_of(self, pod: Json) -> Path:
        node = self.server.get(pod)["spec"]["nodeName"]
        uid = self.server.get(pod)["metadata"]["uid"]
        return self.agents[node].pods / uid / "volumes" / DRIVER / "data"

    def attached(self) -> dict[str, list[str]]:
        return {
            name: sorted(self.moto.attachments(instance))
            for name, instance in self.instances.items()
        }


def on(node: str, name: str, disk: str) -> Json:
    pod = an_inline_pod(name, disk)
    pod["spec"]["nodeName"] = node
    return pod


@pytest.fixture
def site(stopped: Daemon, scratch: Path, no_leaks: None, moto: MotoServer) -> Iterator[Site]:
    aws = f'\n[aws]\nenabled = true\nregion = "{REGION}"\nendpoint = "{moto.endpoint}"\n'
    server = CloudServer(stopped.base / "server")
    server.cloud = f'{aws}zone = "{ZONE}"\n'
    server.environment = dict(ENVIRONMENT)
    server.serve()
    agents, instances = {}, {}
    with contextlib.ExitStack() as plants:
        for name in ("vm1", "vm2"):
            instances[name] = moto.start_instance()
            links = scratch / f"links-{name}"
            links.mkdir()
            plants.enter_context(planted(moto, instances[name], scratch / f"{name}.log", links))
            agent = agents[name] = CloudAgent(stopped.base / name)
            agent.environment = {NO_METADATA: ENVIRONMENT[NO_METADATA]}
            agent.cloud = (
                f'{aws}zone = "{ZONE}"\ninstance_id = "{instances[name]}"\n'
                f'device_links = "{links}"\n'
            )
            done = join(server, agent, name)
            assert done.returncode == 0, done.stderr
            agent.serve()
        yield Site(moto, server, agents, instances)
        for daemon in (*agents.values(), server):
            if daemon.running:
                assert daemon.stop() == 0, daemon.read_log()


def test_disk_follows_its_pod_and_is_at_one_instance_at_a_time(site: Site) -> None:
    disk, server = a_disk(site.moto), site.server
    first, second = on("vm1", "first", disk), on("vm2", "second", disk)
    server.declare(first)
    server.wait_ready(first)
    assert site.attached() == {"vm1": [disk], "vm2": []}
    assert site.place_of(first).is_mount()

    server.declare(second)
    server.wait_event(second, "FailedAttachVolume", "Multi-Attach error", "first")
    server.wait_blocked(second, disk, "is not attached to this node yet")
    assert site.attached() == {"vm1": [disk], "vm2": []}

    server.delete_gone(first)
    server.wait_ready(second)
    assert site.attached() == {"vm1": [], "vm2": [disk]}
    server.delete_gone(second)
    until(lambda: site.attached() == {"vm1": [], "vm2": []}, told=server.read_log)
    for agent in site.agents.values():
        assert ENVIRONMENT["AWS_SECRET_ACCESS_KEY"] not in agent.log.read_text()


def test_killed_server_goes_on_where_it_was(site: Site) -> None:
    disk, server = a_disk(site.moto), site.server
    first, second = on("vm1", "first", disk), on("vm2", "second", disk)
    server.declare(first)
    server.wait_ready(first)
    server.declare(second)
    server.delete(first)
    server.kill()
    mounted = [name for name, agent in site.agents.items() if agent.mounts()]
    assert mounted in ([], ["vm1"])
    server.serve()
    server.wait_ready(second)
    assert site.attached() == {"vm1": [], "vm2": [disk]}
    assert site.place_of(second).is_mount()
    server.delete_gone(second)
    until(lambda: site.attached() == {"vm1": [], "vm2": []}, told=server.read_log)


def test_machine_that_boots_without_a_server_touches_no_disk(site: Site) -> None:
    """Not even one that is attached to it: another may have got it meanwhile."""
    disk, server, agent = a_disk(site.moto), site.server, site.agents["vm1"]
    pod = on("vm1", "web", disk)
    pod["spec"]["volumes"].append({"name": "m", "emptyDir": {"medium": "Memory"}})
    pod["spec"]["containers"][0]["volumeMounts"].append({"name": "m", "mountPath": "/m"})
    server.declare(pod)
    server.wait_ready(pod)
    point = site.place_of(pod)
    memory = point.parents[1] / "kubernetes.io~empty-dir/m"
    remembered = agent.state / "node/remembered.json"
    until(lambda: remembered.exists() and '"web"' in remembered.read_text(), told=agent.read_log)
    server.kill()
    agent.kill()
    for mounted in sorted(agent.mounts(), reverse=True):
        subprocess.run(["umount", mounted], check=True)
    shutil.rmtree(agent.run)

    agent.launch(settings=agent.cloud)

    until(memory.is_mount, told=agent.read_log)
    assert not point.is_mount()
    assert not [m for m in agent.mounts() if "aws-ebs" in m]
    server.serve()
    until(point.is_mount, told=agent.read_log)
    server.wait_ready(pod)
    server.delete_gone(pod)


def test_node_that_does_not_say_which_instance_it_is_gets_no_disk(site: Site) -> None:
    agent, disk = site.agents["vm1"], a_disk(site.moto)
    node = {"kind": "Node", "metadata": {"name": "vm1"}}
    until(lambda: site.server.get(node)["spec"].get("providerID"))
    agent.stop()
    site.server.patch(node, {"spec": {"providerID": None}})
    agent.start()
    pod = on("vm1", "web", disk)
    site.server.declare(pod)
    site.server.wait_event(pod, "FailedAttachVolume", "has not said which instance")
    site.server.delete_gone(pod)
    attachments = "/apis/storage.k8s.io/v1/volumeattachments"
    until(lambda: not site.server.call("GET", attachments)["items"], told=site.server.read_log)
    assert site.attached() == {"vm1": [], "vm2": []}
