"""Exports of a real NBD server as disks of two machines with a daemon each."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.cluster import manifests
from tests.cluster.lab.machine import Hardware, Lab
from tests.cluster.lab.nbd_server import PORT, NbdServer
from tests.cluster.lab.node import Json, VolagentNode
from tests.cluster.lab.partition_table import write_table

KIND = "kubernetes.io~csi"
NODE = Hardware(memory_mib=640, disks_mib=(256,))
HEAL_WITHIN_S = 120.0


@dataclass(frozen=True)
class Site:
    server: NbdServer
    one: VolagentNode
    two: VolagentNode

    def source(self, export: str, **more) -> Json:
        """The source of a volume on an export."""
        return {
            "csi": {
                "driver": "nbd.volagent.dev",
                "volumeHandle": export,
                "fsType": "ext4",
                "volumeAttributes": {
                    "server": self.server.address, "port": str(PORT), "export": export,
                },
                **more,
            }
        }  # fmt: skip


@pytest.fixture(scope="module")
def whole_site(lab: Lab) -> Site:
    storage = lab.add_machine("storage", Hardware(disks_mib=(1024,)))
    nodes = [VolagentNode(lab.add_machine(name, NODE)) for name in ("node01", "node02")]
    lab.start_all()
    server = NbdServer(storage, storage.disks[0])
    with ThreadPoolExecutor() as threads:
        list(threads.map(VolagentNode.start, nodes))
    return Site(server, *nodes)


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """The site, which must be as clean after each test as it was before."""
    yield whole_site
    for node in (whole_site.one, whole_site.two):
        pods = node.call("GET", "/api/v1/namespaces/default/pods")["items"]
        node.delete_gone(*({**pod, "kind": "Pod"} for pod in pods), within_s=HEAL_WITHIN_S)
        assert node.mounts() == []
        assert node.leftovers() == []
        assert devices(node) == []
        assert keepers(node) == []


def devices(node: VolagentNode) -> list[str]:
    """The connected NBD devices of a machine, as the kernel tells: `nbd0 <backend>`."""
    return node.machine.run(
        "for d in /sys/block/nbd*; do"
        " [ -e $d/pid ] && echo $(basename $d) $(cat $d/backend); done; true"
    ).out.splitlines()


def keepers(node: VolagentNode) -> list[str]:
    """Processes that keep devices connected."""
    return node.machine.run("pgrep -f child_calls.py.connect_nbd || true").out.splitlines()


def await_explained(node: VolagentNode, pod: Json, words: str, within_s: float = 60.0) -> str:
    """The explanation of a pod as soon as it holds these words."""
    until = time.monotonic() + within_s * node.machine.patience
    while words not in (explained := str(node.explain(pod))):
        assert time.monotonic() < until, explained
        time.sleep(0.2)
    return explained


def use_claim(name: str, site: Site, *, capacity: str = "64Mi", **more) -> tuple[Json, Json, Json]:
    """A volume on the export of that name, a claim and a pod that uses it."""
    volume, claim = manifests.bound_pair(
        name, site.source(name, **more), access_mode="ReadWriteOnce", capacity=capacity
    )
    return volume, claim, manifests.pod(name, [manifests.claim_volume("data", name)])


def use_block_claim(name: str, site: Site) -> tuple[Json, Json, Json]:
    """The same for the raw device."""
    volume, claim, pod = use_claim(name, site)
    volume["spec"]["volumeMode"] = claim["spec"]["volumeMode"] = "Block"
    container = pod["spec"]["containers"][0]
    del container["volumeMounts"]
    container["volumeDevices"] = [{"name": "data", "devicePath": "/dev/data"}]
    return volume, claim, pod


def test_blank_export_is_formatted_mounted_and_disconnected(
    site: Site, figure: Callable[[str, float], None]
):
    site.server.serve("first")
    volume, claim, pod = use_claim("first", site)
    site.one.declare(volume, claim)
    figure("pod with a blank NBD disk ready", site.one.declare_ready(pod).took_ms)
    directory = site.one.volume(pod, KIND, "pv-first/mount")
    site.one.machine.run(f"echo hello >{directory}/note; sync -f {directory}")
    (device,) = devices(site.one)
    assert device.endswith(f" {site.server.address}:{PORT}/first")
    assert len(keepers(site.one)) == 1
    figure("pod with an NBD disk gone", site.one.delete_gone(pod).took_ms)
    assert devices(site.one) == []
    assert site.server.clients() == []
    figure("pod with a used NBD disk ready", site.one.declare_ready(pod).took_ms)
    directory = site.one.volume(pod, KIND, "pv-first/mount")
    assert site.one.machine.run(f"cat {directory}/note").out == "hello\n"


def test_data_follows_the_pod_from_one_node_to_the_other(site: Site):
    site.server.serve("moving")
    volume, claim, pod = use_claim("moving", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "pv-moving/mount")
    site.one.machine.run(f"echo from one >{directory}/note")
    site.one.delete_gone(pod)
    site.two.declare(volume, claim)
    site.two.declare_ready(pod)
    directory = site.two.volume(pod, KIND, "pv-moving/mount")
    assert site.two.machine.run(f"cat {directory}/note").out == "from one\n"


def test_two_exports_of_one_server_are_two_devices(site: Site):
    site.server.serve("red", "blue")
    pods = {}
    for name in ("red", "blue"):
        volume, claim, pods[name] = use_claim(name, site)
        site.one.declare(volume, claim)
        site.one.declare_ready(pods[name])
        directory = site.one.volume(pods[name], KIND, f"pv-{name}/mount")
        site.one.machine.run(f"echo {name} >{directory}/note")
    assert sorted(each.rpartition("/")[2] for each in devices(site.one)) == ["blue", "red"]
    for name in ("blue", "red"):
        site.one.delete_gone(pods[name])
        site.one.declare_ready(pods[name])
        directory = site.one.volume(pods[name], KIND, f"pv-{name}/mount")
        assert site.one.machine.run(f"cat {directory}/note").out == f"{name}\n"


def test_raw_device_is_the_export(site: Site):
    site.server.serve("raw")
    volume, claim, pod = use_block_claim("raw", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    link = f"{site.one.pod_directory(pod)}/volumeDevices/{KIND}/pv-raw"
    site.one.machine.run(f"dd if=/dev/urandom of={link} bs=1M count=64 conv=fsync status=none")
    seen = site.one.machine.run(f"sha256sum <{link}").out
    site.one.delete_gone(pod)
    assert site.server.checksum("raw") == seen


def test_raw_device_that_a_process_has_open_is_not_disconnected(site: Site):
    site.server.serve("held")
    volume, claim, pod = use_block_claim("held", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    link = f"{site.one.pod_directory(pod)}/volumeDevices/{KIND}/pv-held"
    site.one.machine.run(f"sleep 1000 <{link} >/dev/null 2>&1 & echo $! >/run/holder")
    site.one.delete(pod)
    log = site.one.machine.installation.show_log
    site.one.machine.run(
        f"until {log} | grep 'held by pid' >/dev/null; do sleep 0.1; done", timeout_s=30
    )
    assert len(devices(site.one)) == 1
    site.one.machine.run("kill $(cat /run/holder)")
    site.one.wait_gone(pod, within_s=60)


def test_device_that_is_cut_off_takes_nothing_more_although_it_is_mounted(site: Site):
    site.server.serve("cut")
    volume, claim, pod = use_claim("cut", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "pv-cut/mount")
    (device,) = devices(site.one)
    name, backend = device.split()
    cut = {"path": f"/dev/{name}", "backend": backend, "directory": "/run/volagent/nbd"}
    program = f"from volagent.host import nbd_calls\nnbd_calls.cut({cut!r})\n"
    site.one.machine.put_file("/run/cut.py", program)
    site.one.machine.run(f"{site.one.machine.installation.python} /run/cut.py")
    written = site.one.machine.run(
        f"echo never >{directory}/note && sync -f {directory}", check=False
    )
    assert written.code != 0
    assert keepers(site.one) == []
    assert site.server.clients() == []


def test_partition_of_an_export_is_a_volume_and_the_rest_stays(site: Site):
    site.server.serve("divided")
    write_table(site.server.machine, "/exports/divided", 8, 40)
    before = site.server.machine.run("head -c 9M /exports/divided | sha256sum").out
    volume, claim, pod = use_claim("divided", site, capacity="40Mi")
    volume["spec"]["csi"]["volumeAttributes"]["partition"] = "2"
    site.one.declare(volume, claim)
    for content in ("", "mine\n"):
        site.one.declare_ready(pod)
        directory = site.one.volume(pod, KIND, "pv-divided/mount")
        assert site.one.machine.run(f"cat {directory}/note || true").out == content
        assert site.one.machine.run(f"findmnt -no SOURCE {directory}").out == "/dev/nbd0p2\n"
        site.one.machine.run(f"echo mine >{directory}/note; sync -f {directory}")
        site.one.delete_gone(pod)
        assert devices(site.one) == []
    assert site.server.machine.run("head -c 9M /exports/divided | sha256sum").out == before


def test_read_only_volume_cannot_be_written(site: Site):
    site.server.serve("fixed")
    volume, claim, pod = use_claim("fixed", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "pv-fixed/mount")
    site.one.machine.run(f"echo fixed >{directory}/note")
    site.one.delete_gone(pod)
    site.server.serve("fixed", read_only=True)
    volume, claim, pod = use_claim("fixed", site, readOnly=True)
    site.two.declare(volume, claim)
    site.two.declare_ready(pod)
    directory = site.two.volume(pod, KIND, "pv-fixed/mount")
    assert site.two.machine.run(f"cat {directory}/note").out == "fixed\n"
    said = site.two.machine.run(f"touch {directory}/x", check=False)
    assert (said.code, "Read-only file system" in said.err) == (1, True)
    assert site.two.machine.run("cat /sys/block/nbd0/ro").out == "1\n"


def test_writes_wait_for_a_killed_server_and_go_on(
    site: Site, figure: Callable[[str, float], None]
):
    site.server.serve("patient")
    volume, claim, pod = use_claim("patient", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "pv-patient/mount")
    site.server.kill()
    site.one.machine.run(
        f"(dd if=/dev/zero of={directory}/large bs=1M count=16 conv=fsync && echo written"
        f" || echo failed) >/run/writer 2>/dev/null </dev/null &"
    )
    other = manifests.pod("other", [manifests.scratch("memory", "Memory")])
    figure("pod ready beside a dead NBD server", site.one.declare_ready(other).took_ms)
    site.one.delete_gone(other)
    site.one.machine.run("sleep 3")
    assert site.one.machine.run("cat /run/writer").out == ""
    site.server.serve("patient")
    healed = site.one.machine.run(
        "until [ -s /run/writer ]; do sleep 0.1; done", timeout_s=HEAL_WITHIN_S
    )
    figure("write done after an NBD server came back", healed.took_s * 1000)
    assert site.one.machine.run("cat /run/writer").out == "written\n"
    assert site.one.is_ready(pod)
    site.one.delete_gone(pod)
    said = site.server.machine.run("e2fsck -fn /exports/patient", check=False)
    assert said.code == 0, said.out


def test_device_heals_when_the_daemon_is_dead(site: Site):
    site.server.serve("alone")
    volume, claim, pod = use_claim("alone", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "pv-alone/mount")
    site.one.kill()
    site.server.serve("alone")
    site.one.machine.run(f"echo healed >{directory}/note; sync -f {directory}", timeout_s=60)
    site.one.start()
    site.one.wait_ready(pod)


def test_device_is_found_again_and_not_connected_twice_after_a_kill(site: Site):
    site.server.serve("left")
    volume, claim, pod = use_claim("left", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    before, mounts = devices(site.one), site.one.mounts()
    site.one.kill()
    site.one.machine.run("rm -rf /run/volagent/records")
    site.one.start()
    site.one.wait_ready(pod)
    assert (devices(site.one), site.one.mounts()) == (before, mounts)
    assert len(site.server.clients()) == 1


def test_device_whose_keeper_was_killed_gets_another(site: Site):
    site.server.serve("orphan")
    volume, claim, pod = use_claim("orphan", site)
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "pv-orphan/mount")
    site.one.kill()
    site.one.machine.run("kill -KILL $(pgrep -f child_calls.py.connect_nbd); rm -r /run/volagent")
    site.one.start()
    site.one.wait_ready(pod)
    assert len(keepers(site.one)) == 1
    site.server.serve("orphan")
    site.one.machine.run(f"echo healed >{directory}/note; sync -f {directory}", timeout_s=60)


def test_device_that_no_volume_has_is_given_back(site: Site):
    site.server.serve("stray")
    asked = {
        "server": site.server.address, "port": PORT, "export": "stray", "tls": None,
        "wants_tls": False, "only_find": False, "read_only": False,
        "directory": "/run/volagent/nbd",
    }  # fmt: skip
    program = f"from volagent.host import nbd_calls\nprint(nbd_calls.connect({asked!r}))\n"
    site.one.machine.put_file("/run/connect.py", program)
    site.one.machine.run("modprobe nbd")
    site.one.machine.run(f"{site.one.machine.installation.python} /run/connect.py")
    assert len(devices(site.one)) == 1
    site.one.machine.run("while ls /sys/block/nbd*/pid >/dev/null 2>&1; do sleep 0.2; done")
    log = site.one.machine.installation.show_log
    site.one.machine.run(f"{log} | grep 'no volume has was given back' | grep /stray")


def test_unknown_export_and_a_dead_server_are_told_with_a_remedy(site: Site):
    site.server.serve("known")
    volume, claim, pod = use_claim("unknown", site)
    site.one.declare(volume, claim, pod)
    await_explained(site.one, pod, "has no export 'unknown'")
    site.one.delete_gone(pod)
    site.server.kill()
    volume, claim, pod = use_claim("known", site)
    site.one.declare(volume, claim, pod)
    explained = await_explained(site.one, pod, "ECONNREFUSED")
    assert "start the NBD server there" in explained


def test_file_system_grows_in_use_when_the_export_has_grown(
    site: Site, figure: Callable[[str, float], None]
):
    site.server.serve("growing")
    volume, claim, pod = use_claim("growing", site)
    volume["spec"]["capacity"]["storage"] = "64Mi"
    site.one.declare(volume, claim)
    site.one.declare_ready(pod)
    directory = site.one.volume(pod, KIND, "pv-growing/mount")
    site.server.grow("growing", 192)
    site.one.call(
        "PATCH", "/api/v1/persistentvolumes/pv-growing",
        {"spec": {"capacity": {"storage": "192Mi"}}},
    )  # fmt: skip
    grown = site.one.machine.run(
        f"until [ $(df --output=size -BM {directory} | tail -n1 | tr -d M) -gt 160 ];"
        " do sleep 0.2; done",
        timeout_s=60,
    )
    figure("file system grown with its NBD export", grown.took_s * 1000)
