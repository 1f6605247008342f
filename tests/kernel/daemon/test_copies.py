"""Copies of image volumes: while they are written to, beside their originals, through a kill."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.manifests import pod
from tests.kernel.daemon.harness import Daemon, Json, until

MIB = 1 << 20
API = "snapshot.storage.k8s.io/v1"
SNAPSHOT_CLASS: Json = {
    "kind": "VolumeSnapshotClass", "apiVersion": API, "metadata": {"name": "images"},
    "driver": "image.volagent.dev", "deletionPolicy": "Delete",
}  # fmt: skip


def a_class(fs_type: str) -> Json:
    return {
        "kind": "StorageClass", "apiVersion": "storage.k8s.io/v1", "metadata": {"name": "ssd"},
        "provisioner": "image.volagent.dev", "volumeBindingMode": "WaitForFirstConsumer",
        "parameters": {"csi.storage.k8s.io/fstype": fs_type, "volagent.dev/trash-retention": "0"},
    }  # fmt: skip


def a_claim(name: str, size: str, origin: Json | None = None) -> Json:
    spec: Json = {
        "storageClassName": "ssd", "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }  # fmt: skip
    if origin is not None:
        spec["dataSource"] = origin
    return {
        "kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": name},
        "spec": spec,
    }  # fmt: skip


def a_snapshot(claim: str) -> Json:
    return {
        "kind": "VolumeSnapshot", "apiVersion": API, "metadata": {"name": f"of-{claim}"},
        "spec": {
            "volumeSnapshotClassName": "images", "source": {"persistentVolumeClaimName": claim},
        },
    }  # fmt: skip


def using(claim: str) -> Json:
    return pod(f"with-{claim}", [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}])


def place_of(daemon: Daemon, web: Json) -> Path:
    uid = daemon.get(web)["metadata"]["uid"]
    (mount,) = (daemon.pods / uid / "volumes/kubernetes.io~csi").glob("*/mount")
    return mount


def from_snapshot(claim: str) -> Json:
    return {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": f"of-{claim}"}


def wait_taken(daemon: Daemon, snapshot: Json) -> None:
    until(
        lambda: daemon.get(snapshot).get("status", {}).get("readyToUse"),
        told=lambda: (daemon.get(snapshot), daemon.read_log()),
    )


@pytest.fixture
def sharing(stopped: Daemon, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    """A daemon whose images lie on a file system that shares blocks."""
    disk = stopped.base / "store.img"
    with open(disk, "wb") as file:
        file.truncate(1536 * MIB)
    subprocess.run([f"mkfs.{request.param}", "-q", disk], check=True)
    stopped.images.mkdir(parents=True, mode=0o700)
    subprocess.run(["mount", "-o", "loop", disk, stopped.images], check=True)
    try:
        stopped.start()
        yield stopped
        assert stopped.stop() == 0
    finally:
        if stopped.running:
            stopped.kill()
        with contextlib.suppress(subprocess.CalledProcessError):
            subprocess.run(["umount", stopped.images], check=True)


class Writer:
    """Writes numbered lines, each durable before the next."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.durable = -1
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with open(self._file, "w") as file:
            number = 0
            while not self._ended.is_set():
                file.write(f"{number}\n")
                file.flush()
                os.fsync(file.fileno())
                self.durable = number
                number += 1


@pytest.mark.parametrize(
    ("sharing", "fs_type", "size"),
    [("btrfs", "ext4", "32Mi"), ("xfs", "xfs", "320Mi"), ("xfs", "btrfs", "128Mi")],
    indirect=["sharing"],
)
def test_volume_is_copied_while_it_is_written_to_and_both_are_mounted(
    sharing: Daemon, fs_type: str, size: str
) -> None:
    daemon, claim, snapshot = sharing, a_claim("data", size), a_snapshot("data")
    daemon.declare(a_class(fs_type), SNAPSHOT_CLASS, claim)
    daemon.declare_ready(using("data"))
    place = place_of(daemon, using("data"))
    with Writer(place / "log") as writer:
        until(lambda: writer.durable > 20)
        before = writer.durable
        daemon.declare(snapshot)
        wait_taken(daemon, snapshot)
        after = writer.durable
        until(lambda: writer.durable > after + 5)
    copy = a_claim("copy", size, from_snapshot("data"))
    clone = a_claim("clone", size, {"kind": "PersistentVolumeClaim", "name": "data"})
    daemon.declare(copy, clone)
    for name in ("copy", "clone"):
        daemon.declare_ready(using(name))
    lines = (place_of(daemon, using("copy")) / "log").read_text().split()
    assert lines == [str(number) for number in range(len(lines))]
    assert before < len(lines) <= after + 2
    # All three are mounted at once, and none shows what is written to another.
    (place_of(daemon, using("copy")) / "own").write_text("copy")
    (place_of(daemon, using("clone")) / "own").write_text("clone")
    assert not (place / "own").exists()
    assert (place_of(daemon, using("copy")) / "own").read_text() == "copy"
    daemon.delete_gone(*(using(name) for name in ("data", "copy", "clone")))
    daemon.delete_gone(snapshot, copy, clone, claim)
    until(lambda: not list(daemon.images.glob("[ps]*")), told=daemon.read_log)


def test_volume_in_use_is_not_copied_where_blocks_cannot_be_shared(daemon: Daemon) -> None:
    if os.statvfs(daemon.base).f_bsize and _shares_blocks(daemon.base):
        pytest.skip("the scratch directory is on a file system with reflinks: nothing to refuse")
    claim, snapshot, web = a_claim("data", "32Mi"), a_snapshot("data"), using("data")
    daemon.declare(a_class("ext4"), SNAPSHOT_CLASS, claim)
    daemon.declare_ready(web)
    (place_of(daemon, web) / "note").write_text("kept")
    daemon.declare(snapshot)
    content = until(lambda: daemon.get(snapshot).get("status", {}).get(
        "boundVolumeSnapshotContentName"))  # fmt: skip
    about = {"kind": "VolumeSnapshotContent", "apiVersion": API, "metadata": {"name": content}}
    daemon.wait_event(about, "SnapshotCreationFailed", "is in use", "delete the pods")
    assert not daemon.get(snapshot)["status"].get("readyToUse")
    daemon.delete_gone(web)
    daemon.delete_gone(snapshot)
    daemon.declare(snapshot)
    wait_taken(daemon, snapshot)
    daemon.delete_gone(snapshot, claim)
    until(lambda: not list(daemon.images.glob("[ps]*")), told=daemon.read_log)


def _shares_blocks(directory: Path) -> bool:
    source, target = directory / "a", directory / "b"
    source.write_bytes(b"x" * 4096)
    done = subprocess.run(
        ["cp", "--reflink=always", source, target], capture_output=True, check=False
    )
    source.unlink()
    target.unlink(missing_ok=True)
    return done.returncode == 0


def test_copy_that_was_cut_off_by_a_kill_is_made_whole_and_nothing_else_is_left(
    daemon: Daemon,
) -> None:
    claim, snapshot, web = a_claim("data", "400Mi"), a_snapshot("data"), using("data")
    daemon.declare(a_class("ext4"), SNAPSHOT_CLASS, claim)
    daemon.declare_ready(web)
    with open(place_of(daemon, web) / "big", "wb") as file:
        for _ in range(300):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())
    daemon.delete_gone(web)
    daemon.declare(snapshot)
    until(lambda: list(daemon.images.glob("snapshot-*")), told=daemon.read_log)
    time.sleep(0.05)  # somewhere in the middle; every moment has to do
    daemon.restart()
    wait_taken(daemon, snapshot)
    (image,) = daemon.images.glob("snapshot-*/disk.img")
    (original,) = daemon.images.glob("pvc-*/disk.img")
    assert subprocess.run(["cmp", image, original], check=False).returncode == 0
    assert sorted(each.name for each in image.parent.iterdir()) == ["disk.img"]
    daemon.delete_gone(snapshot, claim)
    until(lambda: not list(daemon.images.glob("[ps]*")), told=daemon.read_log)
