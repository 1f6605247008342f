"""One server, two agents, an NFS server: volumes that are written on one VM and read on another."""

from collections.abc import Iterator

import pytest

from tests.cluster import manifests
from tests.cluster.lab.cluster import Cluster, on
from tests.cluster.lab.nfs_server import NfsServer
from tests.cluster.lab.node import Json

KIND = "kubernetes.io~nfs"


@pytest.fixture(scope="module")
def export(cluster: Cluster) -> NfsServer:
    server = NfsServer(cluster.storage, cluster.storage.disks[1])
    server.serve()
    return server


@pytest.fixture
def site(cluster: Cluster, export: NfsServer) -> Iterator[Cluster]:
    yield cluster
    cluster.clean()


def declare_volume(site: Cluster, export: NfsServer, name: str) -> Json:
    """A volume on a fresh directory of the export, its claim, and a pod that uses it."""
    export.make_directory(name)
    source = {"nfs": {"server": export.address, "path": export.path(name)}}
    site.server.declare(*manifests.bound_pair(name, source, mount_options=("vers=4.2",)))
    return manifests.pod(name, [manifests.claim_volume("data", name)])


def test_pod_finds_on_the_second_node_what_it_wrote_on_the_first(site, export):
    one, two = site.nodes
    pod = declare_volume(site, export, "moving")
    site.server.declare_ready(on(pod, one))
    home = one.volume(pod, KIND, "pv-moving")
    one.machine.run(f"echo from one >{home}/note")
    site.server.delete_gone(pod)
    site.server.declare_ready(on(pod, two))
    home = two.volume(pod, KIND, "pv-moving")
    assert two.machine.run(f"cat {home}/note").out == "from one\n"
    assert one.mounts() == []


def test_both_nodes_write_and_lock_one_volume(site, export):
    one, two = site.nodes
    pod = declare_volume(site, export, "shared")
    first, second = ({**pod, "metadata": {**pod["metadata"], "name": n}} for n in ("a", "b"))
    site.server.declare_ready(on(first, one))
    site.server.declare_ready(on(second, two))
    here, there = one.volume(first, KIND, "pv-shared"), two.volume(second, KIND, "pv-shared")
    one.machine.run(f"flock --close {here}/lock sleep 1000 >/dev/null 2>&1 & echo $! >/run/holder")
    one.machine.run(f"until ! flock -n {here}/lock true; do sleep 0.1; done")
    assert two.machine.run(f"flock -n {there}/lock true", check=False).code == 1
    one.machine.run("kill $(cat /run/holder)")
    two.machine.run(f"flock -w 20 {there}/lock true; echo two >{there}/note; sync -f {there}")
    assert one.machine.run(f"cat {here}/note").out == "two\n"


def test_both_nodes_read_what_nobody_may_write(site, export):
    one, two = site.nodes
    export.make_directory("library")
    site.storage.run("echo read me >/export/library/book")
    source = {"nfs": {"server": export.address, "path": export.path("library")}}
    options = ("vers=4.2",)
    site.server.declare(
        *manifests.bound_pair("library", source, mount_options=options, access_mode="ReadOnlyMany")
    )
    pod = manifests.pod("a", [manifests.claim_volume("data", "library", readOnly=True)])
    second = {**pod, "metadata": {**pod["metadata"], "name": "b"}}
    for node, reader in ((one, pod), (two, second)):
        site.server.declare_ready(on(reader, node))
        home = node.volume(reader, KIND, "pv-library")
        assert node.machine.run(f"cat {home}/book").out == "read me\n"
        refused = node.machine.run(f"touch {home}/mine", check=False)
        assert (refused.code, "Read-only file system" in refused.err) == (1, True)


def test_class_makes_a_directory_that_follows_the_pod(site, export):
    one, two = site.nodes
    parameters = {"server": export.address, "path": "/", "onDelete": "delete"}
    claim = manifests.bound_pair("dynamic", {}, capacity="16Mi")[1]
    claim["spec"] = {**claim["spec"], "storageClassName": "nfs", "volumeName": ""}
    site.server.declare(
        {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "nfs"},
         "provisioner": "nfs-subdir.volagent.dev", "parameters": parameters},
        claim,
    )  # fmt: skip
    pod = manifests.pod("dynamic", [manifests.claim_volume("data", "dynamic")])
    site.server.declare_ready(on(pod, one))
    name = site.server.call("GET", "/api/v1/persistentvolumes")["items"][0]["metadata"]["name"]
    home = one.volume(pod, KIND, name)
    one.machine.run(f"echo kept >{home}/note")
    site.server.delete_gone(pod)
    site.server.declare_ready(on(pod, two))
    assert two.machine.run(f"cat {two.volume(pod, KIND, name)}/note").out == "kept\n"
