"""Mount options sorted for the kernel."""

import pytest

from volagent.host import libc
from volagent.host.errors import HostError
from volagent.host.mount_options import (
    describe_attributes,
    parse_bind_options,
    split_options,
    split_words,
)

RO, NOSUID, NODEV, NOEXEC = (
    libc.MOUNT_ATTR_RDONLY,
    libc.MOUNT_ATTR_NOSUID,
    libc.MOUNT_ATTR_NODEV,
    libc.MOUNT_ATTR_NOEXEC,
)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], []),
        (["a,b", "c"], ["a", "b", "c"]),
        (["a,,b", "", ","], ["a", "b"]),
        (['context="u:r:t:s0,c1",ro'], ['context="u:r:t:s0,c1"', "ro"]),
    ],
)
def test_list_is_split_at_commas_outside_of_quotes(options, words):
    assert split_words(options) == words


def test_attributes_and_parameters_are_sorted():
    split = split_options(["noatime", "nodev,discard", "commit=5"], read_only=False)
    assert split.attributes == libc.MOUNT_ATTR_NOATIME | NODEV
    assert split.parameters == (("discard", None), ("commit", "5"))


def test_read_only_goes_to_the_mount_and_to_the_superblock():
    for split in (split_options([], read_only=True), split_options(["ro"], read_only=False)):
        assert split.attributes == RO
        assert split.parameters == (("ro", None),)


def test_read_only_cannot_be_overruled_by_an_option():
    split = split_options(["rw"], read_only=True)
    assert split.attributes == RO
    assert ("ro", None) in split.parameters


@pytest.mark.parametrize(
    "word", ["defaults", "nofail", "_netdev", "x-systemd.requires=a", "X-mount.mkdir", "comment=x"]
)
def test_words_for_fstab_are_not_for_the_kernel(word):
    split = split_options([word], read_only=False)
    assert (split.attributes, split.parameters) == (0, ())


def test_last_word_wins():
    split = split_options(["nosuid", "suid", "noatime", "relatime"], read_only=False)
    assert split.attributes == 0


def test_quotes_do_not_reach_the_kernel():
    split = split_options(['context="u:r:t:s0,c1"'], read_only=False)
    assert split.parameters == (("context", "u:r:t:s0,c1"),)


def test_value_keeps_further_equal_signs():
    assert split_options(["a=b=c", "d="], read_only=False).parameters == (("a", "b=c"), ("d", ""))


def test_bind_sets_and_clears_attributes():
    attr_set, attr_clear = parse_bind_options(("nosuid", "exec", "noatime"), "/t")
    assert attr_set == NOSUID | libc.MOUNT_ATTR_NOATIME
    assert attr_clear == NOEXEC | libc.MOUNT_ATTR_ATIME_MASK


def test_bind_never_sets_and_clears_the_same_attribute():
    attr_set, attr_clear = parse_bind_options(("nosuid", "suid", "dev", "nodev"), "/t")
    assert (attr_set, attr_clear) == (NODEV, NOSUID)


def test_bind_refuses_what_is_no_attribute():
    with pytest.raises(HostError, match="size=1"):
        parse_bind_options(("nosuid", "size=1"), "/t")


def test_attributes_read_as_mountinfo_has_them():
    assert describe_attributes(0) == ["rw", "relatime"]
    everything = RO | NOSUID | NODEV | NOEXEC | libc.MOUNT_ATTR_NOATIME | libc.MOUNT_ATTR_NODIRATIME
    assert describe_attributes(everything) == [
        "ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime",
    ]  # fmt: skip
    assert describe_attributes(libc.MOUNT_ATTR_STRICTATIME) == ["rw"]
