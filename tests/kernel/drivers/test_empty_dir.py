"""emptyDir on this kernel: modes, owners, and limits that the kernel enforces."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.contract.drivers.worlds import drivers_on
from volagent.drivers.contract import DriverName, Publication, VolumeKey, VolumeSource, VolumeSpec
from volagent.drivers.errors import Transient
from volagent.drivers.layout import Layout
from volagent.host.contract import Host
from volagent.objects.meta import PodUid

UID = PodUid("0f8fad5b-d9cb-469f-a165-70867728950e")
EMPTY_DIR = DriverName("kubernetes.io/empty-dir")
GROUP = 4242


class Volume:
    def __init__(self, host: Host, scratch: Path, body, fs_group=None):
        self.driver = drivers_on(host)[EMPTY_DIR]
        options = self.driver.read_options(VolumeSource("emptyDir", body))
        self.spec = VolumeSpec(VolumeKey(f"pod/{UID}/v"), EMPTY_DIR, "v", options)
        self.path = Path(Layout(str(scratch)).volume(UID, EMPTY_DIR, "v"))
        self.use = Publication(UID, "shop/web", str(self.path), fs_group=fs_group)

    async def publish(self):
        return await self.driver.publish(self.spec, self.use, staged=None, device=None)

    async def unpublish(self, held):
        await self.driver.unpublish(held)
        assert not self.path.exists()


@pytest.fixture
def umask():
    old = os.umask(0o077)  # the strictest that anybody runs a daemon with
    yield
    os.umask(old)


@pytest.mark.parametrize(
    ("body", "fs_group", "mode"),
    [
        ({}, None, 0o777),
        ({}, GROUP, 0o2777),
        ({"medium": "Memory"}, None, 0o1777),
        ({"medium": "Memory"}, GROUP, 0o3777),
    ],
)
async def test_modes_are_those_of_a_kubelet(real_host, scratch, umask, body, fs_group, mode):
    volume = Volume(real_host, scratch, body, fs_group)
    done = await volume.publish()
    found = volume.path.stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert (found.st_uid, found.st_gid) == (0, fs_group or 0)
    parents = [stat.S_IMODE(p.stat().st_mode) for p in list(volume.path.parents)[:3]]
    assert parents == [0o755, 0o750, 0o750]
    await volume.unpublish(done.mount)


async def test_files_get_the_group_when_the_pod_has_one(real_host, scratch):
    for body in ({}, {"medium": "Memory"}):
        volume = Volume(real_host, scratch, body, GROUP)
        done = await volume.publish()
        (volume.path / "file").touch()
        assert (volume.path / "file").stat().st_gid == GROUP
        await volume.unpublish(done.mount)


async def test_memory_is_full_when_its_limit_is_reached(real_host, scratch):
    volume = Volume(real_host, scratch, {"medium": "Memory", "sizeLimit": "1Mi"})
    done = await volume.publish()
    (volume.path / "fits").write_bytes(bytes(1 << 20))
    with pytest.raises(OSError, match="No space left") as caught:
        (volume.path / "more").write_bytes(b"x")
    assert caught.value.errno == errno.ENOSPC
    assert os.statvfs(volume.path).f_blocks * os.statvfs(volume.path).f_frsize == 1 << 20
    await volume.unpublish(done.mount)


async def test_memory_has_no_devices_and_no_setuid(real_host, scratch):
    volume = Volume(real_host, scratch, {"medium": "Memory"})
    done = await volume.publish()
    entry = real_host.mounts.find_mount(done.mount.mount_id)
    assert entry is not None
    assert entry.fs_type == "tmpfs"
    assert {"nosuid", "nodev"} <= set(entry.options)
    assert "noexec" not in entry.options
    await volume.unpublish(done.mount)


async def test_huge_pages_are_mounted_with_their_size(real_host, scratch):
    if not Path("/sys/kernel/mm/hugepages/hugepages-2048kB").exists():
        pytest.skip("this kernel has no huge pages of 2 MiB (CONFIG_HUGETLBFS would enable them)")
    volume = Volume(real_host, scratch, {"medium": "HugePages-2Mi", "sizeLimit": "8Mi"}, GROUP)
    done = await volume.publish()
    entry = real_host.mounts.find_mount(done.mount.mount_id)
    assert entry is not None
    assert entry.fs_type == "hugetlbfs"
    assert "pagesize=2M" in entry.super_options
    assert os.statvfs(volume.path).f_bsize == 2 << 20
    assert stat.S_IMODE(volume.path.stat().st_mode) == 0o2777
    assert volume.path.stat().st_gid == GROUP
    await volume.unpublish(done.mount)


async def test_large_tree_is_removed_and_nothing_outside_of_it(real_host, scratch):
    volume = Volume(real_host, scratch, {})
    done = await volume.publish()
    outside = scratch / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (volume.path / "link").symlink_to(outside)
    for number in range(100):
        (volume.path / f"d{number}").mkdir()
        (volume.path / f"d{number}" / "file").write_text("x")
    await volume.unpublish(done.mount)
    assert (outside / "precious").read_text() == "x"


async def test_directory_is_left_alone_when_something_is_mounted_inside(real_host, scratch):
    volume = Volume(real_host, scratch, {})
    done = await volume.publish()
    inner = Volume(real_host, scratch, {"medium": "Memory"})
    inner.use = Publication(UID, "shop/web", str(volume.path / "inner" / "deep"))
    inner.path = volume.path / "inner" / "deep"
    held = await inner.publish()
    (inner.path / "precious").write_text("x")
    with pytest.raises(Transient, match="EBUSY"):
        await volume.driver.unpublish(done.mount)
    assert (inner.path / "precious").read_text() == "x"
    await inner.unpublish(held.mount)
    await volume.unpublish(done.mount)
