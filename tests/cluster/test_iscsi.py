"""iSCSI sessions between real kernels: made, shared, refused, cut, and closed with the last disk.

The driver is taken through its life directly, a new process each time; at the end the daemon does
the same with a pod. Every test leaves the node without a session, a disk or a record.
"""

from collections.abc import Iterator

import pytest

from tests.cluster import manifests
from tests.cluster.iscsi_site import Site, check_clean, make_site, step
from tests.cluster.lab.iscsi_initiator import source
from tests.cluster.lab.machine import Lab

MIB = 1 << 20
USER, PASSWORD = "volagent", "a-secret-of-16-b"
CHAP = {
    "node.session.auth.username": USER,
    "node.session.auth.password": PASSWORD,
}


@pytest.fixture(scope="module")
def whole_site(lab: Lab) -> Site:
    return make_site(lab)


@pytest.fixture
def site(whole_site: Site) -> Iterator[Site]:
    """The site, which must be as clean after each test as it was before."""
    yield whole_site
    check_clean(whole_site)


def test_data_is_there_again_when_the_volume_comes_back(site, figure):
    body = source(site.target, 0)
    (up,) = site.node.drive(step("set-up", "zero", body))
    assert "error" not in up, up
    figure("iSCSI volume: log in, format, mount", up["took_ms"])
    assert "naa.6001405" in up["evidence"][0]
    assert site.target.portals[0] in up["evidence"][0]
    site.node.machine.run("echo precious >/run/pods/zero/data")
    assert site.node.sessions() == [site.target.iqn]
    (down,) = site.node.drive(step("take-down", "zero", body))
    assert "error" not in down, down
    figure("iSCSI volume: unmount, log out", down["took_ms"])
    assert site.node.sessions() == []
    (up,) = site.node.drive(step("set-up", "zero", body))
    assert site.node.machine.run("cat /run/pods/zero/data").out == "precious\n"
    again, down = site.node.drive(step("set-up", "zero", body), step("take-down", "zero", body))
    assert "error" not in again, again
    assert "error" not in down, down


def test_disk_that_is_lost_is_given_back_unwritten(site):
    body = source(site.target, 0)
    (up,) = site.node.drive(step("set-up", "lost", body))
    assert "error" not in up, up
    site.node.machine.run("echo kept >/run/pods/lost/kept; sync -f /run/pods/lost")
    site.node.machine.run("echo never arrives >/run/pods/lost/dirty")
    (gone,) = site.node.drive(step("discard", "lost", body))
    assert "error" not in gone, gone
    assert "offline: /dev/sd" in gone["evidence"][0]
    assert "taken away unwritten" in gone["evidence"][-1]
    assert site.node.sessions() == []
    (up,) = site.node.drive(step("set-up", "lost", body))
    assert site.node.machine.run("cat /run/pods/lost/kept").out == "kept\n"
    assert site.node.machine.run("cat /run/pods/lost/dirty", check=False).out == ""
    (down,) = site.node.drive(step("take-down", "lost", body))
    assert "error" not in down, down


def test_two_disks_share_a_session_that_the_last_one_closes(site):
    one, two = source(site.target, 1), source(site.target, 2)
    answers = site.node.drive([step("set-up", "one", one), step("set-up", "two", two)])
    assert all("error" not in answer for answer in answers), answers
    assert site.node.sessions() == [site.target.iqn]
    assert len(site.node.disks()) == 2
    (down,) = site.node.drive(step("take-down", "one", one))
    assert not any("logged out" in text for text in down["evidence"])
    assert site.node.sessions() == [site.target.iqn]
    assert len(site.node.disks()) == 1
    site.node.machine.run("echo still >/run/pods/two/data; sync")
    (down,) = site.node.drive(step("take-down", "two", two))
    assert any("logged out" in text for text in down["evidence"]), down


def test_login_and_logout_of_one_target_never_cross(site):
    one, two = source(site.target, 1), source(site.target, 2)
    site.node.drive(step("set-up", "one", one))
    down, up = site.node.drive([step("take-down", "one", one), step("set-up", "two", two)])
    assert "error" not in down, down
    assert "error" not in up, up
    assert len(site.node.disks()) == 1
    site.node.drive(step("take-down", "two", two))


def test_chap_lets_in_who_has_the_secret_and_shows_it_to_nobody(site):
    site.target.require_chap(USER, PASSWORD)
    body = source(site.target, 1, chapAuthSession=True, secretRef={"name": "chap"})
    wrong = CHAP | {"node.session.auth.password": "a-wrong-one-of-16"}
    (refused,) = site.node.drive(step("set-up", "one", body, secret=wrong))
    assert refused["error"] == "Transient"
    assert "does not accept the credentials" in refused["message"]
    assert "secretRef" in refused["remedy"]
    assert "a-wrong-one" not in str(refused)
    assert site.node.sessions() == []
    assert site.node.records() == ""
    site.node.note_arguments()
    (up,) = site.node.drive(step("set-up", "one", body, secret=CHAP))
    assert "error" not in up, up
    seen = site.node.forget_arguments()
    assert "--login" in seen
    assert PASSWORD not in seen
    assert site.node.records().startswith("600 ")
    assert len(site.node.records().splitlines()) == 1
    site.node.drive(step("take-down", "one", body))


def test_target_is_asked_for_with_credentials_when_discovery_needs_them(site):
    site.target.require_discovery_chap("finder", "word-of-finder-1")
    body = source(site.target, 1, chapAuthDiscovery=True, secretRef={"name": "chap"})
    found = {
        "discovery.sendtargets.auth.username": "finder",
        "discovery.sendtargets.auth.password": "word-of-finder-1",
    }
    wrong = found | {"discovery.sendtargets.auth.password": "a-wrong-one-of-16"}
    refused, up = site.node.drive(
        step("set-up", "one", body, secret=wrong), step("set-up", "one", body, secret=found)
    )
    site.target.allow_discovery()
    assert "does not accept the credentials" in refused["message"]
    assert "error" not in up, up
    assert "send_targets" not in site.node.records()
    site.node.drive(step("take-down", "one", body))


def test_initiator_has_the_name_that_the_volume_gives_it(site):
    name = "iqn.2026-01.lab:somebody-else"
    body = source(site.target, 1, initiatorName=name)
    (up,) = site.node.drive(step("set-up", "one", body))
    assert "error" not in up, up
    shown = site.node.machine.run("cat /sys/class/iscsi_session/*/initiatorname").out
    assert shown.split() == [name]
    (down,) = site.node.drive(step("take-down", "one", body))
    assert "error" not in down, down


def test_unknown_target_is_told_at_once_with_what_the_portal_offers(site):
    body = source(site.target, 1) | {"iqn": "iqn.2026-01.lab:nosuch"}
    (answer,) = site.node.drive(step("set-up", "x", body))
    assert answer["error"] == "Transient"
    assert "does not offer the target" in answer["message"]
    assert site.target.iqn in answer["message"]
    assert answer["took_ms"] < 8000 * site.node.machine.patience


def test_unknown_number_leaves_no_session(site):
    (answer,) = site.node.drive(step("set-up", "x", source(site.target, 9)))
    assert answer["error"] == "Transient"
    assert "shows no such disk" in answer["message"]


def test_dead_portal_is_told_and_delays_nobody_else(site, figure):
    dead = "10.77.0.200:3260"
    body = source(site.target, 1)
    silent = body | {"targetPortal": dead, "iqn": "iqn.2026-01.lab:silent"}
    refused, up = site.node.drive([step("set-up", "dead", silent), step("set-up", "one", body)])
    assert refused["error"] == "Transient"
    assert dead in refused["message"]
    assert "portal is up" in refused["remedy"]
    assert "error" not in up, up
    figure("iSCSI: a portal that does not answer is told", refused["took_ms"])
    site.node.drive(step("take-down", "one", body))
    both = body | {"portals": [dead]}
    up, down = site.node.drive(step("set-up", "one", both), step("take-down", "one", both))
    assert dead in up["evidence"][0]
    assert "error" not in down, down


def test_loss_is_told_when_the_target_is_gone_and_nothing_is_left_of_it(site):
    body = source(site.target, 1)
    site.node.drive(step("set-up", "one", body))
    machine = site.node.machine
    machine.run("echo lost >/run/pods/one/data")
    machine.partition()
    try:
        machine.run(
            "until grep -q transport-offline /sys/class/iscsi_session/*/device/target*/*/state;"
            " do sleep 0.2; done"
        )
        (again,) = site.node.drive(step("attach", "one", body))
        assert again["error"] == "Uncertain", again
        assert "does not answer" in again["message"]
        (down,) = site.node.drive(step("take-down", "one", body))
    finally:
        machine.heal()
    assert "error" not in down, down
    assert "not written yet is lost" in down["evidence"][1]
    assert "no path to it was up" in down["evidence"][2]


def test_session_of_an_administrator_is_used_and_stays(site):
    target, machine = site.target, site.node.machine
    node = f"iscsiadm -m node -T {target.iqn} -p {target.portals[0]}"
    machine.run(f"{node} -o new; {node} --login; udevadm settle")
    try:
        shown = site.node.disks()
        body = source(target, 1)
        up, down = site.node.drive(step("set-up", "one", body), step("take-down", "one", body))
        left = (site.node.sessions(), len(site.node.disks()))
    finally:
        machine.run(f"{node} --logout; {node} -o delete")
    assert "error" not in up, up
    assert "error" not in down, down
    assert left == ([target.iqn], len(shown) - 1)


@pytest.fixture
def multipath(site) -> Iterator[None]:
    site.node.start_multipath()
    yield
    site.node.stop_multipath()


def test_two_paths_without_multipathd_are_one_path_and_that_is_told(site):
    body = source(site.target, 1, portals=[site.target.portals[1]])
    (up,) = site.node.drive(step("set-up", "one", body))
    assert "multipathd does not run" in up["evidence"][0], up
    assert site.node.sessions() == [site.target.iqn] * 2
    (down,) = site.node.drive(step("take-down", "one", body))
    assert "error" not in down, down


def test_two_paths_are_one_device_that_outlives_one_of_them(site, multipath, figure):
    site.target.make_disk("wide", 64)
    site.target.show(8, "wide")
    body = source(site.target, 8, portals=[site.target.portals[1]])
    (up,) = site.node.drive(step("set-up", "wide", body))
    assert "error" not in up, up
    assert "2 paths as " in up["evidence"][0], up
    assert up["device"].startswith("/dev/dm-")
    figure("iSCSI volume on two paths: log in, format, mount", up["took_ms"])
    site.target.cut_portal(1)
    said = site.node.machine.run(
        "dd if=/dev/urandom of=/run/pods/wide/big bs=64k count=64 conv=fsync 2>/dev/null;"
        " sha256sum </run/pods/wide/big",
        timeout_s=90,
    )
    figure("iSCSI: 4 MiB written while a path was cut", said.took_s * 1000)
    (again,) = site.node.drive(step("attach", "wide", body))
    assert "error" not in again, again
    site.target.heal_portal(1)
    site.target.grow("wide", 128)
    site.node.machine.run(
        "for i in $(seq 900); do"
        ' [ "$(cat /sys/class/iscsi_session/*/state | sort -u)" = LOGGED_IN ] && exit 0;'
        " sleep 0.2; done; exit 1",
        timeout_s=60,
    )
    (grown,) = site.node.drive(step("expand", "wide", body, capacity_bytes=128 * MIB))
    assert grown.get("evidence") == ["grown to its device"], grown
    after = site.node.machine.run("sha256sum </run/pods/wide/big").out
    assert after == said.out
    (down,) = site.node.drive(step("take-down", "wide", body))
    assert "error" not in down, down
    site.target.hide(8)


def test_pod_gets_its_disk_by_the_daemon_and_gives_it_back(site, figure):
    node = site.daemon
    node.start()
    body = {"iscsi": source(site.target, 1, fsType="ext4")}
    volume, claim = manifests.bound_pair("disk", body, access_mode="ReadWriteOnce")
    node.declare(volume, claim)
    pod = manifests.pod("db", [manifests.claim_volume("data", "disk")])
    ready = node.declare_ready(pod, within_s=60)
    figure("iSCSI volume of a pod is ready", ready.took_ms)
    where = node.volume(pod, "kubernetes.io~iscsi", "pv-disk")
    node.machine.run(f"echo row >{where}/table; sync -f {where}")
    node.kill()
    node.start()
    node.wait_ready(pod)
    assert node.machine.run(f"cat {where}/table").out == "row\n"
    node.delete_gone(pod, within_s=60)
    node.machine.run(
        "for i in $(seq 600); do"
        " ls /sys/class/iscsi_session/* >/dev/null 2>&1 || exit 0; sleep 0.1; done; exit 1"
    )
    node.stop()


def test_disk_that_no_volume_has_is_given_back_with_a_word(site):
    node, machine = site.daemon, site.node.machine
    node.start()
    body = source(site.target, 1)
    (up,) = site.node.drive(step("attach", "stray", body))
    assert "error" not in up, up
    machine.run(f"sleep 1000 <{up['device']} >/dev/null 2>&1 & echo $! >/run/holder")
    log = machine.installation.show_log
    machine.run(f"until {log} | grep 'is in use, and stays'; do sleep 0.2; done", timeout_s=90)
    assert site.node.sessions() == [site.target.iqn]
    machine.run("kill $(cat /run/holder)")
    machine.run("while ls /sys/class/iscsi_session/* >/dev/null 2>&1; do sleep 0.2; done")
    machine.run(f"{log} | grep 'no volume has was given back' | grep naa.6001405")
    node.stop()
    site.node.drive(step("detach", "stray", body))
