"""Shared directories and copies from a VM whose disk has a file system that shares blocks (xfs)."""

from functools import partial

import pytest

from tests.cluster import storage_site
from tests.cluster.lab.machine import Lab
from tests.cluster.storage_site import MOVE_S, Site, make_storage_site, storage_class, user

CLASS = "shared"
KIND = "kubernetes.io~csi"
# Version 3: the machines' own root is an overlay, which cannot be the root of version 4.
OPTIONS = ["vers=3", "nolock"]
claim = partial(storage_site.claim, of_class=CLASS, accessModes=["ReadWriteMany"])


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    shared = storage_class(CLASS, "nfs.volagent.dev", mountOptions=OPTIONS)
    made = make_storage_site(lab, shared, fs_type="xfs", pool_mib=2048)
    made.storage.serve_nfs()
    return made


def test_directory_is_shared_by_those_who_have_it_and_closed_to_others(site, figure):
    one, two = site.nodes
    wanted, first = claim("both"), user("first", one, "both")
    site.server.declare(wanted)
    ready = site.server.declare_ready(first, within_s=MOVE_S)
    figure("claim and pod declared to a mounted directory of a storage node", ready.took_ms)
    attributes = site.volume_of("both")["spec"]["csi"]["volumeAttributes"]
    by_hand = (
        f"mkdir -p /mnt/x; mount -t nfs -o vers=3,nolock,retry=0"
        f" {attributes['server']}:{attributes['path']} /mnt/x"
    )
    assert two.machine.run(by_hand, check=False).code != 0
    assert site.let_in(attributes["path"]) == [one]

    second = user("second", two, "both")
    site.server.declare_ready(second, within_s=MOVE_S)
    home = site.home(one, first, "both", KIND) + "/mount"
    one.machine.run(f"echo shared >{home}/note")
    other = site.home(two, second, "both", KIND) + "/mount"
    assert two.machine.run(f"cat {other}/note").out == "shared\n"

    site.clean(first)
    site.until(
        lambda: site.let_in(attributes["path"]) == [two],
        "the first node is out",
    )
    assert one.machine.run(by_hand, check=False).code != 0
    assert two.machine.run(f"cat {other}/note").out == "shared\n"

    site.storage.machine.power_cut()
    site.storage.machine.start()
    site.storage.start()
    site.storage.serve_nfs()
    assert site.let_in(attributes["path"]) == [two]
    assert two.machine.run(f"cat {other}/note", timeout_s=120).out == "shared\n"
    site.clean(second, wanted)
    site.until(lambda: site.let_in(attributes["path"]) == [], "nobody is let in")


def test_disk_in_use_is_snapshot_and_cloned_by_shared_blocks(site):
    one, two = site.nodes
    site.server.declare(storage_class("disks", "iscsi.volagent.dev"), SNAPSHOT_CLASS)
    original = storage_site.claim("original", "disks", "320Mi")
    pod = user("original", one)
    site.server.declare(original)
    site.server.declare_ready(pod, within_s=MOVE_S)
    home = site.home(one, pod, "original")
    one.machine.run(f"echo first >{home}/note; sync -f {home}")

    site.server.declare(SNAPSHOT)
    path = "/apis/snapshot.storage.k8s.io/v1/namespaces/default/volumesnapshots/noted"
    site.until(
        lambda: site.server.call("GET", path).get("status", {}).get("readyToUse"), "the snapshot"
    )
    one.machine.run(f"echo second >{home}/note; sync -f {home}")
    for name, source in (
        ("from-snapshot", {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot",
                           "name": "noted"}),
        ("from-claim", {"kind": "PersistentVolumeClaim", "name": "original"}),
    ):  # fmt: skip
        copy = storage_site.claim(name, "disks", "320Mi", dataSource=source)
        reader = user(name, two)
        site.server.declare(copy)
        site.server.declare_ready(reader, within_s=MOVE_S)
        note = two.machine.run(f"cat {site.home(two, reader, name)}/note").out
        assert note == {"from-snapshot": "first\n", "from-claim": "second\n"}[name]
        site.clean(reader, copy)
    site.clean(SNAPSHOT)
    assert one.machine.run(f"cat {home}/note").out == "second\n"
    site.clean(pod, original)


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
