"""Volumes from a VM with a disk: `volagent storage`, a server, and two nodes that use them."""

import time
from functools import partial

import pytest

from tests.cluster import storage_site
from tests.cluster.lab.iscsi_initiator import IscsiInitiator
from tests.cluster.lab.machine import Lab
from tests.cluster.storage_site import MOVE_S, Site, make_storage_site, storage_class, user

CLASS = "disks"
claim = partial(storage_site.claim, of_class=CLASS)


@pytest.fixture(scope="module")
def site(lab: Lab) -> Site:
    return make_storage_site(lab, storage_class(CLASS, "iscsi.volagent.dev"))


def test_claim_gets_a_disk_that_follows_its_pod_and_nobody_else_reaches(site, figure):
    one, two = site.nodes
    wanted, pod = claim("moving"), user("moving", one)
    site.server.declare(wanted)
    ready = site.server.declare_ready(pod, within_s=MOVE_S)
    figure("claim and pod declared to a mounted disk of a storage node", ready.took_ms)
    volume = site.volume_of("moving")
    iscsi = volume["spec"]["iscsi"]
    assert site.storage.targets() == [iscsi["iqn"]]
    assert site.storage.let_in() == ["iqn.2026-01.lab:node01"]
    home = site.home(one, pod, "moving")
    one.machine.run(f"echo from one >{home}/note; sync -f {home}")

    login = (
        f"iscsiadm -m node -T {iscsi['iqn']} -p {iscsi['targetPortal']} -o new\n"
        f"iscsiadm -m node -T {iscsi['iqn']} -p {iscsi['targetPortal']} --login"
    )
    refused = two.machine.run(login, check=False)
    assert refused.code != 0
    assert "authorization failure" in refused.err + refused.out
    two.machine.run(f"iscsiadm -m node -T {iscsi['iqn']} -o delete")

    began = time.monotonic()
    site.server.delete_gone(pod)
    pod = user("moving", two)
    site.server.declare_ready(pod, within_s=MOVE_S)
    figure("disk of a storage node moved to another node", (time.monotonic() - began) * 1000)
    assert two.machine.run(f"cat {site.home(two, pod, 'moving')}/note").out == "from one\n"
    assert site.storage.let_in() == ["iqn.2026-01.lab:node02"]
    assert IscsiInitiator(one.machine).sessions() == []

    site.clean(pod)
    site.until(lambda: site.storage.targets() == [], "nothing is shown")
    secrets = site.server.call("GET", "/api/v1/namespaces/kube-system/secrets")["items"]
    assert [each for each in secrets if each["type"] == "kubernetes.io/iscsi-chap"] == []
    site.clean(wanted)


def test_storage_node_that_loses_power_shows_its_disks_again_by_itself(site, figure):
    one, _ = site.nodes
    wanted, pod = claim("durable"), user("durable", one)
    site.server.declare(wanted)
    site.server.declare_ready(pod, within_s=MOVE_S)
    home = site.home(one, pod, "durable")
    one.machine.run(f"echo before >{home}/log; sync -f {home}")
    before = one.mounts()

    site.storage.machine.power_cut()
    one.machine.run(f"(echo during >>{home}/log; sync -f {home}; touch /run/written) >/dev/null &")
    site.server.machine.partition()  # its own records are enough
    site.storage.machine.start()
    site.storage.mount_data()
    site.storage.start_without_server()
    began = time.monotonic()
    one.machine.run("until [ -e /run/written ]; do sleep 0.2; done", timeout_s=120)
    figure("storage node started to I/O going on", (time.monotonic() - began) * 1000)
    site.server.machine.heal()
    assert one.mounts() == before
    assert one.machine.run(f"cat {home}/log").out == "before\nduring\n"
    site.clean(pod, wanted)
    site.until(lambda: site.storage.targets() == [], "nothing is shown")


def test_deleted_disk_is_in_the_trash_and_can_be_had_back(site):
    one, two = site.nodes
    wanted, pod = claim("dropped"), user("dropped", one)
    site.server.declare(wanted)
    site.server.declare_ready(pod, within_s=MOVE_S)
    volume = site.volume_of("dropped")
    name = volume["metadata"]["name"]
    home = site.home(one, pod, "dropped")
    one.machine.run(f"echo precious >{home}/note; sync -f {home}")
    site.clean(pod, wanted)
    site.server.wait_gone({**volume, "kind": "PersistentVolume"}, within_s=MOVE_S)
    assert name in site.storage.volagent("trash list")

    site.storage.volagent(f"trash restore iscsi.volagent.dev/{name}")
    site.server.declare({**wanted, "spec": {**wanted["spec"], "volumeName": name}})
    pod = user("dropped", two)
    site.server.declare_ready(pod, within_s=MOVE_S)
    assert two.machine.run(f"cat {site.home(two, pod, 'dropped')}/note").out == "precious\n"
    site.clean(pod, wanted)
    site.server.delete({**volume, "kind": "PersistentVolume"})


def test_disk_grows_while_it_is_used(site):
    one, _ = site.nodes
    wanted, pod = claim("growing"), user("growing", one)
    site.server.declare(wanted)
    site.server.declare_ready(pod, within_s=MOVE_S)
    home = site.home(one, pod, "growing")
    change = {"spec": {"resources": {"requests": {"storage": "128Mi"}}}}
    path = "/api/v1/namespaces/default/persistentvolumeclaims/growing"
    site.server.call("PATCH", path, change)
    one.machine.run(
        f"until [ $(df -m --output=size {home} | tail -1) -gt 100 ]; do sleep 0.2; done"
    )
    site.clean(pod, wanted)


def test_more_than_the_disk_has_is_refused_and_told(site):
    wanted = claim("greedy", size="10Gi")
    site.server.declare(wanted)
    site.until(
        lambda: any("over 1 times its size" in each for each in site.server.events(wanted)),
        "the claim is told",
    )
    site.clean(wanted)
