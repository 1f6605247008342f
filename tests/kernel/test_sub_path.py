"""subPath: what a pod's author can write into a volume, and into its spec, against our walk."""

import os
import stat
import subprocess
import sys
from contextlib import contextmanager

import pytest

from volagent.host.contract import BindOptions, TmpfsOptions
from volagent.host.errors import Absent, Escapes, HostError

_ATTACKED_BINDS = 200
_ATTACKED_BINDS_MAX = 2000
_OFTEN_ENOUGH = 10


@pytest.fixture
def volume(scratch):
    """`volume` with a directory and a file, and beside it what must never be reached."""
    path = scratch / "volume"
    (path / "inside" / "deep").mkdir(parents=True)
    (path / "inside" / "deep" / "kept").write_text("inside")
    (path / "file").write_text("a file")
    outside = scratch / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "secret").write_text("secret")
    return path


@pytest.fixture
def target(scratch):
    return str(scratch / "pods" / "volume-subpaths" / "v" / "c" / "0")


@pytest.fixture
def bind(mounts, volume, target):
    """Bind a sub-path, list what is seen at the target, and unmount it again."""

    def bind(sub_path, *, mode=0o755):
        mounts.bind_sub_path(str(volume), sub_path, target, BindOptions(), mode)
        try:
            if os.path.isdir(target):
                return set(os.listdir(target))
            with open(target) as file:
                return file.read()
        finally:
            mounts.unmount(target)

    return bind


@pytest.mark.parametrize(
    "sub_path", ["inside/deep", "inside//deep/", "./inside/./deep", "inside/deep/."]
)
def test_directory_of_the_volume_is_bound(bind, sub_path):
    assert bind(sub_path) == {"kept"}


async def test_child_process_binds_in_the_same_way(mounts, volume, target):
    slow = {"backend": "test", "timeout_s": 20.0}
    options = BindOptions(read_only=True, options=("noexec",))
    made = await mounts.bind_sub_path_slowly(
        str(volume), "inside/deep", target, options, 0o755, **slow
    )
    entry = mounts.find_mount(made)
    mounts.unmount(target, expect=made)
    assert entry.mount_point == target
    assert {"ro", "noexec"} <= set(entry.options)
    with pytest.raises(Escapes):
        await mounts.bind_sub_path_slowly(str(volume), "..", target, options, 0o755, **slow)


def test_volume_itself_is_bound_when_the_sub_path_names_nothing_else(bind):
    assert bind(".") == {"inside", "file"}


def test_file_is_bound_onto_a_file(bind):
    assert bind("file") == "a file"


def test_target_changes_its_kind_when_the_sub_path_did(bind, volume):
    assert bind("file") == "a file"
    (volume / "file").unlink()
    (volume / "file").mkdir()
    assert bind("file") == set()
    (volume / "file").rmdir()
    (volume / "file").write_text("again")
    assert bind("file") == "again"


def test_missing_directories_get_the_mode_that_the_kubelet_gives(bind, volume):
    before = os.umask(0o027)
    try:
        assert bind("new/between/last", mode=0o2777) == set()
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE((volume / path).stat().st_mode)
        for path in ("new", "new/between", "new/between/last")
    ]
    assert modes == [0o750, 0o750, 0o2777]


@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o2770])
def test_last_missing_directory_gets_the_mode_of_the_volume_when_none_is_given(bind, volume, mode):
    os.chown(volume, 0, 4242)
    volume.chmod(mode)
    bind("new/last", mode=None)
    found = (volume / "new" / "last").stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert found.st_gid == (4242 if mode & stat.S_ISGID else 0)


def test_bind_is_read_only_when_asked_for(mounts, volume, target):
    options = BindOptions(read_only=True)
    mounts.bind_sub_path(str(volume), "inside", target, options, 0o755)
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir(f"{target}/new")
    mounts.unmount(target)


@pytest.mark.parametrize(
    "destination",
    ["inside/deep", "./inside/deep", "inside/../inside/deep", "inside/up/inside/deep", "chain"],
)
def test_link_is_followed_when_it_stays_inside(bind, volume, destination):
    (volume / "inside" / "up").symlink_to("..")
    (volume / "chain").symlink_to("inside/deep")
    (volume / "link").symlink_to(destination)
    assert bind("link") == {"kept"}


def test_absolute_link_is_followed_when_it_names_the_volume_itself(bind, volume):
    (volume / "inside" / "link").symlink_to(volume / "inside" / "deep")
    assert bind("inside/link") == {"kept"}


@pytest.mark.parametrize(
    "destination",
    [
        "/",
        "/etc",
        "/proc/self/root/etc",
        "..",
        "../outside",
        "../volume/inside",
        "inside/../../outside",
        "inside/deep/../../../outside",
        "{volume}/../outside",
        "{volume}-2/deep",
        "{outside}",
    ],
)
def test_link_is_refused_when_it_leads_outside(bind, scratch, volume, target, destination):
    (scratch / "volume-2" / "deep").mkdir(parents=True)
    outside = scratch / "outside"
    (volume / "link").symlink_to(destination.format(volume=volume, outside=outside))
    with pytest.raises(Escapes):
        bind("link")
    with pytest.raises(Escapes):
        bind("link/deep")
    assert not os.path.lexists(target)


@pytest.mark.parametrize("sub_path", ["/etc", "../outside", "inside/../../outside", "a\0b", ".."])
def test_sub_path_is_refused_when_it_is_not_inside(bind, sub_path):
    with pytest.raises(Escapes):
        bind(sub_path)


def test_link_loop_is_an_error(bind, volume):
    (volume / "one").symlink_to("two")
    (volume / "two").symlink_to("one")
    with pytest.raises(HostError, match="ELOOP"):
        bind("one")


def test_nothing_is_made_where_a_link_leads(bind, volume):
    (volume / "link").symlink_to("missing")
    with pytest.raises(HostError, match="leads to something that is missing"):
        bind("link")
    assert not (volume / "missing").exists()


def test_missing_directory_is_made_behind_a_link(bind, volume):
    (volume / "link").symlink_to("inside")
    assert bind("link/new") == set()
    assert (volume / "inside" / "new").is_dir()


def test_path_through_a_file_is_an_error(bind):
    with pytest.raises(HostError, match="ENOTDIR"):
        bind("file/below")


def test_missing_volume_is_absent(mounts, scratch, target):
    with pytest.raises(Absent):
        mounts.bind_sub_path(str(scratch / "nothing"), "a", target, BindOptions(), 0o755)


def test_magic_links_lead_nowhere_when_the_volume_is_proc(mounts, target):
    with pytest.raises(Escapes):
        mounts.bind_sub_path("/proc", "self/root/etc", target, BindOptions(), 0o755)
    with pytest.raises(Escapes):
        mounts.bind_sub_path("/proc", "self/cwd", target, BindOptions(), 0o755)


def test_mount_inside_the_volume_is_part_of_it(mounts, bind, volume):
    mounts.mount_tmpfs(str(volume / "inside"), TmpfsOptions())
    (volume / "inside" / "mounted").mkdir()
    try:
        assert bind("inside") == {"mounted"}
    finally:
        mounts.unmount(str(volume / "inside"))


_ATTACKER = """
import ctypes, os, sys
swap = ctypes.CDLL(None)["renameat2"]
one, other = map(os.fsencode, sys.argv[1:])
print("attacking", flush=True)
while True:
    swap(-100, one, -100, other, 2)  # AT_FDCWD, RENAME_EXCHANGE
"""


@contextmanager
def swapping(one, other):
    """Two names are swapped for each other by another process, as fast as it can."""
    argv = [sys.executable, "-S", "-c", _ATTACKER, str(one), str(other)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def attack(bind, sub_path, allowed):
    """Bind until both ways have come out often enough; each is allowed or the bind refused."""
    seen, refused = [], 0
    for attempt in range(_ATTACKED_BINDS_MAX):
        if attempt >= _ATTACKED_BINDS and min(len(seen), refused) >= _OFTEN_ENOUGH:
            break
        try:
            seen.append(bind(sub_path))
        except HostError:
            refused += 1
    assert [what for what in seen if what not in allowed] == []
    return len(seen), refused


def test_no_bind_leaves_the_volume_while_a_directory_is_swapped_for_a_link(bind, volume, scratch):
    (volume / "link").symlink_to(scratch / "outside")
    with swapping(volume / "inside", volume / "link"):
        attack(bind, "inside/deep", [{"kept"}])


def test_no_bind_leaves_the_volume_while_the_last_name_is_swapped_for_a_link(bind, volume, scratch):
    (volume / "link").symlink_to(scratch / "outside" / "deep")
    with swapping(volume / "inside" / "deep", volume / "link"):
        attack(bind, "inside/deep", [{"kept"}])


def test_no_bind_leaves_the_volume_while_a_parent_moves_up_and_down(bind, volume, scratch):
    """`..` in a link must not be taken from where a moved directory is by now."""
    (volume / "a" / "b" / "c").mkdir(parents=True)
    (volume / "a" / "b" / "c" / "up").symlink_to("../../../inside/deep")
    (volume / "shallow").mkdir()
    with swapping(volume / "a" / "b" / "c", volume / "shallow"):
        attack(bind, "a/b/c/up", [{"kept"}, set()])


def test_no_directory_is_made_outside_while_a_directory_is_swapped_for_a_link(
    bind, volume, scratch
):
    (volume / "link").symlink_to(scratch / "outside")
    made = iter(range(1_000_000))
    with swapping(volume / "inside", volume / "link"):
        for _ in range(_ATTACKED_BINDS):
            try:
                bind(f"inside/new-{next(made)}/below")
            except HostError:
                continue
    assert set(os.listdir(scratch / "outside")) == {"deep"}
    assert set(os.listdir(scratch / "outside" / "deep")) == {"secret"}
