"""SIGTERM leaves everything mounted; `--drain-on-exit` leaves nothing but scratch data on disk."""

from tests.cluster.manifests import bound_pair, claim_volume, image_source, pod, scratch, secret
from tests.kernel.daemon.harness import Daemon, Json


def declare_all(daemon: Daemon) -> Json:
    volume, claim = bound_pair("data", image_source("data", "data.img"))
    daemon.declare(secret("key", token="t0p"), volume, claim)
    volumes = [
        scratch("disk"),
        scratch("memory", "Memory"),
        {"name": "key", "secret": {"secretName": "key"}},
        claim_volume("data", "data"),
    ]
    web = pod("web", volumes)
    web["spec"]["containers"][0]["volumeMounts"].append(
        {"name": "disk", "mountPath": "/sub", "subPath": "sub"}
    )
    return web


def test_stopped_daemon_leaves_every_mount_and_knows_it_again(daemon: Daemon) -> None:
    web = declare_all(daemon)
    daemon.declare_ready(web)
    before = daemon.mounts()
    assert len(before) == 5

    assert daemon.stop() == 0

    assert daemon.mounts() == before
    assert list(daemon.processes()) == []
    daemon.start()
    daemon.wait_ready(web)
    assert daemon.mounts() == before


def test_drained_daemon_leaves_no_mount_and_mounts_again_after_a_start(stopped: Daemon) -> None:
    stopped.start("--drain-on-exit")
    web = declare_all(stopped)
    (home,) = stopped.declare_ready(web)
    disk = home / "volumes/kubernetes.io~empty-dir/disk"
    (disk / "note").write_text("kept")
    data = home / "volumes/kubernetes.io~csi/pv-data/mount"
    (data / "note").write_text("kept too")
    (home / "volumes/kubernetes.io~empty-dir/memory/note").write_text("lost")

    assert stopped.stop() == 0

    assert stopped.mounts() == {}
    assert stopped.loop_files() == []
    assert (disk / "note").read_text() == "kept"
    stopped.start()
    stopped.wait_ready(web)
    assert (disk / "note").read_text() == "kept"
    assert (data / "note").read_text() == "kept too"
    assert not (home / "volumes/kubernetes.io~empty-dir/memory/note").exists()
