"""Dynamic volumes on a real NFS server: the well-known class, applied as it is."""

import time
from pathlib import Path

import pytest

from tests.cluster.lab.machine import Hardware, Lab
from tests.cluster.lab.nfs_server import NfsServer
from tests.cluster.lab.node import Json, VolagentNode
from volagent.cli.manifests import read_manifests

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
SETTINGS = """
[[provision.nfs]]
provisioner = "fuseim.pri/ifs"
server = "{server}"
path = "/"
mount_options = ["vers=4.2"]
"""
BOUND_S = 40.0


class Site:
    def __init__(self, server: NfsServer, node: VolagentNode) -> None:
        self.server = server
        self.node = node

    def on_server(self, command: str) -> str:
        out: str = self.server.machine.run(f"cd /export; {command}").out
        return out


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    export = lab.add_machine("nfs", Hardware(disks_mib=(64,)))
    server = NfsServer(export, export.disks[0])
    settings = SETTINGS.format(server=server.address)
    node = VolagentNode(
        lab.add_machine("node", Hardware(memory_mib=640, disks_mib=(256,))), settings=settings
    )
    lab.start_all()
    server.serve()
    node.start()
    return Site(server, node)


def example(name: str) -> dict[str, Json]:
    return {
        one.resource.kind: {
            "kind": one.resource.kind, "apiVersion": one.resource.api_version, **one.document,
        }
        for one in read_manifests((str(EXAMPLES / f"{name}.yaml"),), "")
    }  # fmt: skip


def test_well_known_class_makes_a_directory_per_claim_and_deletes_it_through_the_trash(site: Site):
    objects = example("managed-nfs-storage")
    storage_class, claim = objects["StorageClass"], objects["PersistentVolumeClaim"]
    pod = objects["Pod"]
    site.node.declare(storage_class, claim)
    site.node.declare_ready(pod, within_s=BOUND_S)
    bound = site.node.call("GET", "/api/v1/namespaces/default/persistentvolumeclaims/test-claim")
    name = bound["spec"]["volumeName"]
    assert name == f"pvc-{bound['metadata']['uid']}"
    volume = site.node.call("GET", f"/api/v1/persistentvolumes/{name}")
    directory = f"default-test-claim-{name}"
    assert volume["spec"]["nfs"] == {"server": site.server.address, "path": f"/{directory}"}
    target = site.node.volume(pod, "kubernetes.io~nfs", name)
    site.node.machine.run(f"echo hello >{target}/SUCCESS; sync -f {target}")
    assert site.on_server(f"cat {directory}/SUCCESS") == "hello\n"
    assert site.on_server(f"stat -c %a {directory}").strip() == "770"

    site.node.delete_gone(pod, claim)
    site.node.wait_gone({"kind": "PersistentVolume", "metadata": {"name": name}})

    assert directory not in site.on_server("ls")
    (entry,) = site.node.call("GET", "/apis/node.volagent.dev/v1/trash")["items"]
    assert entry["claim"] == "default/test-claim"
    site.node.call("POST", "/apis/node.volagent.dev/v1/trash/restore", {"ids": [entry["id"]]})
    assert site.on_server(f"cat {directory}/SUCCESS") == "hello\n"


def wait_bound(node: VolagentNode, claim: Json) -> Json:
    """The volume of a claim, once it has one."""
    path = f"/api/v1/namespaces/default/persistentvolumeclaims/{claim['metadata']['name']}"
    end_s = time.monotonic() + BOUND_S * node.machine.patience
    while True:
        found: Json = node.call("GET", path)
        if found["status"]["phase"] == "Bound":
            volume: Json = node.call(
                "GET", f"/api/v1/persistentvolumes/{found['spec']['volumeName']}"
            )
            return volume
        if time.monotonic() > end_s:
            events = node.call("GET", "/api/v1/namespaces/default/events")["items"]
            raise AssertionError([each["message"] for each in events])
        time.sleep(0.2)


def test_class_that_names_its_export_needs_nothing_in_the_settings(site: Site):
    objects = example("nfs-class")
    storage_class, claim = objects["StorageClass"], objects["PersistentVolumeClaim"]
    storage_class["parameters"].update(server=site.server.address, path="/")
    claim["spec"]["resources"]["requests"]["storage"] = "16Mi"  # the lab's disk is small
    site.node.declare(storage_class, claim)
    volume = wait_bound(site.node, claim)
    assert volume["spec"]["nfs"] == {"server": site.server.address, "path": "/default/shared-data"}
    site.on_server("echo kept >default/shared-data/file")
    site.node.delete_gone(claim)
    site.node.wait_gone({"kind": "PersistentVolume", "metadata": volume["metadata"]})
    assert "shared-data" not in site.on_server("find . -path ./.volagent -prune -o -print")
    entries = site.node.call("GET", "/apis/node.volagent.dev/v1/trash")["items"]
    (entry,) = [each for each in entries if each["claim"] == "default/shared-data"]
    assert entry["id"].startswith("nfs-subdir.volagent.dev/")
    site.node.call("POST", "/apis/node.volagent.dev/v1/trash/restore", {"ids": [entry["id"]]})
    assert site.on_server("cat default/shared-data/file") == "kept\n"


def test_link_planted_in_the_export_leads_nowhere(site: Site):
    site.on_server("mkdir -p victim && echo precious >victim/file && ln -sfn victim team")
    storage_class = {
        "kind": "StorageClass", "apiVersion": "storage.k8s.io/v1",
        "metadata": {"name": "by-name"}, "provisioner": "fuseim.pri/ifs",
        "parameters": {"pathPattern": "team/${.PVC.name}"},
    }  # fmt: skip
    claim = {
        "kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "led-away"},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": "by-name",
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }  # fmt: skip
    site.node.declare(storage_class, claim)

    def told() -> bool:
        events = site.node.call("GET", "/api/v1/namespaces/default/events")["items"]
        return any(
            each["involvedObject"]["name"] == "led-away" and each["reason"] == "ProvisioningFailed"
            and "link" in each["message"]
            for each in events
        )  # fmt: skip

    end_s = time.monotonic() + BOUND_S * site.node.machine.patience
    while not told():
        assert time.monotonic() < end_s, site.node.call("GET", "/api/v1/namespaces/default/events")
        time.sleep(0.2)
    assert site.on_server("ls victim").split() == ["file"]
    site.node.delete_gone(claim)
