"""Image files and local directories as volumes: kept, formatted once, grown, never overwritten."""

import hashlib
import os
import struct
import subprocess
from pathlib import Path

import pytest

from tests.cluster.manifests import bound_pair, claim_volume, image_source, pod
from tests.kernel.daemon.harness import Daemon, Json, until

MIB = 1 << 20


def run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.strip()


def uuid_of(image: Path) -> str:
    return run("blkid", "-p", "-s", "UUID", "-o", "value", str(image))


def digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def blank_image(file: Path, size_bytes: int = 64 * MIB) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as image:
        image.truncate(size_bytes)
    return file


def web_with(name: str = "data", **more: object) -> Json:
    return pod("web", [claim_volume("data", name, **more)])


def data_of(home: Path) -> Path:
    return home / "volumes/kubernetes.io~csi/pv-data/mount"


@pytest.mark.parametrize("fs_type", ["ext4", "xfs", "btrfs"])
def test_image_is_formatted_once_and_its_data_outlives_the_pod(
    daemon: Daemon, fs_type: str
) -> None:
    capacity = {"ext4": "64Mi", "xfs": "320Mi", "btrfs": "128Mi"}[fs_type]
    source = image_source("data", "data.img", fs_type)
    daemon.declare(*bound_pair("data", source, capacity=capacity))
    web, image = web_with(), daemon.images / "data.img"
    (home,) = daemon.declare_ready(web)
    assert {fs for _, fs, _ in daemon.mounts().values()} == {fs_type}
    (data_of(home) / "note").write_text("kept")
    uuid = uuid_of(image)

    daemon.delete_gone(web)

    until(lambda: not daemon.loop_files())  # the device goes after the pod
    assert daemon.mounts() == {}
    (home,) = daemon.declare_ready(web)
    assert (data_of(home) / "note").read_text() == "kept"
    assert uuid_of(image) == uuid


def test_two_pods_share_one_global_mount(daemon: Daemon) -> None:
    daemon.declare(*bound_pair("data", image_source("data", "data.img")))
    one, two = (pod(name, [claim_volume("data", "data")]) for name in ("one", "two"))
    first, second = daemon.declare_ready(one, two)
    (data_of(first) / "note").write_text("seen")

    daemon.delete_gone(one)

    assert (data_of(second) / "note").read_text() == "seen"
    assert len(daemon.mounts()) == 2
    assert len(daemon.loop_files()) == 1


def size_of(volume: Path) -> int:
    found = os.statvfs(volume)
    return found.f_blocks * found.f_frsize


# xfs: ext4 grows online only with CAP_SYS_RESOURCE, which root does not have on every machine.
def test_volume_grows_while_it_is_mounted(daemon: Daemon) -> None:
    volume, claim = bound_pair("data", image_source("data", "data.img", "xfs"), capacity="320Mi")
    daemon.declare(volume, claim)
    (home,) = daemon.declare_ready(web_with())
    (data_of(home) / "note").write_text("kept")
    before = daemon.mounts()
    assert size_of(data_of(home)) < 320 * MIB

    daemon.patch(volume, {"spec": {"capacity": {"storage": "512Mi"}}})

    until(lambda: size_of(data_of(home)) > 400 * MIB, told=daemon.read_log)
    assert daemon.mounts() == before
    assert (data_of(home) / "note").read_text() == "kept"
    assert (daemon.images / "data.img").stat().st_size == 512 * MIB


def test_volume_that_was_to_grow_when_the_daemon_was_killed_has_grown_after_its_restart(
    daemon: Daemon,
) -> None:
    volume, claim = bound_pair("data", image_source("data", "data.img", "xfs"), capacity="320Mi")
    daemon.declare(volume, claim)
    (home,) = daemon.declare_ready(web_with())
    before = daemon.mounts()

    daemon.patch(volume, {"spec": {"capacity": {"storage": "512Mi"}}})
    daemon.restart()

    until(lambda: size_of(data_of(home)) > 400 * MIB, told=daemon.read_log)
    assert daemon.mounts() == before


def as_xfs(image: Path) -> None:
    blank_image(image, 320 * MIB)
    run("mkfs.xfs", "-q", str(image))


def as_swap(image: Path) -> None:
    blank_image(image)
    run("mkswap", "-q", str(image))


def as_partitioned(image: Path) -> None:
    blank_image(image)
    with open(image, "r+b") as file:  # one Linux partition in a DOS table
        file.seek(446)
        file.write(struct.pack("<B3sB3sII", 0, b"\0\2\0", 0x83, b"\0\2\0", 2048, 65536))
        file.seek(510)
        file.write(b"\x55\xaa")


FOREIGN = {
    "xfs": (as_xfs, ("holds xfs", "fsType is ext4", "set fsType to xfs")),
    "swap": (as_swap, ("swap", "no file system", "wipefs -a")),
    "partitions": (as_partitioned, ("no file system", "wipefs -a")),
}


@pytest.mark.parametrize("content", FOREIGN)
def test_image_with_something_else_on_it_is_told_and_not_touched(
    daemon: Daemon, content: str
) -> None:
    make, words = FOREIGN[content]
    image = daemon.images / "data.img"
    make(image)
    before = digest_of(image)
    capacity = f"{image.stat().st_size // MIB}Mi"
    daemon.declare(*bound_pair("data", image_source("data", "data.img"), capacity=capacity))
    web = web_with()
    daemon.declare(web)

    daemon.wait_blocked(web, str(image), *words)

    daemon.wait_event(web, "FailedMount", str(image), *words)
    assert daemon.mounts() == {}
    daemon.delete_gone(web)
    until(lambda: not daemon.loop_files())  # the device goes after the pod
    assert digest_of(image) == before


def test_damaged_image_is_told_and_not_formatted(daemon: Daemon) -> None:
    """`e2fsck -p` may have repaired what is safe to repair, so bytes are not compared."""
    image = blank_image(daemon.images / "data.img")
    run("mkfs.ext4", "-q", "-F", str(image))
    uuid = uuid_of(image)
    with open(image, "r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (400 * 4096))
    daemon.declare(*bound_pair("data", image_source("data", "data.img")))
    web = web_with()
    daemon.declare(web)
    words = (str(image), "damaged", "copy it first", "e2fsck -f")

    daemon.wait_blocked(web, *words)

    daemon.wait_event(web, "FailedMount", *words)
    assert daemon.mounts() == {}
    daemon.delete_gone(web)
    assert uuid_of(image) == uuid


def test_blank_image_of_a_read_only_volume_is_told_and_not_formatted(daemon: Daemon) -> None:
    image = blank_image(daemon.images / "data.img")
    before = digest_of(image)
    source = image_source("data", "data.img")
    source["csi"]["readOnly"] = True
    daemon.declare(*bound_pair("data", source))
    web = web_with()
    daemon.declare(web)

    daemon.wait_blocked(web, str(image), "blank", "read-only", "declare it writable once")

    daemon.delete_gone(web)
    assert digest_of(image) == before


def test_unknown_file_system_is_refused_by_name(daemon: Daemon) -> None:
    daemon.declare(*bound_pair("data", image_source("data", "data.img", "ext5")))
    web = web_with()
    daemon.declare(web)

    daemon.wait_blocked(web, "'ext5'", "one of ext4, xfs, btrfs")
    daemon.wait_event(web, "FailedMount", "'ext5'")
    assert not (daemon.images / "data.img").exists()


def test_claim_that_is_used_read_only_cannot_be_written(daemon: Daemon) -> None:
    daemon.declare(*bound_pair("data", image_source("data", "data.img")))
    (home,) = daemon.declare_ready(web_with(readOnly=True))

    with pytest.raises(OSError, match="Read-only"):
        (data_of(home) / "note").write_text("no")


def test_raw_device_is_linked_and_nothing_is_written_to_it(daemon: Daemon) -> None:
    volume, claim = bound_pair("data", image_source("data", "data.img"))
    for document in (volume, claim):
        document["spec"]["volumeMode"] = "Block"
    daemon.declare(volume, claim)
    web = pod("web", [claim_volume("data", "data")], mounts=[])
    web["spec"]["containers"][0]["volumeDevices"] = [{"name": "data", "devicePath": "/dev/xvda"}]

    (home,) = daemon.declare_ready(web)

    (link,) = (home / "volumeDevices").glob("*/*")
    assert link.is_symlink()
    assert link.is_block_device()
    assert not any((daemon.images / "data.img").read_bytes())
    told = daemon.ask_node("mounts", web)["containers"][0]
    assert str(link.readlink()) in str(told)
    with open(link, "r+b") as device:
        device.write(b"raw")
        os.fsync(device.fileno())
    daemon.delete_gone(web)
    until(lambda: not daemon.loop_files())  # the device goes after the pod
    assert (daemon.images / "data.img").read_bytes()[:3] == b"raw"


def local_pair(daemon: Daemon, path: Path) -> tuple[Json, Json]:
    volume, claim = bound_pair("data", {"local": {"path": str(path)}})
    volume["spec"]["nodeAffinity"] = {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["vm1"]},
        ]},
    ]}}  # fmt: skip
    return volume, claim


def test_local_directory_is_bound_and_keeps_its_data(daemon: Daemon) -> None:
    disk = daemon.base / "disk"
    disk.mkdir()
    daemon.declare(*local_pair(daemon, disk))
    web = web_with()
    (home,) = daemon.declare_ready(web)
    place = home / "volumes/kubernetes.io~local-volume/pv-data"
    (place / "note").write_text("kept")

    daemon.delete_gone(web)

    assert (disk / "note").read_text() == "kept"
    assert daemon.mounts() == {}
    (home,) = daemon.declare_ready(web)
    assert (home / "volumes/kubernetes.io~local-volume/pv-data/note").read_text() == "kept"


def test_missing_local_directory_is_told_and_mounted_when_it_is_made(daemon: Daemon) -> None:
    disk = daemon.base / "disk"
    daemon.declare(*local_pair(daemon, disk))
    web = web_with()
    daemon.declare(web)
    daemon.wait_blocked(web, f'path "{disk}" does not exist', "on this node")

    disk.mkdir()

    daemon.wait_ready(web)


@pytest.mark.parametrize("policy", ["Always", "OnRootMismatch"])
def test_group_is_given_by_policy(daemon: Daemon, policy: str) -> None:
    disk = daemon.base / "disk"
    (disk / "deep").mkdir(parents=True)
    (disk / "deep/file").write_text("x")
    (disk / "deep/file").chmod(0o600)
    daemon.declare(*local_pair(daemon, disk))
    web = pod(
        "web", [claim_volume("data", "data")],
        securityContext={"fsGroup": 2345, "fsGroupChangePolicy": policy},
    )  # fmt: skip
    daemon.declare_ready(web)
    for path in (disk, disk / "deep", disk / "deep/file"):
        assert path.stat().st_gid == 2345
    assert (disk / "deep").stat().st_mode & 0o2070 == 0o2070
    assert (disk / "deep/file").stat().st_mode & 0o777 == 0o660

    daemon.delete_gone(web)
    os.chown(disk / "deep/file", 0, 0)
    daemon.declare_ready(web)

    assert (disk / "deep/file").stat().st_gid == (2345 if policy == "Always" else 0)
