"""Disks from a VM with an LVM thin pool: moved, copied, grown, thrown away, kept by power cuts."""

import json
import time
from functools import partial

import pytest

from tests.cluster import storage_site
from tests.cluster.lab.cluster import Agent
from tests.cluster.lab.machine import Lab
from tests.cluster.storage_site import MOVE_S, Site, make_thin_site, storage_class, user

pytestmark = pytest.mark.only_on("uml", reason="lvm2 is not in the box")

CLASS = "disks"
claim = partial(storage_site.claim, of_class=CLASS)


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    disks = storage_class(CLASS, "iscsi.volagent.dev")
    xfs = storage_class("xfs-disks", "iscsi.volagent.dev", parameters={"fsType": "xfs"})
    made = make_thin_site(lab, disks, xfs)
    made.server.declare(SNAPSHOT_CLASS)
    return made


def declare_used(site: Site, name: str, node: Agent, *wanted: dict) -> tuple[dict, str]:
    """A claim's pod that has its disk, and where the disk is mounted."""
    pod = user(name, node)
    site.server.declare(*wanted)
    site.server.declare_ready(pod, within_s=MOVE_S)
    return pod, site.home(node, pod, name)


def settle(site: Site) -> int:
    """Wait until a new file system has written what it writes by and by; what is taken then."""
    taken: list[int] = []

    def is_settled() -> bool:
        taken.append(site.storage.taken_kib())
        time.sleep(1)
        return len(taken) > 3 and len(set(taken[-3:])) == 1

    site.until(is_settled, "nothing more is written", within_s=60)
    return taken[-1]


def test_claim_gets_a_thin_volume_that_follows_its_pod(site, figure):
    one, two = site.nodes
    wanted = claim("moving", size="62Mi")
    pod, home = declare_used(site, "moving", one, wanted)
    volume = site.volume_of("moving")
    name = volume["metadata"]["name"]
    assert volume["spec"]["capacity"]["storage"] == "64Mi"  # whole extents
    assert site.storage.thin_volumes() == [name]
    link = site.storage.machine.run(f"readlink {site.storage.file(name)}").out
    assert link == f"{site.storage.device(name)}\n"
    one.machine.run(f"echo from one >{home}/note; sync -f {home}")
    site.server.delete_gone(pod)
    pod = user("moving", two)
    ready = site.server.declare_ready(pod, within_s=MOVE_S)
    figure("pod declared to a thin disk that was another node's", ready.took_ms)
    assert two.machine.run(f"cat {site.home(two, pod, 'moving')}/note").out == "from one\n"
    site.clean(pod, wanted)


def test_what_a_thin_disk_has_acknowledged_outlives_a_power_cut_of_the_storage_node(site, figure):
    one, _ = site.nodes
    wanted, pod = claim("durable", volumeMode="Block"), user("durable", one)
    (container,) = pod["spec"]["containers"]
    del container["volumeMounts"]
    container["volumeDevices"] = [{"name": "data", "devicePath": "/dev/data"}]
    site.server.declare(wanted)
    site.server.declare_ready(pod, within_s=MOVE_S)
    one.machine.run(
        "head -c 4M /dev/urandom >/run/data\n"
        "dd if=/run/data of=/dev/sda bs=64k oflag=direct 2>/dev/null"  # and no flush
    )
    site.storage.machine.power_cut()
    one.machine.run(
        "(dd if=/run/data of=/dev/sda bs=64k oflag=direct seek=64 2>/dev/null; touch /run/written)"
        " >/dev/null &"
    )
    site.server.machine.partition()  # its own records are enough
    site.storage.machine.start()
    site.storage.mount_data()
    name = site.volume_of("durable")["metadata"]["name"]
    site.storage.machine.run(f"test ! -e {site.storage.device(name)}")  # nobody has activated it
    site.storage.start_without_server()
    began = time.monotonic()
    one.machine.run("until [ -e /run/written ]; do sleep 0.2; done", timeout_s=120)
    figure("storage node with thin disks started to I/O going on", (time.monotonic() - began) * 1e3)
    site.server.machine.heal()
    one.machine.run(
        "blockdev --flushbufs /dev/sda; cat /run/data /run/data | cmp -n $((8 << 20)) - /dev/sda"
    )
    site.clean(pod, wanted)
    site.until(lambda: site.storage.targets() == [], "nothing is shown")


@pytest.mark.parametrize(
    ("of_class", "own_mib"),
    [(CLASS, 12), pytest.param("xfs-disks", 80, id="xfs")],  # a new UUID rewrites its log of 64 MiB
)
def test_disk_in_use_is_snapshot_and_cloned_by_shared_blocks(site, of_class, own_mib):
    one, _ = site.nodes
    original = storage_site.claim("original", of_class, "320Mi")
    pod, home = declare_used(site, "original", one, original)
    one.machine.run(
        f"echo first >{home}/note; head -c 120M /dev/urandom >{home}/much; sync -f {home}"
    )
    before_kib = settle(site)
    site.server.declare(SNAPSHOT)
    path = "/apis/snapshot.storage.k8s.io/v1/namespaces/default/volumesnapshots/noted"
    site.until(
        lambda: site.server.call("GET", path).get("status", {}).get("readyToUse"), "the snapshot"
    )
    assert site.storage.taken_kib() - before_kib < 1024
    one.machine.run(f"echo second >{home}/note; sync -f {home}")
    for name, source, expected in (
        ("from-snapshot", {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot",
                           "name": "noted"}, "first\n"),
        ("from-claim", {"kind": "PersistentVolumeClaim", "name": "original"}, "second\n"),
    ):  # fmt: skip
        # On the same node: two file systems with one UUID could not be mounted there.
        copy = storage_site.claim(name, of_class, "320Mi", dataSource=source)
        reader, copied = declare_used(site, name, one, copy)
        assert one.machine.run(f"cat {copied}/note").out == expected
        assert one.machine.run(f"cmp {home}/much {copied}/much", timeout_s=120).code == 0
        assert site.storage.taken_kib() - before_kib < own_mib << 10
        one.machine.run(f"echo own >{copied}/note; sync -f {copied}")
        assert one.machine.run(f"cat {home}/note").out == "second\n"
        before_kib = settle(site)
        site.clean(reader, copy)
    site.clean(SNAPSHOT, pod, original)


def test_disk_grows_while_it_is_used(site):
    one, _ = site.nodes
    wanted = claim("growing")
    pod, home = declare_used(site, "growing", one, wanted)
    change = {"spec": {"resources": {"requests": {"storage": "128Mi"}}}}
    path = "/api/v1/namespaces/default/persistentvolumeclaims/growing"
    site.server.call("PATCH", path, change)
    one.machine.run(
        f"until [ $(df -m --output=size {home} | tail -1) -gt 100 ]; do sleep 0.2; done"
    )
    site.clean(pod, wanted)


def test_what_a_node_trims_goes_back_to_the_pool(site):
    one, _ = site.nodes
    wanted = claim("trimmed")
    pod, home = declare_used(site, "trimmed", one, wanted)
    one.machine.run(f"head -c 30M /dev/urandom >{home}/much; sync -f {home}")
    before_kib = site.storage.taken_kib()
    one.machine.run(f"rm {home}/much; sync -f {home}; fstrim {home}")
    assert before_kib - site.storage.taken_kib() > 20 * 1024
    site.clean(pod, wanted)


def test_deleted_disk_is_in_the_trash_and_can_be_had_back(site):
    one, two = site.nodes
    wanted = claim("dropped")
    pod, home = declare_used(site, "dropped", one, wanted)
    volume = site.volume_of("dropped")
    name = volume["metadata"]["name"]
    one.machine.run(f"echo precious >{home}/note; sync -f {home}")
    site.clean(pod, wanted)
    site.server.wait_gone({**volume, "kind": "PersistentVolume"}, within_s=MOVE_S)
    assert name in site.storage.volagent("trash list")
    assert name in site.storage.thin_volumes()

    site.storage.volagent(f"trash restore iscsi.volagent.dev/{name}")
    again = {**wanted, "spec": {**wanted["spec"], "volumeName": name}}
    pod, home = declare_used(site, "dropped", two, again)
    assert two.machine.run(f"cat {home}/note").out == "precious\n"
    site.clean(pod, wanted)
    site.server.delete({**volume, "kind": "PersistentVolume"})  # its data is kept


def test_purged_disk_has_no_thin_volume_any_more(site):
    one, _ = site.nodes
    wanted = claim("purged")
    pod, home = declare_used(site, "purged", one, wanted)
    one.machine.run(f"head -c 20M /dev/urandom >{home}/much; sync -f {home}")
    volume = site.volume_of("purged")
    name = volume["metadata"]["name"]
    taken_kib = site.storage.taken_kib()
    site.clean(pod, wanted)
    site.server.wait_gone({**volume, "kind": "PersistentVolume"}, within_s=MOVE_S)
    assert name in site.storage.thin_volumes()
    site.storage.volagent(f"trash empty --yes iscsi.volagent.dev/{name}")
    assert name not in site.storage.thin_volumes()
    assert name not in site.storage.volagent("trash list")
    assert taken_kib - site.storage.taken_kib() > 20 * 1024


def test_thin_volume_of_an_interrupted_create_is_found_and_not_made_twice(site):
    one, _ = site.nodes
    wanted = claim("interrupted")
    # The daemon dies as soon as LVM has the volume, and LVM goes on.
    site.storage.machine.run(KILLER.format(pid_file=site.storage.pid_file), timeout_s=30)
    site.server.declare(wanted)
    site.storage.machine.run("until [ -e /run/killed ]; do sleep 0.1; done", timeout_s=60)
    site.storage.machine.run("rm /run/killed")
    before = set(site.storage.thin_volumes())
    site.storage.start()
    pod, _ = declare_used(site, "interrupted", one)
    name = site.volume_of("interrupted")["metadata"]["name"]
    assert name in before
    assert set(site.storage.thin_volumes()) == before
    site.clean(pod, wanted)


def test_more_than_the_pool_has_is_refused_and_what_there_is_is_told(site):
    wanted = claim("greedy", size="10Gi")
    site.server.declare(wanted)
    site.until(
        lambda: any("over 1 times its size" in each for each in site.server.events(wanted)),
        "the claim is told",
    )
    site.clean(wanted)
    node = site.server.call("GET", "/api/v1/nodes/storage01")
    room = json.loads(node["metadata"]["annotations"]["volagent.dev/storage-room"])
    assert 5 << 30 < room["total"] < 6 << 30
    assert room["data_percent"] < 50
    assert room["directories_total"] < 128 << 20


def test_pool_that_does_not_zero_makes_no_disk_until_it_does(site):
    one, _ = site.nodes
    wanted = claim("blank")
    site.storage.machine.run("lvchange -q --zero n disks/thin")
    site.server.declare(wanted)
    site.until(
        lambda: any("does not zero" in each for each in site.server.events(wanted)),
        "the claim is told",
    )
    site.storage.machine.run("lvchange -q --zero y disks/thin")
    pod, _ = declare_used(site, "blank", one)
    site.clean(pod, wanted)


KILLER = """
(
  known=$(ls /dev/disks 2>/dev/null)
  while [ "$(ls /dev/disks 2>/dev/null)" = "$known" ]; do :; done
  kill -9 $(cat {pid_file})
  touch /run/killed
) >/dev/null 2>&1 &
"""
SNAPSHOT_CLASS = {
    "apiVersion": "snapshot.storage.k8s.io/v1",
    "kind": "VolumeSnapshotClass",
    "metadata": {"name": "copies"},
    "driver": "iscsi.volagent.dev",
    "deletionPolicy": "Delete",
}
SNAPSHOT = {
    "apiVersion": "snapshot.storage.k8s.io/v1",
    "kind": "VolumeSnapshot",
    "metadata": {"name": "noted", "namespace": "default"},
    "spec": {
        "volumeSnapshotClassName": "copies",
        "source": {"persistentVolumeClaimName": "original"},
    },
}
