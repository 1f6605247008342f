"""`kill -9` at any moment, then start again: converges, keeps what stands, leaks nothing."""

import concurrent.futures
import contextlib
import http.client
import os

import pytest

from tests.cluster.manifests import bound_pair, claim_volume, image_source, pod, scratch, secret
from tests.kernel.daemon.harness import Daemon, Json, until

UNDER_WAY_MAX = 16
"""Volumes that the daemon may have been working on when it was killed: those may be made anew."""


def four_volumes() -> list[Json]:
    return [
        scratch("disk"),
        scratch("memory", "Memory"),
        {"name": "key", "secret": {"secretName": "key"}},
        {"name": "about", "downwardAPI": {"items": [
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        ]}},
    ]  # fmt: skip


def is_complete(daemon: Daemon, document: Json) -> bool:
    uid = daemon.get(document)["metadata"]["uid"]
    below = daemon.pods / uid / "volumes"
    mounts = daemon.mounts()
    return (
        f"{below}/kubernetes.io~empty-dir/memory" in mounts
        and f"{below}/kubernetes.io~secret/key" in mounts
        and (below / "kubernetes.io~secret/key/token").read_text() == "t0p"
        and (below / "kubernetes.io~downward-api/about/name").read_text()
        == document["metadata"]["name"]
        and (below / "kubernetes.io~empty-dir/disk").is_dir()
    )


def test_idle_daemon_that_is_killed_knows_every_mount_again(daemon: Daemon) -> None:
    volume, claim = bound_pair("data", image_source("data", "data.img"))
    daemon.declare(secret("key", token="t0p"), volume, claim)
    web = pod("web", [*four_volumes(), claim_volume("data", "data")])
    web["spec"]["containers"][0]["volumeMounts"].append(
        {"name": "disk", "mountPath": "/sub", "subPath": "sub"}
    )
    (home,) = daemon.declare_ready(web)
    note = home / "volumes/kubernetes.io~empty-dir/memory/note"
    note.write_text("kept")
    before = daemon.mounts()
    assert len(before) == 6

    for _ in range(2):
        daemon.restart()
        daemon.wait_ready(web)

    assert daemon.mounts() == before
    assert note.read_text() == "kept"
    assert len(daemon.loop_files()) == 1
    states = {v["name"]: v["state"] for v in daemon.ask_node("explain", web)["volumes"]}
    assert states == dict.fromkeys(states, "Ready")


def test_secret_that_changes_while_the_daemon_is_dead_is_updated_after_its_restart(
    daemon: Daemon,
) -> None:
    key = secret("key", token="old")
    daemon.declare(key)
    web = pod("web", [{"name": "key", "secret": {"secretName": "key"}}])
    (home,) = daemon.declare_ready(web)
    token = home / "volumes/kubernetes.io~secret/key/token"
    before = daemon.mounts()

    daemon.patch(key, {"stringData": {"token": "new"}})
    daemon.restart()

    until(lambda: token.read_text() == "new", told=daemon.read_log)
    assert daemon.mounts() == before


@pytest.mark.parametrize("mounted", [1, 20, 50, 80])
def test_daemon_killed_while_pods_arrive_loses_none_that_it_acknowledged(
    daemon: Daemon, mounted: int
) -> None:
    daemon.declare(secret("key", token="t0p"))
    pods = [pod(f"web-{number}", four_volumes()) for number in range(30)]
    acknowledged: list[Json] = []

    def declare_until_it_dies() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            for each in pods:
                daemon.declare(each)
                acknowledged.append(each)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        declaring = pool.submit(declare_until_it_dies)
        until(lambda: len(daemon.mounts()) >= mounted)
        daemon.kill()
        declaring.result()
    before = daemon.mounts()
    daemon.start()

    for each in pods:
        if not daemon.exists(each):
            assert each not in acknowledged
            daemon.declare(each)
        daemon.wait_ready(each)
        assert is_complete(daemon, each)
    after = daemon.mounts()
    assert len(after) == 90
    assert len(before.keys() - after.keys()) == 0
    remade = [point for point in before if after[point] != before[point]]
    assert len(remade) <= UNDER_WAY_MAX, remade


@pytest.mark.parametrize("deleted", [1, 6, 12])
def test_daemon_killed_while_pods_are_deleted_finishes_the_deletions(
    daemon: Daemon, deleted: int
) -> None:
    daemon.declare(secret("key", token="t0p"))
    pods = [pod(f"web-{number}", four_volumes()) for number in range(12)]
    homes = daemon.declare_ready(*pods)
    kept = {name: mount for name, mount in daemon.mounts().items()
            if any(name.startswith(f"{home}/") for home in homes[deleted:])}  # fmt: skip

    daemon.delete(*pods[:deleted])
    daemon.restart()

    until(lambda: len(os.listdir(daemon.pods)) == 12 - deleted, told=daemon.read_log)
    for each in pods[:deleted]:
        until(lambda each=each: not daemon.exists(each), told=daemon.read_log)
    assert daemon.mounts() == kept
    for each in pods[deleted:]:
        assert is_complete(daemon, each)


def test_pod_deleted_while_the_daemon_is_dead_cannot_be(daemon: Daemon) -> None:
    """The store is the daemon's own: what is gone from it was withdrawn before."""
    web = pod("web", [scratch("memory", "Memory")])
    daemon.declare_ready(web)
    daemon.kill()

    daemon.start()

    daemon.wait_ready(web)
    daemon.delete_gone(web)
    assert daemon.mounts() == {}


def test_image_is_formatted_once_when_the_daemon_is_killed_while_it_is_set_up(
    daemon: Daemon,
) -> None:
    volume, claim = bound_pair("data", image_source("data", "data.img"))
    daemon.declare(volume, claim)
    web = pod("web", [claim_volume("data", "data")])
    daemon.declare(web)

    for _ in range(3):
        daemon.restart()

    daemon.wait_ready(web)
    mounts = daemon.mounts()
    assert [fs for _, fs, _ in mounts.values()] == ["ext4", "ext4"]
    assert len(daemon.loop_files()) == 1
