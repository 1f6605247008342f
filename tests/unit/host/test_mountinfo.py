"""The text of mountinfo, as proc(5) and the kernel's escaping have it."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volagent.host.contract import MountEntry, MountId
from volagent.host.mountinfo import order_entries, parse_line, parse_table, unescape

LINE = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/ro\\134ot rw,errors=continue"


def escape(raw):
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes((byte,)) for byte in raw)


def test_line_is_taken_apart():
    assert parse_line(LINE) == MountEntry(
        mount_id=MountId(36),
        parent_id=MountId(35),
        device="98:0",
        root="/mnt1",
        mount_point="/mnt 2",
        fs_type="ext3",
        source="/dev/ro\\ot",
        options=("rw", "noatime"),
        super_options=("rw", "errors=continue"),
        propagation="slave",
    )


@pytest.mark.parametrize(
    ("tags", "propagation"),
    [
        (b"", "private"),
        (b"shared:7 ", "shared"),
        (b"shared:7 master:2 ", "shared"),
        (b"master:2 propagate_from:9 ", "slave"),
        (b"unbindable ", "unbindable"),
        (b"something:new ", "private"),
    ],
)
def test_optional_fields_tell_the_propagation(tags, propagation):
    line = b"1 2 0:1 / /a rw " + tags + b"- tmpfs none rw"
    assert parse_line(line).propagation == propagation


def test_source_may_be_missing_or_empty():
    assert parse_line(b"1 2 0:1 / /a rw - tmpfs  rw").source == ""
    assert parse_line(b"1 2 0:1 / /a rw - tmpfs none rw").source == "none"


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_every_name_survives_the_kernels_escaping(raw):
    assert unescape(escape(raw)) == os.fsdecode(raw)


@given(st.lists(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw), max_size=5))
def test_table_has_one_entry_per_line_whatever_the_names_contain(names):
    text = b"".join(
        b"%d 1 0:1 / /%s rw - tmpfs none rw\n" % (number, escape(name))
        for number, name in enumerate(names, 2)
    )
    assert [e.mount_point for e in parse_table(text).entries] == [
        "/" + os.fsdecode(name) for name in names
    ]


@pytest.mark.parametrize(
    "line", [b"garbage", b"1 2 0:1 / /a rw - tmpfs", b"x 2 0:1 / /a rw - t s o"]
)
def test_anything_else_is_an_error(line):
    with pytest.raises(ValueError, match=r".+"):
        parse_line(line)


def entry(mount_id, parent_id):
    return MountEntry(
        MountId(mount_id), MountId(parent_id), "0:1", "/", f"/{mount_id}", "tmpfs", ""
    )


@given(st.permutations(range(2, 10)), st.data())
def test_no_mount_comes_before_its_parent_and_none_is_lost(ids, data):
    parents = {1: 1}
    for mount_id in ids:
        parents[mount_id] = data.draw(st.sampled_from(sorted(parents)))
    shuffled = data.draw(st.permutations(sorted(parents)))
    listed = [entry(mount_id, parents[mount_id]) for mount_id in shuffled]
    ordered = [e.mount_id for e in order_entries(listed)]
    assert sorted(ordered) == sorted(parents)
    for position, mount_id in enumerate(ordered):
        assert parents[mount_id] in ordered[: position + 1]


def test_order_is_kept_when_it_is_right():
    listed = [entry(5, 99), entry(3, 5), entry(9, 5), entry(4, 3)]
    assert list(order_entries(listed)) == listed
