"""hostPath on this kernel: every `type`, with real sockets and devices."""

import os
import socket
import stat

import pytest

from tests.contract.drivers.worlds import drivers_on
from volagent.drivers.contract import DriverName, Publication, VolumeKey, VolumeSource, VolumeSpec
from volagent.drivers.errors import Transient
from volagent.host.contract import FileKind
from volagent.objects.meta import PodUid

HOST_PATH = DriverName("kubernetes.io/host-path")
THINGS = ("directory", "file", "socket", "character device", "block device", "fifo")
ACCEPTS = {
    "Directory": "directory",
    "DirectoryOrCreate": "directory",
    "File": "file",
    "FileOrCreate": "file",
    "Socket": "socket",
    "CharDevice": "character device",
    "BlockDevice": "block device",
}


async def publish(host, path, kind):
    driver = drivers_on(host)[HOST_PATH]
    options = driver.read_options(VolumeSource("hostPath", {"path": str(path), "type": kind}))
    backend = driver.backend(options)
    volume = VolumeSpec(VolumeKey("pod/u/v"), HOST_PATH, "v", options, backend=backend)
    use = Publication(PodUid("u"), "shop/web", "")
    return await driver.publish(volume, use, staged=None, device=None)


def make(thing, path):
    match thing:
        case "directory":
            path.mkdir()
        case "file":
            path.write_text("x")
        case "socket":
            with socket.socket(socket.AF_UNIX) as end:
                end.bind(str(path))
        case "character device":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        case "block device":
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 200))
        case "fifo":
            os.mkfifo(path)


@pytest.mark.parametrize("kind", ACCEPTS)
@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("linked", [False, True])
async def test_type_accepts_exactly_its_kind_also_through_a_link(
    real_host, scratch, kind, thing, linked
):
    make(thing, scratch / "thing")
    path = scratch / "thing"
    if linked:
        path = scratch / "link"
        path.symlink_to("thing")
    if ACCEPTS[kind] == thing:
        assert (await publish(real_host, path, kind)).mount.path == str(path)
    else:
        with pytest.raises(Transient, match=rf"is not a .* \(it is a {thing}\)"):
            await publish(real_host, path, kind)


async def test_created_directories_and_files_have_the_kubelets_modes(real_host, scratch):
    old = os.umask(0o077)
    try:
        await publish(real_host, scratch / "a" / "b", "DirectoryOrCreate")
        await publish(real_host, scratch / "a" / "file", "FileOrCreate")
    finally:
        os.umask(old)
    modes = [stat.S_IMODE((scratch / name).stat().st_mode) for name in ("a", "a/b", "a/file")]
    assert modes == [0o755, 0o755, 0o644]


async def test_path_is_made_through_a_link_that_a_user_named(real_host, scratch):
    (scratch / "run").mkdir()
    (scratch / "var").symlink_to("run")
    await publish(real_host, scratch / "var" / "a" / "b", "DirectoryOrCreate")
    await publish(real_host, scratch / "var" / "file", "FileOrCreate")
    assert (scratch / "run" / "a" / "b").is_dir()
    assert (scratch / "run" / "file").is_file()


async def test_file_is_not_made_when_its_directory_is_missing(real_host, scratch):
    with pytest.raises(Transient, match=f"{scratch}/none does not exist") as caught:
        await publish(real_host, scratch / "none" / "file", "FileOrCreate")
    assert caught.value.remedy == f"make the directory {scratch}/none on this node"
    assert not (scratch / "none").exists()


async def test_dangling_link_is_missing(real_host, scratch):
    (scratch / "link").symlink_to("nowhere")
    with pytest.raises(Transient, match="does not exist"):
        await publish(real_host, scratch / "link", "Directory")


async def test_path_below_a_file_is_missing(real_host, scratch):
    (scratch / "file").touch()
    with pytest.raises(Transient, match="does not exist"):
        await publish(real_host, scratch / "file" / "x", "File")


async def test_path_is_looked_at_by_a_child_when_the_kernel_has_not_cached_it(real_host):
    """Directories of /proc are not in the cache before the first look."""
    trees = real_host.trees
    seen = {
        await trees.inspect_slowly(path, backend="hostPath:/proc", timeout_s=20.0)
        for path in (f"/proc/{os.getppid()}/attr", f"/proc/{os.getppid()}/map_files")
    }
    assert seen == {FileKind.DIRECTORY}
    missing = f"/proc/{os.getppid()}/nothing"
    assert await trees.inspect_slowly(missing, backend="hostPath:/proc", timeout_s=20.0) is None
