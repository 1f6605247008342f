"""What every `Mounts` does: the real kernel's and a model's."""

import asyncio
import contextlib

import pytest

from volagent.host.contract import BindOptions, FileKind, Propagation, TmpfsOptions
from volagent.host.errors import Absent, Busy, Escapes, HostError, NotEmpty

_PATIENCE_S = 5.0


@pytest.fixture
def mounted(mounts):
    """Unmounts at the end, newest first, what a test has named here."""
    with contextlib.ExitStack() as stack:

        def mounted(target):
            def unmount():
                with contextlib.suppress(Absent):
                    mounts.unmount(target)

            stack.callback(unmount)
            return target

        yield mounted


def points(mounts):
    return [entry.mount_point for entry in mounts.read_table().entries]


def test_tmpfs_is_found_by_id_by_place_and_in_the_table(mounts, place, mounted):
    target = mounted(place("a"))
    mount_id = mounts.mount_tmpfs(target, TmpfsOptions())
    entry = mounts.find_mount(mount_id)
    assert (entry.mount_id, entry.mount_point) == (mount_id, target)
    assert (entry.fs_type, entry.source) == ("tmpfs", "tmpfs")
    assert mounts.find_mount_at(target).mount_id == mount_id
    assert [e.mount_id for e in mounts.read_table().entries if e.mount_point == target] == [
        mount_id
    ]


def test_table_lists_a_mount_after_the_one_it_stands_on(mounts, trees, place, mounted):
    outer = mounted(place("a"))
    mounts.mount_tmpfs(outer, TmpfsOptions())
    inner = mounted(place("a/b"))
    mounts.mount_tmpfs(inner, TmpfsOptions())
    listed = points(mounts)
    assert listed.index(outer) < listed.index(inner)
    assert mounts.find_mount_at(inner).parent_id == mounts.find_mount_at(outer).mount_id


def test_nothing_is_found_where_nothing_is_mounted(mounts, world, place):
    assert mounts.find_mount_at(place("a")) is None
    assert mounts.find_mount_at(f"{world.root}/missing/below") is None


def test_tmpfs_hides_the_directory_until_it_is_unmounted(mounts, world, place, mounted):
    target = mounted(place("a"))
    world.write(f"{target}/below", b"below")
    mount_id = mounts.mount_tmpfs(target, TmpfsOptions())
    assert world.read(f"{target}/below") is None
    world.write(f"{target}/in", b"in memory")
    mounts.unmount(target, expect=mount_id)
    assert world.read(f"{target}/below") == b"below"
    assert world.read(f"{target}/in") is None
    assert mounts.find_mount(mount_id) is None


def test_bind_shows_the_same_files_at_both_places(mounts, world, place, mounted):
    source, target = place("source"), mounted(place("target"))
    world.write(f"{source}/file", b"one")
    mount_id = mounts.bind(source, target, BindOptions())
    assert world.read(f"{target}/file") == b"one"
    world.write(f"{target}/file", b"two")
    assert world.read(f"{source}/file") == b"two"
    mounts.unmount(target, expect=mount_id)
    assert world.read(f"{source}/file") == b"two"
    assert world.read(f"{target}/file") is None


def test_read_only_bind_says_so(mounts, place, mounted):
    target = mounted(place("target"))
    mount_id = mounts.bind(place("source"), target, BindOptions(read_only=True))
    assert "ro" in mounts.find_mount(mount_id).options


def test_bind_is_absent_when_its_source_is_missing(mounts, world, place):
    target = place("target")
    with pytest.raises(Absent):
        mounts.bind(f"{world.root}/missing", target, BindOptions())
    assert mounts.find_mount_at(target) is None


def test_mounting_fails_when_the_target_is_missing(mounts, world, place):
    source = place("source")
    with pytest.raises(HostError):
        mounts.mount_tmpfs(f"{world.root}/missing", TmpfsOptions())
    with pytest.raises(HostError):
        mounts.bind(source, f"{world.root}/missing", BindOptions())


def test_unmount_takes_the_topmost_mount(mounts, world, place, mounted):
    target = mounted(place("a"))
    first = mounts.mount_tmpfs(target, TmpfsOptions())
    world.write(f"{target}/first", b"1")
    second = mounts.mount_tmpfs(target, TmpfsOptions())
    assert mounts.find_mount_at(target).mount_id == second
    mounts.unmount(target)
    assert mounts.find_mount_at(target).mount_id == first
    assert world.read(f"{target}/first") == b"1"


def test_unmount_is_absent_when_nothing_is_mounted_there(mounts, world, place):
    with pytest.raises(Absent):
        mounts.unmount(place("a"))
    with pytest.raises(Absent):
        mounts.unmount(f"{world.root}/missing")


def test_unmount_is_absent_when_another_mount_is_there_than_expected(mounts, place, mounted):
    target = mounted(place("a"))
    first = mounts.mount_tmpfs(target, TmpfsOptions())
    mounts.unmount(target)
    with pytest.raises(Absent):
        mounts.unmount(target, expect=first)
    below = mounts.mount_tmpfs(target, TmpfsOptions())
    above = mounts.mount_tmpfs(target, TmpfsOptions())
    with pytest.raises(Absent):
        mounts.unmount(target, expect=below)
    assert mounts.find_mount_at(target).mount_id == above
    mounts.unmount(target)


def test_unmount_is_busy_when_something_is_mounted_below(mounts, place, mounted):
    outer = mounted(place("a"))
    mounts.mount_tmpfs(outer, TmpfsOptions())
    inner = mounted(place("a/b"))
    mounts.mount_tmpfs(inner, TmpfsOptions())
    with pytest.raises(Busy):
        mounts.unmount(outer)


def test_mount_hides_those_that_were_made_below_it_before(mounts, place, mounted):
    outer, inner = mounted(place("a")), mounted(place("a/b"))
    hidden = mounts.mount_tmpfs(inner, TmpfsOptions())
    mounts.mount_tmpfs(outer, TmpfsOptions())
    assert mounts.find_mount_at(inner) is None
    assert mounts.find_mount(hidden) is not None
    mounts.unmount(outer)
    assert mounts.find_mount_at(inner).mount_id == hidden
    mounts.unmount(inner)


async def test_lazy_unmount_takes_all_that_is_mounted_below(mounts, place, mounted):
    outer = mounted(place("a"))
    mounts.mount_tmpfs(outer, TmpfsOptions())
    inner = place("a/b")
    mounts.mount_tmpfs(inner, TmpfsOptions())
    slowly = {"backend": "b", "timeout_s": 20, "force": False}
    with pytest.raises(Busy):
        await mounts.unmount_slowly(outer, **slowly, lazy=False)
    await mounts.unmount_slowly(outer, **slowly, lazy=True)
    assert not {outer, inner} & set(points(mounts))
    with pytest.raises(Absent):
        await mounts.unmount_slowly(outer, **slowly, lazy=False)


def test_mount_has_the_propagation_that_was_asked_for(mounts, place, mounted):
    peers = TmpfsOptions(propagation=Propagation.SHARED)
    made = mounts.mount_tmpfs(mounted(place("volume")), peers)
    assert mounts.find_mount(made).propagation == "shared"
    for propagation, shown in (
        (Propagation.PRIVATE, "private"),
        (Propagation.SLAVE, "slave"),
        (Propagation.SHARED, "shared"),
    ):
        target = mounted(place(f"bind-{shown}"))
        made = mounts.bind(place("volume"), target, BindOptions(propagation=propagation))
        assert mounts.find_mount(made).propagation == shown


# --- subPath --------------------------------------------------------------------------------------


def test_sub_path_shows_a_part_of_the_volume(mounts, world, place, mounted):
    volume, target = place("volume"), mounted(f"{world.root}/pods/sub/0")
    place("volume/part/deep")
    world.write(f"{volume}/part/deep/file", b"content")
    mount_id = mounts.bind_sub_path(volume, "part/deep", target, BindOptions(), 0o755)
    assert mounts.find_mount_at(target).mount_id == mount_id
    assert world.read(f"{target}/file") == b"content"


def test_sub_path_makes_what_is_missing_in_the_volume(mounts, world, trees, place, mounted):
    volume, target = place("volume"), mounted(f"{world.root}/pods/sub/0")
    mounts.bind_sub_path(volume, "new/part", target, BindOptions(), 0o755)
    world.write(f"{target}/file", b"content")
    assert trees.inspect(f"{volume}/new/part") is FileKind.DIRECTORY
    assert world.read(f"{volume}/new/part/file") == b"content"


def test_sub_path_is_found_behind_a_link_only_when_a_user_named_the_volume(
    mounts, world, trees, place, mounted
):
    target = mounted(f"{world.root}/pods/sub/0")
    place("volume/part")
    link = f"{world.root}/link"
    trees.ensure_link(link, f"{world.root}/volume")
    with pytest.raises(Escapes):
        mounts.bind_sub_path(link, "part", target, BindOptions(), 0o755)
    mounts.bind_sub_path(link, "part", target, BindOptions(), 0o755, follow_links=True)
    world.write(f"{target}/file", b"content")
    assert world.read(f"{world.root}/volume/part/file") == b"content"


async def test_sub_path_of_a_backend_that_may_hang_is_bound_in_the_same_way(
    mounts, world, place, mounted
):
    volume, target = place("volume"), mounted(f"{world.root}/pods/sub/0")
    mount_id = await mounts.bind_sub_path_slowly(
        volume, "new", target, BindOptions(read_only=True), 0o755, backend="b", timeout_s=20
    )
    entry = mounts.find_mount(mount_id)
    assert (entry.mount_point, "ro" in entry.options) == (target, True)


def test_sub_path_of_a_file_is_bound_onto_a_file(mounts, world, trees, place, mounted):
    volume, target = place("volume"), mounted(f"{world.root}/pods/sub/0")
    world.write(f"{volume}/file", b"content")
    mounts.bind_sub_path(volume, "file", target, BindOptions(), 0o755)
    assert trees.inspect(target) is FileKind.FILE
    assert world.read(target) == b"content"


def test_sub_path_follows_links_that_stay_inside(mounts, world, trees, place, mounted):
    volume, target = place("volume"), mounted(f"{world.root}/pods/sub/0")
    place("volume/real/deep")
    world.write(f"{volume}/real/deep/file", b"content")
    trees.ensure_link(f"{volume}/real/up", "../real/deep")
    trees.ensure_link(f"{volume}/link", f"{volume}/real/up")
    mounts.bind_sub_path(volume, "link", target, BindOptions(), 0o755)
    assert world.read(f"{target}/file") == b"content"


@pytest.mark.parametrize("destination", ["../other", "/etc", "real/../../other"])
def test_sub_path_is_refused_when_a_link_leads_outside(mounts, world, trees, place, destination):
    volume, target = place("volume"), f"{world.root}/pods/sub/0"
    place("other")
    place("volume/real")
    trees.ensure_link(f"{volume}/link", destination)
    with pytest.raises(Escapes):
        mounts.bind_sub_path(volume, "link", target, BindOptions(), 0o755)
    assert mounts.find_mount_at(target) is None


@pytest.mark.parametrize("sub_path", ["..", "../other", "part/../../other"])
def test_sub_path_is_refused_when_it_leads_outside(mounts, world, place, sub_path):
    volume, target = place("volume"), f"{world.root}/pods/sub/0"
    place("other")
    with pytest.raises(Escapes):
        mounts.bind_sub_path(volume, sub_path, target, BindOptions(), 0o755)
    assert mounts.find_mount_at(target) is None


def test_sub_path_is_absent_when_the_volume_is(mounts, world):
    with pytest.raises(Absent):
        mounts.bind_sub_path(
            f"{world.root}/missing", "a", f"{world.root}/target", BindOptions(), 0o755
        )


# --- directories and mounts together --------------------------------------------------------------


def test_mount_point_is_busy_until_it_is_unmounted(mounts, trees, place, mounted):
    target = mounted(place("a"))
    mounts.mount_tmpfs(target, TmpfsOptions())
    with pytest.raises(Busy):
        trees.remove_dir(target)
    mounts.unmount(target)
    trees.remove_dir(target)
    assert trees.inspect(target) is None


async def test_tree_is_busy_and_spared_when_something_is_mounted_in_it(
    mounts, trees, world, place, mounted
):
    tree, target = place("tree"), mounted(place("tree/below"))
    mounts.mount_tmpfs(target, TmpfsOptions())
    world.write(f"{target}/kept", b"kept")
    with pytest.raises(Busy):
        await trees.remove_tree(tree)
    assert world.read(f"{target}/kept") == b"kept"
    mounts.unmount(target)
    await trees.remove_tree(tree)
    assert trees.inspect(tree) is None


def test_directory_below_a_mount_is_not_empty_for_its_parent(mounts, trees, place, mounted):
    parent = place("parent")
    mounts.mount_tmpfs(mounted(place("parent/mount")), TmpfsOptions())
    with pytest.raises((NotEmpty, Busy)):
        trees.remove_dir(parent)


# --- events ---------------------------------------------------------------------------------------


async def test_watcher_hears_of_each_mount_that_comes_and_goes(mounts, place):
    attached, detached, told = set(), set(), asyncio.Event()

    def on_change(changes):
        attached.update(changes.attached)
        detached.update(changes.detached)
        told.set()

    async def until(condition):
        async with asyncio.timeout(_PATIENCE_S):
            while not condition():
                told.clear()
                await told.wait()

    watch = mounts.watch_mounts(on_change)
    made = {mounts.mount_tmpfs(place(name), TmpfsOptions()) for name in ("a", "b")}
    await until(lambda: made <= attached)
    for name in ("a", "b"):
        mounts.unmount(place(name))
    await until(lambda: made <= detached)
    watch.close()
    watch.close()
