"""What every `Trees` does: the real kernel's and a model's."""

import pytest

from volagent.host.contract import FileKind, Payload, PayloadFile
from volagent.host.errors import Absent, Escapes, HostError, NotEmpty


def test_directory_is_made_once_with_its_parents(trees, world):
    path = f"{world.root}/a/b/c"
    assert trees.ensure_dir(path, mode=0o755) is True
    assert trees.ensure_dir(path, mode=0o700) is False
    assert trees.inspect(path) is FileKind.DIRECTORY
    assert trees.list_dir(f"{world.root}/a") == ["b"]


def test_listing_is_sorted_and_empty_for_what_is_missing(trees, world, place):
    for name in ("c", "a", "b"):
        place(f"list/{name}")
    assert trees.list_dir(f"{world.root}/list") == ["a", "b", "c"]
    assert trees.list_dir(f"{world.root}/missing") == []


def test_directory_is_removed_only_when_it_is_empty(trees, world, place):
    path = place("a")
    world.write(f"{path}/file", b"kept")
    with pytest.raises(NotEmpty):
        trees.remove_dir(path)
    assert world.read(f"{path}/file") == b"kept"
    trees.remove_dir(place("empty"))
    assert trees.inspect(f"{world.root}/empty") is None
    trees.remove_dir(f"{world.root}/missing")
    trees.remove_dir(f"{world.root}/missing/below")


def test_inspect_tells_directories_from_files(trees, world, place):
    path = place("a")
    world.write(f"{path}/file", b"")
    assert trees.inspect(path) is FileKind.DIRECTORY
    assert trees.inspect(f"{path}/file") is FileKind.FILE
    assert trees.inspect(f"{path}/missing") is None


def test_file_is_made_once_and_removed_once(trees, world):
    path = f"{world.root}/file"
    assert trees.ensure_file(path, mode=0o600) is True
    assert trees.ensure_file(path, mode=0o600) is False
    assert world.read(path) == b""
    trees.remove_file(path)
    trees.remove_file(path)
    assert trees.inspect(path) is None


def test_link_leads_where_it_was_last_told(trees, world, place):
    for name in ("one", "two"):
        world.write(f"{place(name)}/file", name.encode())
    link = f"{world.root}/links/link"
    trees.ensure_link(link, f"{world.root}/one")
    trees.ensure_link(link, f"{world.root}/two")
    assert trees.list_dir(f"{world.root}/links") == ["link"]
    trees.remove_file(link)
    assert trees.list_dir(f"{world.root}/links") == []
    assert world.read(f"{world.root}/two/file") == b"two"


@pytest.fixture
def linked(trees, world, place):
    """A path that leads by a link into `real`."""
    place("real")
    trees.ensure_link(f"{world.root}/link", f"{world.root}/real")
    return f"{world.root}/link/new"


def test_link_on_the_way_is_refused_in_a_path_of_the_agents_own(trees, world, linked):
    with pytest.raises(Escapes):
        trees.ensure_dir(linked, mode=0o755)
    with pytest.raises(Escapes):
        trees.ensure_file(linked, mode=0o600)
    assert trees.list_dir(f"{world.root}/real") == []


async def test_link_on_the_way_is_followed_in_a_path_that_a_user_names(trees, world, linked):
    assert trees.ensure_dir(linked, mode=0o755, follow_links=True) is True
    assert trees.ensure_dir(linked, mode=0o755, follow_links=True) is False
    assert trees.list_dir(f"{world.root}/real") == ["new"]
    assert trees.inspect(linked) is FileKind.DIRECTORY
    assert await trees.inspect_slowly(linked, backend="b", timeout_s=10) is FileKind.DIRECTORY


def test_only_the_last_directory_of_a_users_path_is_made(trees, world):
    with pytest.raises(Absent):
        trees.ensure_dir(f"{world.root}/missing/new", mode=0o755, follow_links=True)
    with pytest.raises(Absent):
        trees.ensure_file(f"{world.root}/missing/new", mode=0o600, follow_links=True)


def test_file_with_content_is_never_removed(trees, world, place):
    path = f"{place('a')}/file"
    world.write(path, b"kept")
    with pytest.raises(NotEmpty):
        trees.remove_file(path)
    assert world.read(path) == b"kept"


def test_file_is_no_directory_to_remove_or_to_use(trees, world):
    path = f"{world.root}/file"
    trees.ensure_file(path, mode=0o600)
    with pytest.raises(HostError):
        trees.remove_dir(path)
    with pytest.raises(HostError):
        trees.ensure_dir(path, mode=0o755)


# --- payloads -------------------------------------------------------------------------------------


def payload(fingerprint, files):
    return Payload(tuple(PayloadFile(p, c, 0o644) for p, c in files.items()), fingerprint)


def test_payload_is_shown_and_known_by_its_fingerprint(trees, world, place):
    target = place("volume")
    trees.write_payload(target, payload("f1", {"a": b"1", "dir/b": b"2"}), gid=None)
    assert world.read(f"{target}/a") == b"1"
    assert world.read(f"{target}/dir/b") == b"2"
    assert trees.read_payload_fingerprint(target) == "f1"


def test_payload_replaces_the_one_before_altogether(trees, world, place):
    target = place("volume")
    trees.write_payload(target, payload("f1", {"old": b"1", "both": b"1"}), gid=None)
    trees.write_payload(target, payload("f2", {"new": b"2", "both": b"2"}), gid=2000)
    assert world.read(f"{target}/old") is None
    assert world.read(f"{target}/new") == world.read(f"{target}/both") == b"2"
    assert trees.read_payload_fingerprint(target) == "f2"


def test_fingerprint_is_none_when_no_payload_was_written(trees, world, place):
    assert trees.read_payload_fingerprint(place("volume")) is None
    assert trees.read_payload_fingerprint(f"{world.root}/missing") is None


# --- trees ----------------------------------------------------------------------------------------


async def test_tree_is_removed_with_all_that_is_in_it(trees, world, place):
    tree = place("parent/tree")
    world.write(f"{place('parent/tree/a/b')}/file", b"x")
    await trees.remove_tree(tree)
    assert trees.list_dir(f"{world.root}/parent") == []
    await trees.remove_tree(tree)
    await trees.remove_tree(f"{world.root}/missing/tree")
    assert await trees.finish_removals(f"{world.root}/parent") == 0


def test_missing_parents_of_a_file_are_an_error(trees, world):
    with pytest.raises(Absent):
        trees.ensure_file(f"{world.root}/missing/file", mode=0o600)
