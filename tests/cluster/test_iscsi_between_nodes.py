"""LUNs that follow their pods from VM to VM: one server, two agents, a real target (LIO)."""

import time
from collections.abc import Iterator

import pytest

from tests.cluster import manifests
from tests.cluster.lab.cluster import Agent, Cluster, on
from tests.cluster.lab.daemon import ApiFailed
from tests.cluster.lab.iscsi_initiator import IscsiInitiator, source
from tests.cluster.lab.iscsi_target import IscsiTarget
from tests.cluster.lab.node import Json

KIND = "kubernetes.io~iscsi"
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
MOVE_S = 60.0


@pytest.fixture(scope="module")
def target(cluster: Cluster) -> IscsiTarget:
    made = IscsiTarget(cluster.storage)
    made.serve()
    for node in cluster.nodes:
        IscsiInitiator(node.machine).start(patience_s=120)
    return made


@pytest.fixture
def site(cluster: Cluster, target: IscsiTarget) -> Iterator[Cluster]:
    yield cluster
    cluster.clean()
    for node in cluster.nodes:
        assert IscsiInitiator(node.machine).sessions() == [], node.name


class Luns:
    """Hands out disks of the target, each under a number of its own."""

    def __init__(self, target: IscsiTarget) -> None:
        self.target = target
        self.number = 0

    def make(self, name: str, size_mib: int = 64) -> int:
        self.number += 1
        self.target.make_disk(name, size_mib)
        self.target.show(self.number, name)
        return self.number


@pytest.fixture(scope="module")
def luns(target: IscsiTarget) -> Luns:
    return Luns(target)


def declare_volume(site: Cluster, luns: Luns, name: str, *, mode: str = "", **more: object) -> Json:
    """A blank LUN, its volume and claim, and a pod that uses it."""
    lun = luns.make(name)
    iscsi = {"iscsi": source(luns.target, lun, fsType="ext4", **more)}
    pair = manifests.bound_pair(name, iscsi, access_mode="ReadWriteOnce")
    if mode:
        for each in pair:
            each["spec"]["volumeMode"] = mode
    site.server.declare(*pair)
    pod = manifests.pod(name, [manifests.claim_volume("data", name)])
    if mode == "Block":
        (container,) = pod["spec"]["containers"]
        del container["volumeMounts"]
        container["volumeDevices"] = [{"name": "data", "devicePath": "/dev/data"}]
    return pod


def named(pod: Json, name: str) -> Json:
    return {**pod, "metadata": {**pod["metadata"], "name": name}}


def home_of(node: Agent, pod: Json, name: str) -> str:
    return node.volume(pod, KIND, f"pv-{name}")


def await_event(site: Cluster, pod: Json, *words: str, within_s: float = 30.0) -> str:
    end_s = time.monotonic() + within_s * site.server.machine.patience
    while True:
        events = site.server.events({**pod, "kind": "Pod"})
        for each in events:
            if all(word in each for word in words):
                return each
        assert time.monotonic() < end_s, events
        time.sleep(0.2)


def holders(site: Cluster) -> list[str]:
    """The nodes with an attachment."""
    return [each["spec"]["nodeName"] for each in site.server.call("GET", ATTACHMENTS)["items"]]


def test_lun_follows_its_pod_with_its_data(site, luns, figure):
    one, two = site.nodes
    pod = declare_volume(site, luns, "moving")
    site.server.declare_ready(on(pod, one), within_s=MOVE_S)
    home = home_of(one, pod, "moving")
    one.machine.run(f"echo from one >{home}/note")
    (attachment,) = site.server.call("GET", ATTACHMENTS)["items"]
    assert attachment["status"]["attached"] is True
    assert attachment["spec"]["source"] == {"persistentVolumeName": "pv-moving"}

    began = time.monotonic()
    site.server.delete_gone(pod)
    moved = site.server.declare_ready(on(pod, two), within_s=MOVE_S)
    figure("LUN moved from node to node", (time.monotonic() - began) * 1000)
    figure("of which declared to mounted", moved.took_ms)
    assert two.machine.run(f"cat {home_of(two, pod, 'moving')}/note").out == "from one\n"
    assert holders(site) == ["node02"]
    assert one.mounts() == []


def test_second_node_is_refused_with_the_name_of_the_pod_that_has_it(site, luns):
    one, two = site.nodes
    pod = declare_volume(site, luns, "exclusive")
    first, second = named(pod, "first"), named(pod, "second")
    site.server.declare_ready(on(first, one), within_s=MOVE_S)
    site.server.declare(on(second, two))
    await_event(site, second, "FailedAttachVolume", "Multi-Attach", "pod(s) first", "node node01")
    said = site.server.volagent("explain pod/second")
    assert "Volume is already used by pod(s) first (on node node01)" in said
    assert two.mounts() == []
    site.server.delete_gone(first)
    site.server.wait_ready(second, within_s=MOVE_S)


def test_two_pods_of_a_node_share_its_lun(site, luns):
    one, _ = site.nodes
    pod = declare_volume(site, luns, "both")
    first, second = named(pod, "first"), named(pod, "second")
    site.server.declare_ready(on(first, one), within_s=MOVE_S)
    site.server.declare_ready(on(second, one))
    one.machine.run(f"echo shared >{home_of(one, first, 'both')}/note")
    assert one.machine.run(f"cat {home_of(one, second, 'both')}/note").out == "shared\n"
    site.server.delete_gone(first)
    assert one.machine.run(f"cat {home_of(one, second, 'both')}/note").out == "shared\n"


def test_one_lun_under_two_names_is_given_to_one_of_them(site, luns):
    one, two = site.nodes
    pod = declare_volume(site, luns, "known")
    iscsi = {"iscsi": source(luns.target, luns.number, fsType="ext4")}
    site.server.declare(*manifests.bound_pair("alias", iscsi, access_mode="ReadWriteOnce"))
    other = manifests.pod("other", [manifests.claim_volume("data", "alias")])
    site.server.declare_ready(on(pod, one), within_s=MOVE_S)
    site.server.declare(on(other, two))
    await_event(site, other, "FailedAttachVolume", "Multi-Attach")
    site.server.delete_gone(other)
    site.server.declare(on(other, one))
    await_event(site, other, "the same disk as PersistentVolume pv-known")
    assert not site.server.is_ready(other)


def test_raw_lun_moves(site, luns):
    one, two = site.nodes
    pod = declare_volume(site, luns, "raw", mode="Block")
    link = "volumeDevices/kubernetes.io~iscsi/pv-raw"
    site.server.declare_ready(on(pod, one), within_s=MOVE_S)
    one.machine.run(f"echo from one | dd of={one.pod_directory(pod)}/{link} conv=notrunc,fsync")
    site.server.delete_gone(pod)
    site.server.declare_ready(on(pod, two), within_s=MOVE_S)
    said = two.machine.run(f"head -c 9 {two.pod_directory(pod)}/{link}").out
    assert said == "from one\n"


@pytest.fixture
def multipath(site) -> Iterator[None]:
    initiators = [IscsiInitiator(node.machine) for node in site.nodes]
    for each in initiators:
        each.start_multipath()
    yield
    for each in initiators:
        each.stop_multipath()


def test_volume_with_two_paths_outlives_one_of_them_and_moves(site, luns, multipath):
    one, two = site.nodes
    pod = declare_volume(site, luns, "wide", portals=[luns.target.portals[1]])
    site.server.declare_ready(on(pod, one), within_s=MOVE_S)
    home = home_of(one, pod, "wide")
    before = one.mounts()
    paths = "ls /sys/block/$(basename $(readlink -f $(findmnt -no SOURCE {home})))/slaves | wc -l"
    assert one.machine.run(paths.format(home=home)).out == "2\n"

    luns.target.cut_portal(1)
    try:
        written = one.machine.run(
            f"dd if=/dev/urandom of={home}/big bs=64k count=64 conv=fsync 2>/dev/null;"
            f" sha256sum <{home}/big",
            timeout_s=90,
        ).out
    finally:
        luns.target.heal_portal(1)
    assert one.mounts() == before

    site.server.delete_gone(pod)
    site.server.declare_ready(on(pod, two), within_s=MOVE_S)
    home = home_of(two, pod, "wide")
    assert two.machine.run(paths.format(home=home)).out == "2\n"
    assert two.machine.run(f"sha256sum <{home}/big").out == written
    site.server.delete_gone(pod)


def test_chap_secret_that_is_wrong_is_told_and_one_that_is_right_helps(site, luns):
    one, _ = site.nodes
    luns.target.require_chap("lab", "correct-password")
    try:
        keys = ("node.session.auth.username", "node.session.auth.password")
        secret = manifests.secret(
            "chap", **dict(zip(keys, ("lab", "wrong-password1"), strict=True))
        )
        pod = declare_volume(
            site, luns, "guarded", chapAuthSession=True,
            secretRef={"name": "chap", "namespace": "default"},
        )  # fmt: skip
        site.server.declare(on(pod, one))
        await_event(site, pod, 'secret "chap" not found')
        site.server.declare(secret)
        told = await_event(site, pod, "FailedAttachVolume", "credentials", within_s=MOVE_S)
        assert "wrong-password1" not in told + one.log()
        right = {"stringData": {keys[1]: "correct-password"}}
        site.server.call("PATCH", "/api/v1/namespaces/default/secrets/chap", right)
        site.server.wait_ready(pod, within_s=MOVE_S)
        site.server.delete_gone(pod)
    finally:
        luns.target.allow_everybody()
    site.server.delete_gone(secret)


def test_mounted_lun_grows(site, luns):
    one, _ = site.nodes
    lun = luns.make("growing", 320)
    iscsi = {"iscsi": source(luns.target, lun, fsType="xfs")}
    volume, claim = manifests.bound_pair(
        "growing", iscsi, access_mode="ReadWriteOnce", capacity="320Mi"
    )
    site.server.declare(volume, claim)
    web = manifests.pod("growing", [manifests.claim_volume("data", "growing")])
    site.server.declare_ready(on(web, one), within_s=MOVE_S)
    home = home_of(one, web, "growing")
    luns.target.grow("growing", 480)
    change = {"spec": {"capacity": {"storage": "480Mi"}}}
    site.server.call("PATCH", "/api/v1/persistentvolumes/pv-growing", change)
    one.machine.run(
        f"until [ $(df -m --output=size {home} | tail -1) -gt 400 ]; do sleep 0.2; done"
    )


def test_killed_agent_changes_nothing_and_goes_on(site, luns):
    one, _ = site.nodes
    pod = declare_volume(site, luns, "lasting")
    site.server.declare_ready(on(pod, one), within_s=MOVE_S)
    before = one.mounts()
    one.kill()
    one.start()
    assert one.mounts() == before
    site.server.wait_ready(pod)


@pytest.mark.parametrize("after_s", [0.0, 0.5])
def test_server_killed_in_the_middle_of_a_move_finishes_it(site, luns, after_s):
    one, two = site.nodes
    name = f"hurried-{round(after_s * 10)}"
    pod = declare_volume(site, luns, name)
    site.server.declare_ready(on(pod, one), within_s=MOVE_S)
    one.machine.run(f"echo kept >{home_of(one, pod, name)}/note")
    site.server.delete(pod)
    site.server.declare(on(named(pod, "next"), two))
    time.sleep(after_s)
    site.server.kill()
    site.server.start()
    site.server.wait_gone(pod, within_s=MOVE_S)
    site.server.wait_ready(named(pod, "next"), within_s=MOVE_S)
    assert two.machine.run(f"cat {home_of(two, named(pod, 'next'), name)}/note").out == "kept\n"


def test_unknown_target_is_told(site, luns):
    one, _ = site.nodes
    pod = declare_volume(site, luns, "nowhere", iqn="iqn.2026-01.lab:nobody")
    site.server.declare(on(pod, one))
    told = await_event(site, pod, "FailedAttachVolume", "iqn.2026-01.lab:nobody", within_s=MOVE_S)
    assert "pv-nowhere" in told
    with pytest.raises(ApiFailed):
        site.server.wait_ready(pod, within_s=1.0)


def test_disk_with_something_foreign_on_it_is_left_alone(site, luns):
    one, _ = site.nodes
    pod = declare_volume(site, luns, "foreign")
    site.storage.run(f"mkswap -q {luns.target.file('foreign')}")
    before = luns.target.checksum("foreign")
    site.server.declare(on(pod, one))
    told = await_event(site, pod, "FailedMount", "swap", within_s=MOVE_S)
    assert "pv-foreign" in told
    assert luns.target.checksum("foreign") == before
    assert one.mounts() == []


def test_network_that_is_cut_for_a_while_changes_nothing(site, luns):
    """Of a disk that nobody can prove free: one with reservations moves, see `test_failover`."""
    one, two = site.nodes
    luns.target.forbid_reservations("patient")
    pod = declare_volume(site, luns, "patient")
    site.server.declare_ready(on(pod, one), within_s=MOVE_S)
    before = one.mounts()
    home = home_of(one, pod, "patient")
    one.machine.partition()
    second = named(pod, "second")
    site.server.declare(on(second, two))
    await_event(site, second, "Multi-Attach", "pod(s) patient")
    try:
        time.sleep(60)  # beyond the lease, and long enough for the session to be made anew
        assert holders(site) == ["node01"]
    finally:
        one.machine.heal()
    one.machine.run(f"echo later >{home}/note; sync")
    assert one.mounts() == before
    assert two.mounts() == []
    assert holders(site) == ["node01"]
    site.server.delete_gone(pod)
    site.server.wait_ready(second, within_s=MOVE_S)
    assert two.machine.run(f"cat {home_of(two, second, 'patient')}/note").out == "later\n"


def test_storage_that_loses_power_comes_back_with_its_volumes(site, target):
    one, two = site.nodes
    durable = IscsiTarget(site.storage, iqn="iqn.2026-01.lab:durable", disk=site.storage.disks[3])
    durable.serve()
    durable.make_disk("durable", 64)
    durable.show(1, "durable")
    body = {"iscsi": source(durable, 1, fsType="ext4")}
    site.server.declare(*manifests.bound_pair("durable", body, access_mode="ReadWriteOnce"))
    pod = manifests.pod("durable", [manifests.claim_volume("data", "durable")])
    site.server.declare_ready(on(pod, one), within_s=MOVE_S)
    home = home_of(one, pod, "durable")
    label = f"blkid -o value -s UUID $(findmnt -no SOURCE {home})"
    was = one.machine.run(f"echo before >{home}/log; sync -f {home}; {label}").out
    before = one.mounts()

    site.storage.power_cut()
    one.machine.run(f"(echo during >>{home}/log; sync -f {home}; touch /run/written) >/dev/null &")
    time.sleep(5)
    site.storage.start()
    # This one first: iscsid gives up for good when a portal answers that it knows no such target.
    durable.serve()
    target.serve()

    one.machine.run("until [ -e /run/written ]; do sleep 0.2; done", timeout_s=120)
    assert one.mounts() == before
    assert one.machine.run(label).out == was
    second = named(pod, "second")
    site.server.declare(on(second, two))
    site.server.replace_ready(pod, second, within_s=MOVE_S)
    home = home_of(two, second, "durable")
    assert two.machine.run(f"cat {home}/log").out == "before\nduring\n"
