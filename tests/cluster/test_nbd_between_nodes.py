"""NBD exports that follow their pods from VM to VM: one server, two agents, a real nbd-server."""

import time
from collections.abc import Iterator

import pytest

from tests.cluster import manifests
from tests.cluster.lab.cluster import Cluster, on
from tests.cluster.lab.nbd_server import PORT, NbdServer

KIND = "kubernetes.io~csi"
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> NbdServer:
    return NbdServer(cluster.storage, cluster.storage.disks[0])


@pytest.fixture
def site(cluster: Cluster, server: NbdServer) -> Iterator[Cluster]:
    yield cluster
    cluster.clean()


def test_export_follows_its_pod_and_is_never_held_twice(site, server):
    one, two = site.nodes
    server.serve("moving", size_mib=32)
    handle = {"server": server.address, "port": str(PORT), "export": "moving"}
    body = {
        "csi": {
            "driver": "nbd.volagent.dev", "volumeHandle": "moving", "fsType": "ext4",
            "volumeAttributes": handle,
        }
    }  # fmt: skip
    site.server.declare(*manifests.bound_pair("moving", body, access_mode="ReadWriteOnce"))
    pod = manifests.pod("first", [manifests.claim_volume("data", "moving")])
    site.server.declare_ready(on(pod, one), within_s=60)
    one.machine.run(f"echo kept >{one.volume(pod, KIND, 'pv-moving/mount')}/note")
    following = {**pod, "metadata": {**pod["metadata"], "name": "second"}}
    site.server.declare(on(following, two))
    assert set(server.clients()) == {one.machine.address}
    site.server.replace_ready(pod, following, within_s=60)
    home = two.volume(following, KIND, "pv-moving/mount")
    assert two.machine.run(f"cat {home}/note").out == "kept\n"
    assert set(server.clients()) == {two.machine.address}
    assert one.mounts() == []


def test_export_of_a_silent_node_stays_its_own_until_somebody_says_that_it_is_off(site, server):
    """Nothing can keep a node out of an export, so there is no proof."""
    one, two = site.nodes
    server.serve("held", size_mib=32)
    handle = {"server": server.address, "port": str(PORT), "export": "held"}
    body = {
        "csi": {
            "driver": "nbd.volagent.dev", "volumeHandle": "held", "fsType": "ext4",
            "volumeAttributes": handle,
        }
    }  # fmt: skip
    site.server.declare(*manifests.bound_pair("held", body, access_mode="ReadWriteOnce"))
    pod = manifests.pod("held", [manifests.claim_volume("data", "held")])
    site.server.declare_ready(on(pod, one), within_s=60)
    home = one.volume(pod, KIND, "pv-held/mount")
    one.machine.run(f"echo precious >{home}/note; sync -f {home}")
    one.machine.power_cut()
    site.server.call("DELETE", "/api/v1/namespaces/default/pods/held")
    second = {**pod, "metadata": {**pod["metadata"], "name": "second"}}
    site.server.declare(on(second, two))
    time.sleep(30)  # beyond the lease: a timer is no proof
    (attachment,) = site.server.call("GET", ATTACHMENTS)["items"]
    assert attachment["spec"]["nodeName"] == "node01"
    assert two.mounts() == []
    said = site.server.volagent("explain pod/second")
    assert "the storage of nbd.volagent.dev cannot keep a node out" in " ".join(said.split())

    site.server.volagent("node confirm-off node01 --yes")
    site.server.wait_ready(second, within_s=60)
    assert two.machine.run(f"cat {two.volume(second, KIND, 'pv-held/mount')}/note").out == (
        "precious\n"
    )
    one.machine.start()
    one.start()
    node = "/api/v1/nodes/node01"
    end_s = time.monotonic() + 60 * site.server.machine.patience
    while site.server.call("GET", node)["spec"].get("taints"):
        assert time.monotonic() < end_s, site.server.call("GET", node)
        time.sleep(0.2)
