"""Secrets and their like on this kernel: layout, modes, and updates that are never seen half."""

import os
import stat
import threading
from pathlib import Path

import pytest

from tests.contract.drivers.worlds import drivers_on
from volagent.drivers.contract import DriverName, Publication, VolumeKey, VolumeSource, VolumeSpec
from volagent.drivers.layout import Layout
from volagent.host.contract import Payload, PayloadFile
from volagent.objects.meta import PodUid

UID = PodUid("0f8fad5b-d9cb-469f-a165-70867728950e")
GROUP = 4242
IN_MEMORY = {
    "secret": "kubernetes.io/secret",
    "downwardAPI": "kubernetes.io/downward-api",
    "projected": "kubernetes.io/projected",
}
ALL = {**IN_MEMORY, "configMap": "kubernetes.io/configmap"}
PAYLOAD = Payload(
    (
        PayloadFile("user", b"root", 0o644),
        PayloadFile("none", b"", 0),
        PayloadFile("d/e/x", b"1", 0o400),
        PayloadFile("token", b"jwt", 0o600, uid=1000),
    ),
    "a" * 32,
)


class Volume:
    def __init__(self, host, scratch, kind, fs_group=None):
        self.name = DriverName(ALL[kind])
        self.driver = drivers_on(host)[self.name]
        options = self.driver.read_options(VolumeSource(kind, {}))
        self.spec = VolumeSpec(VolumeKey(f"pod/{UID}/v"), self.name, "v", options)
        self.path = Path(Layout(str(scratch)).volume(UID, self.name, "v"))
        self.fs_group = fs_group

    async def publish(self, payload=PAYLOAD):
        use = Publication(UID, "shop/web", str(self.path), payload=payload, fs_group=self.fs_group)
        return await self.driver.publish(self.spec, use, staged=None, device=None)

    async def unpublish(self, held):
        await self.driver.unpublish(held)
        assert not self.path.exists()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("fs_group", [None, GROUP])
@pytest.mark.parametrize("kind", ALL)
async def test_layout_and_modes_are_those_of_a_kubelet(real_host, scratch, kind, fs_group):
    volume = Volume(real_host, scratch, kind, fs_group)
    done = await volume.publish()
    root, group = volume.path, fs_group or 0
    sticky = 0o1000 if kind in IN_MEMORY else 0
    assert mode_of(root) == 0o777 | sticky | (0o2000 if fs_group else 0)
    assert root.stat().st_gid == group
    assert mode_of(root.parent) == 0o755
    visible = {name for name in os.listdir(root) if not name.startswith("..")}
    assert visible == {"user", "none", "d", "token"}
    assert {name: os.readlink(root / name) for name in visible} == {
        name: f"..data/{name}" for name in visible
    }
    data = root / os.readlink(root / "..data")
    assert data.name.startswith("..")
    assert mode_of(data) & 0o777 == 0o755
    extra = 0o440 if fs_group else 0
    modes = {name: mode_of(root / name) for name in ("user", "none", "d/e/x", "token")}
    assert modes == {
        "user": 0o644 | extra, "none": extra, "d/e/x": 0o400 | extra, "token": 0o600 | extra,
    }  # fmt: skip
    assert (root / "token").stat().st_uid == 1000
    assert {(root / name).stat().st_gid for name in modes} == {group}
    assert mode_of(root / "d" / "e") & 0o777 == 0o755
    await volume.unpublish(done.mount)


@pytest.mark.parametrize("kind", IN_MEMORY)
async def test_secrets_stand_in_memory_and_are_kept_out_of_swap(real_host, scratch, kind):
    volume = Volume(real_host, scratch, kind)
    done = await volume.publish()
    entry = real_host.mounts.find_mount(done.mount.mount_id)
    assert entry is not None
    assert (entry.fs_type, entry.mount_point) == ("tmpfs", str(volume.path))
    if tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 4):
        assert "noswap" in entry.super_options
    await volume.unpublish(done.mount)


async def test_config_map_is_a_plain_directory(real_host, scratch):
    volume = Volume(real_host, scratch, "configMap")
    done = await volume.publish()
    assert done.mount.mount_id == 0
    assert real_host.mounts.find_mount_at(str(volume.path)) is None
    assert volume.path.stat().st_dev == scratch.stat().st_dev
    await volume.unpublish(done.mount)


async def test_update_leaves_no_old_directory_and_no_stale_link(real_host, scratch):
    volume = Volume(real_host, scratch, "secret")
    await volume.publish()
    done = await volume.publish(Payload((PayloadFile("only", b"1", 0o644),), "b" * 32))
    names = os.listdir(volume.path)
    assert sorted(n for n in names if not n.startswith("..")) == ["only"]
    assert len(names) == 3  # with ..data and the directory that it points to
    await volume.unpublish(done.mount)


def numbered(number: int) -> Payload:
    """Two files that always carry the same number, and one that comes and goes."""
    text = str(number).encode()
    files = [PayloadFile("a", text, 0o644), PayloadFile("b", text, 0o644)]
    if number % 2:
        files.append(PayloadFile("odd", text, 0o644))
    return Payload(tuple(files), f"{number:032d}")


class Reader(threading.Thread):
    """Reads as a careful application does: both files by way of one look at `..data`."""

    def __init__(self, root: Path):
        super().__init__()
        self.root, self.mixed, self.rounds = root, [], 0
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            try:
                data = os.open(self.root / "..data", os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:  # replaced between the link and the directory: look again
                if not os.path.islink(self.root / "..data"):
                    self.mixed.append("..data is missing")
                continue
            try:
                seen = [self.read(data, name) for name in ("a", "b")]
            except FileNotFoundError:
                continue  # the directory was replaced and removed meanwhile: look again
            finally:
                os.close(data)
            self.rounds += 1
            if len(set(seen)) != 1:
                self.mixed.append(seen)

    @staticmethod
    def read(data, name):
        fd = os.open(name, os.O_RDONLY, dir_fd=data)
        try:
            return os.read(fd, 100)
        finally:
            os.close(fd)


@pytest.mark.parametrize("kind", ["secret", "configMap"])
async def test_reader_never_sees_a_mixture_when_the_content_changes(real_host, scratch, kind):
    volume = Volume(real_host, scratch, kind)
    await volume.publish(numbered(0))
    reader = Reader(volume.path)
    reader.start()
    try:
        number = 0
        while number < 300 or (reader.rounds < 100 and reader.is_alive()):
            number += 1
            done = await volume.publish(numbered(number))
    finally:
        reader.stopping.set()
        reader.join()
    assert reader.mixed == []
    assert (volume.path / "a").read_text() == str(number)
    assert (volume.path / "odd").exists() is bool(number % 2)
    await volume.unpublish(done.mount)


async def test_missing_payload_file_content_is_never_followed_out_of_the_volume(real_host, scratch):
    """A container with write access puts a link where a file is going to be."""
    volume = Volume(real_host, scratch, "configMap")
    await volume.publish()
    outside = scratch / "outside"
    outside.write_text("untouched")
    (volume.path / "user").unlink()
    (volume.path / "user").symlink_to(outside)
    done = await volume.publish(Payload((PayloadFile("user", b"new", 0o644),), "c" * 32))
    assert (volume.path / "user").read_bytes() == b"new"
    assert outside.read_text() == "untouched"
    await volume.unpublish(done.mount)
