"""Payloads of API-backed volumes on the real kernel: layout, atomicity, interruptions, attacks."""

import dataclasses
import itertools
import os
import stat
import sys
import threading
from contextlib import contextmanager
from functools import partial

import pytest

from volagent.host.contract import Payload, PayloadFile
from volagent.host.errors import Absent, Escapes, HostError
from volagent.host.payload import PayloadWriter


def payload(fingerprint, *, mode=0o644, **files):
    made = tuple(PayloadFile(path, content, mode) for path, content in files.items())
    return Payload(made, fingerprint)


def nested(fingerprint, files, mode=0o644):
    return Payload(
        tuple(PayloadFile(path, data, mode) for path, data in files.items()), fingerprint
    )


def read_all(root):
    """Every file that a user sees: no name that begins with two dots."""
    found = {}
    for name in os.listdir(root):
        if name.startswith(".."):
            continue
        path = root / name
        if path.is_dir():
            for below in path.rglob("*"):
                if below.is_file():
                    found[str(below.relative_to(root))] = below.read_bytes()
        else:
            found[name] = path.read_bytes()
    return found


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def opened(path, directory=None):
    fd = os.open(path, os.O_RDONLY, dir_fd=directory)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def target(scratch):
    path = scratch / "volume"
    path.mkdir()
    return path


def test_layout_is_that_of_the_atomic_writer(trees, target):
    files = {"a": b"1", "dir/b": b"2", "dir/deeper/c": b"3"}
    before = os.umask(0o077)
    try:
        trees.write_payload(str(target), nested("f1", files), gid=None)
    finally:
        os.umask(before)
    data = os.readlink(target / "..data")
    assert sorted(os.listdir(target)) == sorted([data, "..data", "a", "dir"])
    assert os.readlink(target / "a") == "..data/a"
    assert os.readlink(target / "dir") == "..data/dir"
    assert data.startswith("..2")
    assert [mode_of(target / p) for p in (data, "dir", "dir/deeper")] == [0o755] * 3
    assert [mode_of(target / p) for p in files] == [0o644] * 3
    assert read_all(target) == files
    assert trees.read_payload_fingerprint(str(target)) == "f1"


def test_update_leaves_nothing_of_the_old_payload(trees, target):
    trees.write_payload(str(target), nested("f1", {"old": b"1", "both/x": b"1"}), gid=None)
    trees.write_payload(str(target), nested("f2", {"new": b"2", "both/y": b"2"}), gid=None)
    data = os.readlink(target / "..data")
    assert sorted(os.listdir(target)) == sorted([data, "..data", "new", "both"])
    assert read_all(target) == {"new": b"2", "both/y": b"2"}
    assert trees.read_payload_fingerprint(str(target)) == "f2"


def test_empty_payload_empties_the_volume(trees, target):
    trees.write_payload(str(target), payload("f1", a=b"1"), gid=None)
    trees.write_payload(str(target), Payload((), "f2"), gid=None)
    assert read_all(target) == {}
    assert trees.read_payload_fingerprint(str(target)) == "f2"


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o644, 0o4755])
def test_files_have_exactly_their_mode_and_owner(trees, target, mode):
    file = PayloadFile("a", b"1", mode, uid=1234)
    trees.write_payload(str(target), Payload((file,), "f"), gid=None)
    found = (target / "a").stat()
    assert stat.S_IMODE(found.st_mode) == mode
    assert (found.st_uid, found.st_gid) == (1234, 0)


def test_files_belong_to_the_group_and_it_may_read_them(trees, target):
    trees.write_payload(str(target), payload("f", mode=0o600, a=b"1"), gid=2000)
    assert (target / "a").stat().st_gid == 2000
    assert mode_of(target / "a") == 0o640


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../a", "a/../b", "a//b", "./a", "..data", "..x/y", "a/.", "a\0b"]
)
def test_payload_is_refused_when_a_path_leads_astray(trees, target, path):
    with pytest.raises((HostError, ValueError)):
        trees.write_payload(str(target), nested("f", {path: b"1"}), gid=None)
    assert read_all(target) == {}


@pytest.mark.parametrize("fingerprint", ["", "a/b", "x" * 250])
def test_payload_is_refused_when_the_fingerprint_is_no_file_name(trees, target, fingerprint):
    with pytest.raises(HostError, match="fingerprint"):
        trees.write_payload(str(target), payload(fingerprint, a=b"1"), gid=None)
    assert os.listdir(target) == []


def test_fingerprint_is_missing_when_nothing_was_written(trees, target):
    assert trees.read_payload_fingerprint(str(target)) is None
    assert trees.read_payload_fingerprint(f"{target}/missing") is None
    with pytest.raises(Absent):
        trees.write_payload(f"{target}/missing", payload("f"), gid=None)


def test_fingerprint_is_not_trusted_when_it_is_from_before_a_reboot(trees, target):
    earlier = PayloadWriter(boot_mark="lastboot")
    earlier.write(str(target), payload("f", a=b"1"), gid=None)
    assert earlier.read_fingerprint(str(target)) == "f"
    assert trees.read_payload_fingerprint(str(target)) is None
    trees.write_payload(str(target), payload("f", a=b"1"), gid=None)
    assert trees.read_payload_fingerprint(str(target)) == "f"
    assert len(os.listdir(target)) == 3


def test_fingerprint_may_contain_dots(trees, target):
    trees.write_payload(str(target), payload("v1.2.3", a=b"1"), gid=None)
    assert trees.read_payload_fingerprint(str(target)) == "v1.2.3"


def kill_at(number, action):
    """Run `action` in a child process that dies at its so-many-th call to the kernel.

    Python announces each such call (open, mkdir, symlink, rename, chmod, ...) by an audit event
    before it makes it. True when the child got to the end.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    calls = itertools.count()
    sys.addaudithook(lambda event, _: next(calls) == number and os._exit(1))
    action()
    os._exit(0)


def test_killed_write_shows_old_or_new_and_is_mended_by_the_next(trees, target):
    old = {"a": b"old", "gone": b"old", "dir/x": b"old"}
    new = {"a": b"new", "added": b"new", "dir/y": b"new"}
    states = set()
    for number in itertools.count():
        trees.write_payload(str(target), nested("old", old), gid=None)
        write = partial(trees.write_payload, str(target), nested("new", new), gid=None)
        finished = kill_at(number, write)
        data = target / "..data"
        shown = {str(p.relative_to(data)): p.read_bytes() for p in data.rglob("*") if p.is_file()}
        told = trees.read_payload_fingerprint(str(target))
        states.add((shown == new, told))
        assert shown in (old, new)
        assert told is None or (told, read_all(target)) in (("old", old), ("new", new))
        trees.write_payload(str(target), nested("new", new), gid=None)
        assert read_all(target) == new
        assert len(os.listdir(target)) == 2 + 3
        assert trees.read_payload_fingerprint(str(target)) == "new"
        if finished:
            break
    assert states == {(False, "old"), (False, None), (True, None), (True, "new")}


def test_reader_never_sees_two_payloads_at_once(trees, target):
    """A reader that opens `..data` once reads files of one payload only."""
    trees.write_payload(str(target), payload("0", a=b"0", b=b"0"), gid=None)
    stop, torn = threading.Event(), []

    def read():
        while not stop.is_set():
            try:
                with (
                    opened(target / "..data") as data,
                    opened("a", data) as one,
                    opened("b", data) as other,
                ):
                    seen = os.read(one, 10), os.read(other, 10)
            except FileNotFoundError:
                continue  # the directory was replaced and removed while it was read
            if seen[0] != seen[1]:
                torn.append(seen)

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(300):
        text = str(number).encode()
        trees.write_payload(str(target), payload(str(number), a=text, b=text), gid=None)
    stop.set()
    thread.join()
    assert torn == []


# --- a container that writes into the volume ------------------------------------------------------


@pytest.fixture
def outside(scratch):
    path = scratch / "outside"
    path.mkdir()
    (path / "kept").write_text("kept")
    return path


@pytest.mark.parametrize(
    "destination", ["../outside", "{outside}", "..", "/etc", "..x/../../outside"]
)
def test_data_link_that_leads_outside_is_replaced_and_nothing_there_is_deleted(
    trees, target, outside, destination
):
    (target / "..data").symlink_to(destination.format(outside=outside))
    assert trees.read_payload_fingerprint(str(target)) is None
    trees.write_payload(str(target), payload("f", a=b"1"), gid=None)
    assert (outside / "kept").read_text() == "kept"
    assert read_all(target) == {"a": b"1"}


def test_links_that_lead_outside_are_not_followed_when_they_are_cleaned_up(trees, target, outside):
    trees.write_payload(str(target), payload("f1", a=b"1"), gid=None)
    data = target / os.readlink(target / "..data")
    (data / "link").symlink_to(outside)
    (target / "..stale").symlink_to(outside)
    (target / "a").unlink()
    (target / "a").symlink_to(outside / "kept")
    trees.write_payload(str(target), payload("f2", a=b"2"), gid=None)
    assert (outside / "kept").read_text() == "kept"
    assert read_all(target) == {"a": b"2"}
    assert len(os.listdir(target)) == 3


def test_directories_that_stand_in_the_way_are_replaced(trees, target):
    for name in ("..data", "..data_tmp", "a"):
        (target / name / "below").mkdir(parents=True)
    trees.write_payload(str(target), payload("f", a=b"1"), gid=None)
    assert read_all(target) == {"a": b"1"}
    assert trees.read_payload_fingerprint(str(target)) == "f"


def test_files_of_the_container_are_left_alone(trees, target):
    (target / "theirs").write_text("kept")
    (target / "link").symlink_to("theirs")
    trees.write_payload(str(target), payload("f1", a=b"1"), gid=None)
    trees.write_payload(str(target), payload("f2", b=b"1"), gid=None)
    assert (target / "link").read_text() == "kept"
    assert trees.read_payload_fingerprint(str(target)) == "f2"


def test_target_behind_a_link_is_refused(trees, target, scratch):
    (scratch / "link").symlink_to(target)
    with pytest.raises(Escapes):
        trees.write_payload(f"{scratch}/link", payload("f", a=b"1"), gid=None)


def test_content_is_not_shown_by_repr():
    secret = payload("f", password=b"geheim")
    assert "geheim" not in repr(secret)
    assert "geheim" not in repr(dataclasses.replace(secret, fingerprint="g"))
