"""fsGroup on the real kernel."""

import os
import stat

import pytest

from volagent.host.contract import OwnershipPolicy, TmpfsOptions
from volagent.host.errors import Absent

_GID = 2345
ALWAYS = {"gid": _GID, "policy": OwnershipPolicy.ALWAYS, "timeout_s": 20.0}
ON_MISMATCH = {"gid": _GID, "policy": OwnershipPolicy.ON_ROOT_MISMATCH, "timeout_s": 20.0}


def look(path):
    found = os.lstat(path)
    return found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)


@pytest.fixture
def volume(scratch):
    root = scratch / "volume"
    (root / "directory").mkdir(parents=True)
    root.chmod(0o755)
    (root / "directory").chmod(0o700)
    (root / "file").touch()
    (root / "file").chmod(0o400)
    (root / "directory" / "program").touch()
    os.chown(root / "directory" / "program", 1000, 1000)
    (root / "directory" / "program").chmod(0o4755)
    (scratch / "outside").touch()
    (scratch / "outside").chmod(0o600)
    (root / "link").symlink_to("../outside")
    return root


async def test_everything_is_given_to_the_group_and_owners_stay(trees, volume):
    assert await trees.set_ownership(str(volume), **ALWAYS) == 4
    assert look(volume) == (0, _GID, 0o2775)
    assert look(volume / "directory") == (0, _GID, 0o2770)
    assert look(volume / "file") == (0, _GID, 0o660)
    assert look(volume / "directory" / "program") == (1000, _GID, 0o4775)


async def test_links_are_skipped_and_so_is_what_they_lead_to(trees, volume, scratch):
    before = look(volume / "link")
    await trees.set_ownership(str(volume), **ALWAYS)
    assert look(volume / "link") == before
    assert look(scratch / "outside") == (0, 0, 0o600)


async def test_nothing_is_changed_when_everything_is_right(trees, volume):
    await trees.set_ownership(str(volume), **ALWAYS)
    assert await trees.set_ownership(str(volume), **ALWAYS) == 0


async def test_root_that_matches_ends_the_search_when_the_policy_allows(trees, volume):
    volume.chmod(0o2770)
    os.chown(volume, 0, _GID)
    assert await trees.set_ownership(str(volume), **ON_MISMATCH) == 0
    assert look(volume / "file") == (0, 0, 0o400)
    volume.chmod(0o770)
    assert await trees.set_ownership(str(volume), **ON_MISMATCH) == 4
    assert look(volume / "file") == (0, _GID, 0o660)


async def test_mounts_inside_are_left_alone(trees, mounts, volume):
    mounts.mount_tmpfs(str(volume / "directory"), TmpfsOptions(mode=0o700))
    (volume / "directory" / "inside").touch()
    await trees.set_ownership(str(volume), **ALWAYS)
    found = look(volume / "directory"), look(volume / "directory" / "inside")
    mounts.unmount(str(volume / "directory"))
    assert [gid for _, gid, _ in found] == [0, 0]


async def test_volume_that_is_a_mount_is_entered(trees, mounts, volume):
    mounts.mount_tmpfs(str(volume), TmpfsOptions(mode=0o700))
    assert await trees.set_ownership(str(volume), **ALWAYS) == 1
    assert look(volume) == (0, _GID, 0o2770)
    mounts.unmount(str(volume))


async def test_large_volume_is_changed_by_a_child_process(trees, volume):
    for part in range(20):
        (volume / f"part-{part}").mkdir()
        for number in range(50):
            (volume / f"part-{part}" / str(number)).touch()
    assert await trees.set_ownership(str(volume), **ALWAYS) == 4 + 20 + 1000
    assert look(volume / "part-19" / "49") == (0, _GID, 0o664)


async def test_missing_volume_is_absent(trees, scratch):
    with pytest.raises(Absent):
        await trees.set_ownership(f"{scratch}/missing", **ALWAYS)
