"""Local disks of a real machine: offered, used by a pod, emptied and offered again."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.daemon.harness import Daemon, Json, until

DISK_MIB = 64
CLASS: Json = {
    "kind": "StorageClass",
    "apiVersion": "storage.k8s.io/v1",
    "metadata": {"name": "local-ssd"},
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}
CLAIM: Json = {
    "kind": "PersistentVolumeClaim",
    "apiVersion": "v1",
    "metadata": {"name": "data"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "local-ssd",
        "resources": {"requests": {"storage": "10Mi"}},
    },
}
POD: Json = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "web"},
    "spec": {
        "containers": [{
            "name": "main", "image": "busybox:stable",
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        }],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    },
}  # fmt: skip


def run(*argv: str) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


@pytest.fixture
def disks(stopped: Daemon) -> Iterator[Path]:
    """A directory into which the test mounts disks; they are given back."""
    directory = stopped.base / "disks"
    directory.mkdir()
    devices: list[str] = []
    try:
        yield directory
    finally:
        for point in directory.iterdir():
            subprocess.run(["umount", str(point)], check=False, capture_output=True)
        for image in (stopped.base).glob("disk-*.img"):
            devices += run("losetup", "-n", "-O", "NAME", "-j", str(image)).split()
        for device in devices:
            run("losetup", "-d", device)


def mount_disk(stopped: Daemon, disks: Path, name: str) -> Path:
    image, point = stopped.base / f"disk-{name}.img", disks / name
    with open(image, "wb") as file:
        file.truncate(DISK_MIB << 20)
    run("mkfs.ext4", "-q", str(image))
    device = run("losetup", "--find", "--show", str(image))
    point.mkdir()
    run("mount", device, str(point))
    return point


def settings(disks: Path) -> str:
    return f'[[discovery]]\ndirectory = "{disks}"\nstorage_class = "local-ssd"\n'


def volumes(daemon: Daemon) -> list[Json]:
    items: list[Json] = daemon.call("GET", "/api/v1/persistentvolumes")["items"]
    return items


def wait_available(daemon: Daemon) -> Json:
    def look() -> list[Json]:
        return [v for v in volumes(daemon) if v["status"]["phase"] == "Available"]

    return until(look, told=lambda: (volumes(daemon), daemon.read_log()))[0]


def test_disk_is_offered_used_emptied_and_offered_again(stopped: Daemon, disks: Path) -> None:
    stopped.start(settings=settings(disks))
    point = mount_disk(stopped, disks, "ssd1")  # while it runs: the mount table tells
    offered = wait_available(stopped)
    assert offered["spec"]["local"]["path"] == str(point)
    stopped.declare(CLASS, CLAIM)
    (home,) = stopped.declare_ready(POD)
    (target,) = (home / "volumes/kubernetes.io~local-volume").iterdir()
    (target / "secret").write_text("of the first claim")
    assert (point / "secret").exists()

    stopped.delete_gone(POD, CLAIM)
    again = until(
        lambda: [
            v
            for v in volumes(stopped)
            if v["status"]["phase"] == "Available"
            and v["metadata"]["uid"] != offered["metadata"]["uid"]
        ],
        told=lambda: (volumes(stopped), stopped.read_log()),
    )[0]

    assert again["metadata"]["name"] == offered["metadata"]["name"]
    assert [entry.name for entry in point.iterdir()] == ["lost+found"]


def test_directory_whose_disk_is_not_mounted_is_not_offered(stopped: Daemon, disks: Path) -> None:
    (disks / "late").mkdir()
    stopped.start(settings=settings(disks))
    until(lambda: "is its disk not mounted?" in stopped.read_log(), told=stopped.read_log)
    assert volumes(stopped) == []


def test_other_disk_at_the_place_is_reported_and_its_data_kept(
    stopped: Daemon, disks: Path
) -> None:
    point = mount_disk(stopped, disks, "ssd1")
    stopped.start(settings=settings(disks))
    offered = wait_available(stopped)
    run("umount", str(point))
    point.rmdir()
    other = mount_disk(stopped, disks, "ssd2")
    run("umount", str(other))
    other.rmdir()
    point.mkdir()
    device = run("losetup", "-n", "-O", "NAME", "-j", str(stopped.base / "disk-ssd2.img"))
    run("mount", device.split()[0], str(point))
    (point / "precious").write_text("of somebody else")

    stopped.delete({"kind": "PersistentVolume", "metadata": {"name": offered["metadata"]["name"]}})

    stopped.wait_event(offered, "LocalVolumeChanged", "not what it was")
    assert (point / "precious").exists()
