"""Directories, links, files and removal on the real kernel, with hostile and awkward contents."""

import asyncio
import os
import stat

import pytest

from volagent.host.contract import BindOptions, FileKind, TmpfsOptions
from volagent.host.errors import Absent, Busy, Escapes, HostError, NotEmpty


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2770, 0o3777, 0o700])
def test_directory_has_exactly_its_mode_whatever_the_umask(trees, scratch, umask, mode):
    before = os.umask(umask)
    try:
        assert trees.ensure_dir(f"{scratch}/a/b/c", mode=mode) is True
    finally:
        os.umask(before)
    assert mode_of(scratch / "a/b/c") == mode
    assert mode_of(scratch / "a") == mode_of(scratch / "a/b") == 0o750


def test_directory_does_not_inherit_the_setgid_bit_of_its_parent(trees, scratch):
    scratch.chmod(0o2755)
    os.chown(scratch, 0, 4000)
    trees.ensure_dir(f"{scratch}/a", mode=0o755)
    assert mode_of(scratch / "a") == 0o755


def test_directory_gets_its_group_and_keeps_the_setgid_bit(trees, scratch):
    trees.ensure_dir(f"{scratch}/a", mode=0o2770, gid=3000)
    assert (scratch / "a").stat().st_gid == 3000
    assert mode_of(scratch / "a") == 0o2770


def test_directory_is_refused_when_a_link_is_in_the_way(trees, scratch):
    (scratch / "real").mkdir()
    (scratch / "link").symlink_to("real")
    with pytest.raises(Escapes):
        trees.ensure_dir(f"{scratch}/link/a", mode=0o755)
    with pytest.raises(HostError, match="something else is there"):
        trees.ensure_dir(f"{scratch}/link", mode=0o755)
    assert os.listdir(scratch / "real") == []


@pytest.mark.parametrize("path", ["relative/path", "/", "", "{scratch}/..", "{scratch}/a/"])
def test_directory_is_refused_when_the_path_is_none_of_ours(trees, scratch, path):
    with pytest.raises(HostError):
        trees.ensure_dir(path.format(scratch=scratch), mode=0o755)


def test_links_on_the_way_are_followed_when_the_path_is_a_users(trees, scratch):
    (scratch / "real").mkdir()
    (scratch / "link").symlink_to("real")
    assert trees.ensure_dir(f"{scratch}/link/a", mode=0o777, follow_links=True) is True
    assert trees.ensure_file(f"{scratch}/link/b", mode=0o644, follow_links=True) is True
    assert mode_of(scratch / "real" / "a") == 0o777
    assert (scratch / "real" / "b").is_file()
    with pytest.raises(Absent):
        trees.ensure_dir(f"{scratch}/missing/a", mode=0o755, follow_links=True)


def test_remove_dir_is_busy_when_a_mount_stands_on_it(trees, mounts, scratch):
    trees.ensure_dir(f"{scratch}/a", mode=0o755)
    mounts.mount_tmpfs(f"{scratch}/a", TmpfsOptions())
    with pytest.raises(Busy):
        trees.remove_dir(f"{scratch}/a")
    mounts.unmount(f"{scratch}/a")
    trees.remove_dir(f"{scratch}/a")
    trees.remove_dir(f"{scratch}/a")
    trees.remove_dir(f"{scratch}/nothing/at/all")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.mkdir(), FileKind.DIRECTORY),
        (lambda path: path.touch(), FileKind.FILE),
        (lambda path: os.mkfifo(path), FileKind.FIFO),
        (lambda path: os.mknod(path, stat.S_IFSOCK | 0o600), FileKind.SOCKET),
        (lambda path: os.mknod(path, stat.S_IFCHR | 0o600, 0x103), FileKind.CHARACTER_DEVICE),
        (lambda path: os.mknod(path, stat.S_IFBLK | 0o600, 0x700), FileKind.BLOCK_DEVICE),
    ],
)
def test_inspect_tells_what_a_path_leads_to(trees, scratch, make, kind):
    make(scratch / "it")
    (scratch / "link").symlink_to("it")
    assert trees.inspect(f"{scratch}/it") is kind
    assert trees.inspect(f"{scratch}/link") is kind


def test_inspect_finds_nothing_when_the_path_leads_nowhere(trees, scratch):
    (scratch / "file").touch()
    (scratch / "dangling").symlink_to("missing")
    (scratch / "loop").symlink_to("loop")
    assert trees.inspect(f"{scratch}/missing") is None
    assert trees.inspect(f"{scratch}/dangling") is None
    assert trees.inspect(f"{scratch}/file/below") is None
    with pytest.raises(HostError, match="ELOOP"):
        trees.inspect(f"{scratch}/loop")


def test_file_has_exactly_its_mode_and_keeps_its_content(trees, scratch):
    path = f"{scratch}/file"
    assert trees.ensure_file(path, mode=0o666) is True
    assert mode_of(path) == 0o666
    (scratch / "file").write_text("content")
    assert trees.ensure_file(path, mode=0o600) is False
    assert (scratch / "file").read_text() == "content"
    with pytest.raises(NotEmpty):
        trees.remove_file(path)


def test_file_is_not_made_behind_a_link(trees, scratch):
    (scratch / "link").symlink_to("elsewhere")
    with pytest.raises(HostError, match="something else is there"):
        trees.ensure_file(f"{scratch}/link", mode=0o600)
    assert not (scratch / "elsewhere").exists()


def test_link_is_replaced_when_an_interrupted_call_left_its_work(trees, scratch):
    path = f"{scratch}/devices/link"
    trees.ensure_link(path, "/dev/one")
    os.symlink("/dev/stale", f"{scratch}/devices/.link-link")
    trees.ensure_link(path, "/dev/two")
    assert os.readlink(path) == "/dev/two"
    assert trees.list_dir(f"{scratch}/devices") == ["link"]


# --- removal ------------------------------------------------------------------------------------


@pytest.fixture
def tree(scratch):
    """A small tree, and outside of it a directory that links in it lead to."""
    root = scratch / "tree"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_text("x")
    (root / "a" / "b" / "read-only").write_text("x")
    (root / "a" / "b").chmod(0o500)
    os.mkfifo(root / "fifo")
    outside = scratch / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (root / "link").symlink_to(outside)
    (root / "a" / "link").symlink_to(outside / "kept")
    return root


async def test_tree_is_removed_and_what_its_links_lead_to_is_not(trees, tree, scratch):
    await trees.remove_tree(str(tree))
    assert os.listdir(scratch) == ["outside"]
    assert (scratch / "outside" / "kept").read_text() == "kept"
    await trees.remove_tree(str(tree))
    await trees.remove_tree(f"{tree}/not/there")


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize("bound", ["directory", "file"])
async def test_removal_is_busy_and_spares_what_is_bound_inside(
    trees, mounts, tree, scratch, small, bound
):
    """A bind of the same file system is the case that comparing devices does not see."""
    if not small:
        for number in range(100):
            (tree / f"more-{number}").touch()
    place = tree / "a" / "bound"
    if bound == "directory":
        place.mkdir()
        mounts.bind(str(scratch / "outside"), str(place), BindOptions())
    else:
        place.touch()
        mounts.bind(str(scratch / "outside" / "kept"), str(place), BindOptions())
    with pytest.raises(Busy):
        await trees.remove_tree(str(tree))
    assert (scratch / "outside" / "kept").read_text() == "kept"
    assert mounts.find_mount_at(str(place)) is not None
    mounts.unmount(str(place))
    await trees.remove_tree(str(tree))
    assert os.listdir(scratch) == ["outside"]


async def test_nothing_is_touched_when_a_directory_inside_is_a_mount(trees, mounts, tree):
    mounts.mount_tmpfs(str(tree / "a"), TmpfsOptions())
    before = sorted(os.listdir(tree))
    with pytest.raises(Busy):
        await trees.remove_tree(str(tree))
    assert sorted(os.listdir(tree)) == before
    mounts.unmount(str(tree / "a"))


async def test_removal_is_busy_when_the_tree_itself_is_a_mount(trees, mounts, tree, scratch):
    mounts.bind(str(scratch / "outside"), str(tree), BindOptions())
    with pytest.raises(Busy):
        await trees.remove_tree(str(tree))
    assert (scratch / "outside" / "kept").exists()
    mounts.unmount(str(tree))


async def test_removal_refuses_a_file_and_a_link(trees, tree, scratch):
    (scratch / "link").symlink_to("outside")
    with pytest.raises(HostError):
        await trees.remove_tree(f"{scratch}/link")
    with pytest.raises(HostError):
        await trees.remove_tree(f"{tree}/a/file")
    assert (scratch / "outside" / "kept").exists()
    assert (tree / "a" / "file").exists()


async def test_large_tree_is_removed_while_the_loop_goes_on(trees, scratch):
    root = scratch / "large"
    for part in range(100):
        directory = root / f"part-{part}" / "deeper"
        directory.mkdir(parents=True)
        for number in range(100):
            (directory / str(number)).touch()
    removal = asyncio.ensure_future(trees.remove_tree(str(root)))
    turns = 0
    while not removal.done():
        turns += 1
        await asyncio.sleep(0)
    await removal
    assert turns > 10
    assert os.listdir(scratch) == []


async def test_tree_is_removed_when_it_is_nested_deeper_than_descriptors_reach(trees, scratch):
    root = scratch / "deep"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("a", dir_fd=fd)
        os.mkdir("b", dir_fd=fd)
        below = os.open("a", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    await trees.remove_tree(str(root))
    assert os.listdir(scratch) == []


async def test_removal_is_finished_by_the_next_call_when_it_was_interrupted(trees, tree, scratch):
    tree.rename(scratch / ".tree.removing-0123abcd")
    await trees.remove_tree(str(tree))
    assert os.listdir(scratch) == ["outside"]


async def test_leftovers_of_removals_are_found_by_their_parent(trees, tree, scratch):
    tree.rename(scratch / ".tree.removing-0123abcd")
    (scratch / ".other.removing-4567cdef" / "below").mkdir(parents=True)
    assert await trees.finish_removals(str(scratch)) == 2
    assert await trees.finish_removals(str(scratch)) == 0
    assert await trees.finish_removals(f"{scratch}/missing") == 0
    assert os.listdir(scratch) == ["outside"]


async def test_removal_copes_with_the_longest_names(trees, scratch):
    name = "n" * 255
    (scratch / name / name).mkdir(parents=True)
    await trees.remove_tree(f"{scratch}/{name}")
    assert os.listdir(scratch) == []


def test_listing_needs_a_path_without_links(trees, scratch):
    (scratch / "b").mkdir()
    (scratch / "a").touch()
    (scratch / "link").symlink_to("b")
    assert trees.list_dir(str(scratch)) == ["a", "b", "link"]
    assert trees.list_dir(f"{scratch}/missing") == []
    with pytest.raises(Escapes):
        trees.list_dir(f"{scratch}/link")
    with pytest.raises(Absent):
        trees.ensure_file(f"{scratch}/missing/file", mode=0o600)
