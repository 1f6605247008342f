"""A storage node, a server and two nodes: what the scenarios of storage nodes share."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.cluster import manifests
from tests.cluster.lab.cluster import Agent, Server, on
from tests.cluster.lab.iscsi_initiator import IscsiInitiator
from tests.cluster.lab.machine import Hardware, Lab
from tests.cluster.lab.node import Json
from tests.cluster.lab.storage_node import StorageNode, ThinStorageNode

MOVE_S = 60.0


@dataclass(frozen=True)
class Site:
    server: Server
    storage: StorageNode
    nodes: tuple[Agent, Agent]

    def volume_of(self, claim: str) -> Json:
        path = f"/api/v1/namespaces/default/persistentvolumeclaims/{claim}"
        name = self.server.call("GET", path)["spec"]["volumeName"]
        volume: Json = self.server.call("GET", f"/api/v1/persistentvolumes/{name}")
        return volume

    def home(self, node: Agent, pod: Json, claim: str, kind: str = "kubernetes.io~iscsi") -> str:
        return node.volume(pod, kind, self.volume_of(claim)["metadata"]["name"])

    def let_in(self, path: str) -> list[Agent]:
        """The nodes that a directory is exported to; a whole machine has further addresses."""
        shown = self.storage.shown_to(path)
        assert len(shown) == len({*shown})
        found = [node for node in self.nodes if node.machine.address in shown]
        assert bool(found) is bool(shown), shown
        return found

    def clean(self, *documents: Json) -> None:
        self.server.delete_gone(*documents, within_s=MOVE_S)

    def until(self, holds: Callable[[], bool], what: str, within_s: float = 30.0) -> None:
        end_s = time.monotonic() + within_s * self.server.machine.patience
        while not holds():
            assert time.monotonic() < end_s, f"not in time: {what}\n{self.storage.log()}"
            time.sleep(0.2)


def make_storage_site(lab: Lab, *classes: Json, fs_type: str = "ext4", pool_mib: int = 512) -> Site:
    """Boot everything, let the machines join, declare the classes."""
    hardware = Hardware(memory_mib=512, disks_mib=(128, pool_mib))
    return _join(lab, StorageNode(lab.add_machine("storage01", hardware), fs_type=fs_type), classes)


def make_thin_site(lab: Lab, *classes: Json) -> Site:
    """The same, with the content of disks in a thin pool of more than 5 GiB."""
    hardware = Hardware(memory_mib=512, disks_mib=(128, 128, 6144))
    return _join(lab, ThinStorageNode(lab.add_machine("storage01", hardware)), classes)


def _join(lab: Lab, storage: StorageNode, classes: tuple[Json, ...]) -> Site:
    server = Server(lab.add_machine("server", Hardware(memory_mib=512, disks_mib=(128,))))
    hardware = Hardware(memory_mib=512, disks_mib=(128,))
    one, two = (Agent(lab.add_machine(name, hardware)) for name in ("node01", "node02"))
    lab.start_all()
    server.start()
    command = server.make_join_command()

    def enter(agent: Agent) -> None:
        if agent is not storage:
            # A storage node that boots may need that long, on an emulated processor above all.
            IscsiInitiator(agent.machine).start(patience_s=int(120 * agent.machine.patience))
        agent.join(command)
        agent.start()

    with ThreadPoolExecutor() as threads:
        list(threads.map(enter, (storage, one, two)))
    server.declare(*classes)
    return Site(server, storage, (one, two))


def storage_class(name: str, provisioner: str, **more: object) -> Json:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
        **more,
    }


def claim(name: str, of_class: str, size: str = "64Mi", **more: object) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": of_class,
            "resources": {"requests": {"storage": size}},
            **more,
        },
    }


def user(name: str, node: Agent, claim: str = "") -> Json:
    return on(manifests.pod(name, [manifests.claim_volume("data", claim or name)]), node)
