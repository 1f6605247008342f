"""NBD exports that follow their pods from VM to VM: one server, two agents, a real nbd-server."""

from collections.abc import Iterator

import pytest

from tests.cluster import manifests
from tests.cluster.lab.cluster import Cluster, on
from tests.cluster.lab.nbd_server import PORT, NbdServer

KIND = "kubernetes.io~csi"


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
    assert server.count_clients() == 1
    site.server.replace_ready(pod, following, within_s=60)
    home = two.volume(following, KIND, "pv-moving/mount")
    assert two.machine.run(f"cat {home}/note").out == "kept\n"
    assert server.count_clients() == 1
    assert one.mounts() == []
