"""Volumes that are a node's own: the pod goes where its volume is, and again after its deletion."""

from collections.abc import Iterator

import pytest

from tests.cluster import manifests
from tests.cluster.lab.cluster import Agent, Cluster
from tests.cluster.lab.daemon import ApiFailed
from tests.cluster.lab.node import Json

KIND = "kubernetes.io~local-volume"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"


@pytest.fixture
def site(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    cluster.clean()


def make_class(site: Cluster) -> None:
    """`local`: volumes are bound when a pod comes that uses them."""
    site.server.declare(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "local"},
            "provisioner": "kubernetes.io/no-provisioner",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
    )


def offer(site: Cluster, name: str, node: Agent) -> None:
    """A directory of a node, as a volume of the class."""
    path = f"{node.data}/disks/{name}"
    node.machine.run(f"mkdir -p {path}")
    volume, _ = manifests.bound_pair(
        name, {"local": {"path": path}}, access_mode="ReadWriteOnce", capacity="16Mi"
    )
    del volume["spec"]["claimRef"]
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}
    site.server.declare(
        {
            **volume,
            "spec": {
                **volume["spec"],
                "storageClassName": "local",
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            },
        }
    )


def ask(site: Cluster, name: str) -> Json:
    """A claim of the class, and a pod that uses it and names no node."""
    _, claim = manifests.bound_pair(name, {}, access_mode="ReadWriteOnce", capacity="16Mi")
    claim["spec"] = {**claim["spec"], "storageClassName": "local", "volumeName": ""}
    site.server.declare(claim)
    return manifests.pod(name, [manifests.claim_volume("data", name)])


def test_pod_lands_where_its_volume_is_and_again_after_its_deletion(site):
    _, two = site.nodes
    make_class(site)
    offer(site, "only", two)
    pod = ask(site, "steady")
    with pytest.raises(ApiFailed):
        site.server.wait_ready(pod, within_s=1.0)  # there is none yet
    assert site.server.call("GET", f"{CLAIMS}/steady")["status"]["phase"] == "Pending"
    for number in range(3):
        site.server.declare_ready(pod)
        placed = site.server.call("GET", "/api/v1/namespaces/default/pods/steady")
        assert placed["spec"]["nodeName"] == two.name
        home = two.volume(pod, KIND, "pv-only")
        two.machine.run(f"echo {number} >>{home}/visits")
        site.server.delete_gone(pod)
    assert two.machine.run(f"cat {two.data}/disks/only/visits").out == "0\n1\n2\n"


def test_volumes_of_one_pod_are_chosen_together(site):
    """Each alone would fit on either node; both are on one only."""
    one, two = site.nodes
    make_class(site)
    offer(site, "alone", one)
    offer(site, "left", two)
    offer(site, "right", two)
    ask(site, "a")
    ask(site, "b")
    pod = manifests.pod(
        "both", [manifests.claim_volume("a", "a"), manifests.claim_volume("b", "b")]
    )
    site.server.declare_ready(pod)
    bound = {each["spec"]["volumeName"] for each in site.server.call("GET", CLAIMS)["items"]}
    assert bound == {"pv-left", "pv-right"}
    assert one.mounts() == []
