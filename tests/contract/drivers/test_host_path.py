"""hostPath: checked, made when asked, handed over as it is, and otherwise left alone."""

import asyncio

import pytest

from tests.contract.drivers.worlds import FakeWorld, drivers_on
from tests.simulation.virtual_time import run_virtually
from volagent.drivers.contract import (
    DriverName,
    Publication,
    VolumeKey,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.host_path import INSPECT_TIMEOUT_S
from volagent.objects.meta import PodUid

UID = PodUid("0f8fad5b-d9cb-469f-a165-70867728950e")


def host_path(world, path, kind=None):
    driver = drivers_on(world.host)[DriverName("kubernetes.io/host-path")]
    options = driver.read_options(VolumeSource("hostPath", {"path": path, "type": kind}))
    key, backend = VolumeKey(f"pod/{UID}/v"), driver.backend(options)
    return driver, VolumeSpec(key, driver.name, "v", options, backend=backend)


async def publish_host_path(world, path, kind=None):
    driver, volume = host_path(world, path, kind)
    use = Publication(UID, "shop/web", "")
    return await driver.publish(volume, use, staged=None, device=None)


async def test_host_path_is_handed_over_as_it_is_and_left_as_it_is(world):
    world.host.trees.ensure_dir(f"{world.root}/data", mode=0o700)
    world.write(f"{world.root}/data/file", b"x")
    done = await publish_host_path(world, f"{world.root}//data/", "Directory")
    assert done.mount.path == f"{world.root}/data"
    assert done.mount.mount_id == 0
    driver, _ = host_path(world, "/x")
    await driver.unpublish(done.mount)
    assert world.files(f"{world.root}/data") == {"file": b"x"}


async def test_host_path_is_not_looked_at_when_it_has_no_type(world):
    for kind in (None, ""):
        done = await publish_host_path(world, f"{world.root}/none", kind)
        assert done.mount.path == f"{world.root}/none"
        assert not world.exists(f"{world.root}/none")


@pytest.mark.parametrize("kind", ["Directory", "File", "Socket", "CharDevice", "BlockDevice"])
async def test_host_path_is_called_missing_when_it_is(world, kind):
    with pytest.raises(Transient) as caught:
        await publish_host_path(world, f"{world.root}/none", kind)
    assert str(caught.value) == f"hostPath type check failed: {world.root}/none does not exist"


async def test_host_path_is_made_when_its_type_says_so(world):
    done = await publish_host_path(world, f"{world.root}/a/b", "DirectoryOrCreate")
    assert "made now" in done.evidence
    await publish_host_path(world, f"{world.root}/a/b/f", "FileOrCreate")
    assert world.files(f"{world.root}/a") == {"b/f": b""}
    world.write(f"{world.root}/a/b/f", b"kept")
    for path, kind in (("a/b", "DirectoryOrCreate"), ("a/b/f", "FileOrCreate")):
        done = await publish_host_path(world, f"{world.root}/{path}", kind)
        assert "made now" not in done.evidence
    assert world.files(f"{world.root}/a") == {"b/f": b"kept"}


def test_host_path_is_given_up_when_a_dead_server_is_behind_it():
    async def use_dead_path():
        world = FakeWorld()
        world.kernel.hung.add("hostPath:/mnt/dead")
        await publish_host_path(world, "/mnt/dead")  # not looked at
        async with asyncio.timeout(INSPECT_TIMEOUT_S + 1):
            with pytest.raises(Uncertain, match="ETIMEDOUT"):
                await publish_host_path(world, "/mnt/dead", "Directory")

    run_virtually(use_dead_path())


@pytest.mark.parametrize(
    ("kind", "words"),
    [("File", "a file"), ("FileOrCreate", "a file"), ("Socket", "a socket file")],
)
async def test_host_path_is_refused_when_something_else_is_there(world, kind, words):
    world.host.trees.ensure_dir(f"{world.root}/d", mode=0o755)
    with pytest.raises(Transient, match=f"{world.root}/d is not {words} \\(it is a directory\\)"):
        await publish_host_path(world, f"{world.root}/d", kind)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"path": "relative"}, "must be an absolute path"),
        ({"path": ""}, "must be an absolute path"),
        ({"path": "/a\0b"}, "must be an absolute path"),
        ({"path": "/a/../b"}, "must not contain '..'"),
        ({"path": "/a", "type": "Folder"}, "Folder is an invalid volume type"),
        ({"type": "File"}, "missing required field `path`"),
        ({"path": "/a", "color": "red"}, "unknown field `color`"),
    ],
)
def test_host_path_is_rejected_when_declared_wrongly(world, body, words):
    driver, _ = host_path(world, "/x")
    with pytest.raises(Rejected, match=words):
        driver.read_options(VolumeSource("hostPath", body))
