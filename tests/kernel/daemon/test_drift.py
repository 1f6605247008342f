"""A volume that somebody unmounts by hand is mounted again, and its pod is told."""

from pathlib import Path

import pytest

from tests.cluster.manifests import bound_pair, claim_volume, image_source, pod, scratch, secret
from tests.kernel.daemon.harness import Daemon, mount_tmpfs, unmount, until

PLACES = {
    "key": "kubernetes.io~secret/key",
    "memory": "kubernetes.io~empty-dir/memory",
    "data": "kubernetes.io~csi/pv-data/mount",
}


@pytest.mark.parametrize("name", PLACES)
def test_volume_that_is_unmounted_by_hand_comes_back_with_an_event(
    daemon: Daemon, name: str
) -> None:
    volume, claim = bound_pair("data", image_source("data", "data.img"))
    daemon.declare(secret("key", token="t0p"), volume, claim)
    volumes = [
        {"name": "key", "secret": {"secretName": "key"}},
        scratch("memory", "Memory"),
        claim_volume("data", "data"),
    ]
    web = pod("web", volumes)
    (home,) = daemon.declare_ready(web)
    data = home / "volumes" / PLACES["data"]
    (data / "note").write_text("kept")
    place = str(home / "volumes" / PLACES[name])
    before = daemon.mounts()

    unmount(Path(place))

    until(lambda: place in daemon.mounts(), told=daemon.read_log)
    until(lambda: daemon.condition(web)["status"] == "True")
    message = daemon.wait_event(web, "VolumeUnmounted", place)
    assert "unmounted by somebody else" in message
    after = daemon.mounts()
    assert after.keys() == before.keys()
    assert [point for point in after if after[point] != before[point]] == [place]
    token = home / "volumes" / PLACES["key"] / "token"
    until(lambda: token.exists() and token.read_text() == "t0p")
    assert (data / "note").read_text() == "kept"


def test_volumes_that_are_unmounted_while_the_daemon_is_dead_come_back(daemon: Daemon) -> None:
    daemon.declare(secret("key", token="t0p"))
    volumes = [{"name": "key", "secret": {"secretName": "key"}}, scratch("memory", "Memory")]
    web = pod("web", volumes)
    (home,) = daemon.declare_ready(web)
    places = {str(home / "volumes" / PLACES[name]) for name in ("key", "memory")}

    daemon.kill()
    for place in places:
        unmount(Path(place))
    daemon.start()

    until(lambda: daemon.mounts().keys() == places, told=daemon.read_log)
    token = home / "volumes" / PLACES["key"] / "token"
    until(lambda: token.exists() and token.read_text() == "t0p")


def test_mount_laid_over_a_volume_is_told_and_left_alone(daemon: Daemon) -> None:
    web = pod("web", [scratch("memory", "Memory")])
    (home,) = daemon.declare_ready(web)
    place = str(home / "volumes" / PLACES["memory"])
    before = daemon.mounts()[place]
    mount_tmpfs(Path(place))
    try:
        message = daemon.wait_event(web, "VolumeCovered", place)
        assert f"umount {place}" in message
        assert daemon.mounts()[place] != before
    finally:
        unmount(Path(place))
    assert daemon.mounts()[place] == before
