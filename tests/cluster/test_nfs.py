"""NFS volumes between real clients and a real server: two machines with a daemon each."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.cluster import manifests
from tests.cluster.lab.machine import Hardware, Lab
from tests.cluster.lab.nfs_server import NfsServer
from tests.cluster.lab.node import Json, VolagentNode

KIND = "kubernetes.io~nfs"
NODE = Hardware(memory_mib=640, disks_mib=(256,))


@dataclass(frozen=True)
class Site:
    server: NfsServer
    one: VolagentNode
    two: VolagentNode


@pytest.fixture(scope="module")
def whole_site(lab: Lab) -> Site:
    export = lab.add_machine("nfs", Hardware(disks_mib=(64,)))
    nodes = [VolagentNode(lab.add_machine(name, NODE)) for name in ("one", "two")]
    lab.start_all()
    server = NfsServer(export, export.disks[0])
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda start: start(), [server.serve, *(node.start for node in nodes)]))
    return Site(server, *nodes)


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """The site, which must be as clean after each test as it was before."""
    yield whole_site
    for node in (whole_site.one, whole_site.two):
        pods = node.call("GET", "/api/v1/namespaces/default/pods")["items"]
        node.delete_gone(*({**pod, "kind": "Pod"} for pod in pods))
        assert node.mounts() == []
        assert node.leftovers() == []


def use_claim(name: str, site: Site, *, version: str = "4.2", **spec) -> tuple[Json, Json, Json]:
    """A volume on a fresh directory of the export, a claim and a pod (`<name>`) that uses it."""
    site.server.make_directory(name)
    source = {
        "nfs": {
            "server": site.server.address,
            "path": site.server.path(name, version=version),
        }
    }
    options = (f"vers={version}", *(["nolock"] if version == "3" else []))
    volume, claim = manifests.bound_pair(name, source, mount_options=options)
    return volume, claim, manifests.pod(name, [manifests.claim_volume("data", name)], **spec)


def test_inline_volume_shows_the_export_at_the_kubelets_path(site: Site):
    site.server.make_directory("inline")
    path = site.server.path("inline")
    pod = manifests.pod("inline", [manifests.nfs("data", site.server.address, path)])
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "data")
    site.one.machine.run(f"echo hello >{directory}/note; sync -f {directory}")
    assert site.server.read("inline/note") == "hello\n"
    (mount,) = site.one.mounts()
    assert (mount.point, mount.fs_type) == (directory, "nfs4")


@pytest.mark.parametrize("version", ["3", "4.1", "4.2"])
def test_claim_is_mounted_with_the_volumes_options_for_every_version(site: Site, version: str):
    name = f"v{version.replace('.', '-')}"
    volume, claim, pod = use_claim(name, site, version=version)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    (mount,) = site.one.mounts()
    assert f"vers={version}" in mount.options
    assert mount.point == site.one.volume(pod, KIND, f"pv-{name}")
    site.one.machine.run(f"echo {version} >{mount.point}/note; sync -f {mount.point}")
    assert site.server.read(f"{name}/note") == f"{version}\n"


def test_volume_cannot_be_written_when_declared_read_only(site: Site):
    site.server.make_directory("fixed")
    path = site.server.path("fixed")
    volume = manifests.nfs("data", site.server.address, path, readOnly=True)
    pod = manifests.pod("fixed", [volume])
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "data")
    said = site.one.machine.run(f"touch {directory}/x", check=False)
    assert (said.code, "Read-only file system" in said.err) == (1, True)


def test_data_of_one_node_is_there_on_another_when_the_pod_moves(site: Site):
    volume, claim, pod = use_claim("moving", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "pv-moving")
    site.one.machine.run(f"echo from one >{directory}/note; sync -f {directory}")
    site.one.delete_gone(pod)
    site.two.declare(volume, claim)
    site.two.declare_ready(pod)
    directory = site.two.volume(pod, KIND, "pv-moving")
    assert site.two.machine.run(f"cat {directory}/note").out == "from one\n"


def test_two_nodes_share_a_volume_at_the_same_time(site: Site):
    volume, claim, pod = use_claim("shared", site)
    nodes = (site.one, site.two)
    for node in nodes:
        node.declare(volume, claim)
        node.declare_ready(pod)
    one, two = (node.volume(pod, KIND, "pv-shared") for node in nodes)
    # A lock that one machine holds is refused to the other: both are really on one server.
    site.one.machine.run(
        f"flock --close {one}/lock sleep 1000 >/dev/null 2>&1 & echo $! >/run/holder"
    )
    site.one.machine.run(f"until ! flock -n {one}/lock true; do sleep 0.1; done")
    assert site.two.machine.run(f"flock -n {two}/lock true", check=False).code == 1
    site.one.machine.run("kill $(cat /run/holder)")
    site.two.machine.run(f"flock -w 20 {two}/lock true")


def test_sub_path_leads_into_the_volume(site: Site):
    volume, claim, pod = use_claim("inner", site)
    pod["spec"]["containers"][0]["volumeMounts"] = [
        {"name": "data", "mountPath": "/inner", "subPath": "a/b"}
    ]
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    inner = f"{site.one.pod_directory(pod)}/volume-subpaths/pv-inner/main/0"
    site.one.machine.run(f"echo deep >{inner}/note; sync -f {inner}")
    assert site.server.read("inner/a/b/note") == "deep\n"


def test_fs_group_changes_nothing_on_the_server(site: Site):
    """As with a kubelet: who owns an export is its server's affair; the group is handed over."""
    volume, claim, pod = use_claim("owned", site, securityContext={"fsGroup": 2000})
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "pv-owned")
    assert site.one.machine.run(f"stat -c '%g %a' {directory}").out == "0 777\n"


def test_deletion_leaves_the_data_and_nothing_else(site: Site):
    volume, claim, pod = use_claim("kept", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "pv-kept")
    site.one.machine.run(f"echo precious >{directory}/note")
    site.one.delete_gone(pod)
    assert site.one.mounts() == []
    assert site.one.leftovers() == []
    assert site.server.read("kept/note") == "precious\n"
