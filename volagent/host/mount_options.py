"""Mount options as people write them, sorted into what each system call takes. Pure.

`mount(8)` takes one comma-separated list; the kernel wants three things apart: attributes of the
*mount* (nosuid, noatime, ...), parameters of the *superblock* (discard, commit=5, ...), and not at
all the words that only `mount(8)` and systemd read from fstab (defaults, nofail, x-..., ...).
"""

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from volagent.host import libc
from volagent.host.errors import HostError

_RELATIME = 0

# Word → (attributes set, attributes cleared).
_MOUNT_ATTRIBUTES: dict[str, tuple[int, int]] = {
    "ro": (libc.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, libc.MOUNT_ATTR_RDONLY),
    "nosuid": (libc.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, libc.MOUNT_ATTR_NOSUID),
    "nodev": (libc.MOUNT_ATTR_NODEV, 0),
    "dev": (0, libc.MOUNT_ATTR_NODEV),
    "noexec": (libc.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, libc.MOUNT_ATTR_NOEXEC),
    "nodiratime": (libc.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, libc.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (libc.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, libc.MOUNT_ATTR_NOSYMFOLLOW),
    # The access-time modes are one field of three bits: setting one clears all of it first.
    "noatime": (libc.MOUNT_ATTR_NOATIME, libc.MOUNT_ATTR_ATIME_MASK),
    "relatime": (_RELATIME, libc.MOUNT_ATTR_ATIME_MASK),
    "strictatime": (libc.MOUNT_ATTR_STRICTATIME, libc.MOUNT_ATTR_ATIME_MASK),
    "atime": (_RELATIME, libc.MOUNT_ATTR_ATIME_MASK),
    "norelatime": (_RELATIME, libc.MOUNT_ATTR_ATIME_MASK),
    "nostrictatime": (_RELATIME, libc.MOUNT_ATTR_ATIME_MASK),
}

# What mount(8) itself swallows: of no meaning to a kernel.
# fmt: off
_FSTAB_WORDS = frozenset((
    "defaults", "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner",
    "group", "nogroup", "_netdev", "nofail", "silent", "loud", "iversion", "noiversion",
))
# fmt: on


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """Options sorted for `fsconfig` and `fsmount`."""

    attributes: int
    """MOUNT_ATTR_ bits of the mount."""
    parameters: tuple[tuple[str, str | None], ...]
    """Superblock parameters: name, and value or None for a flag."""


def split_words(options: Iterable[str]) -> list[str]:
    """Single options: each item may itself be a comma-separated list, quotes kept together."""
    words: list[str] = []
    for item in options:
        if '"' not in item:
            words += [word for word in item.split(",") if word]
            continue
        word, quoted = "", False
        for character in item:
            if character == '"':
                quoted = not quoted
            if character == "," and not quoted:
                words.append(word)
                word = ""
            else:
                word += character
        words.append(word)
    return [word for word in words if word]


def split_options(options: Sequence[str], *, read_only: bool) -> SplitOptions:
    """Sort the options of a file system that is to be mounted. Unknown words are the kernel's."""
    attributes = 0
    parameters: list[tuple[str, str | None]] = []
    for word in split_words(options):
        name, equals, value = word.partition("=")
        known = None if equals else _MOUNT_ATTRIBUTES.get(name)
        if known is not None:
            attributes = attributes & ~known[1] | known[0]
            read_only = read_only or name == "ro"
        elif name not in _FSTAB_WORDS and not name.startswith(("x-", "X-", "comment")):
            parameters.append((name, value.strip('"') if equals else None))
    if read_only:
        attributes |= libc.MOUNT_ATTR_RDONLY
        parameters.append(("ro", None))
    return SplitOptions(attributes, tuple(parameters))


def parse_bind_options(options: Sequence[str], target: str) -> tuple[int, int]:
    """Attributes to set and to clear on a bind mount.

    A bind has no superblock of its own, so a word that is no attribute raises `HostError`.
    """
    attr_set = attr_clear = 0
    for word in split_words(options):
        known = _MOUNT_ATTRIBUTES.get(word)
        if known is not None:
            attr_set = attr_set & ~known[1] | known[0]
            attr_clear = attr_clear & ~known[0] | known[1]
        elif word not in _FSTAB_WORDS and word not in ("bind", "rbind"):
            raise HostError("mount_setattr", target, errno.EINVAL, f"no bind mount option: {word}")
    return attr_set, attr_clear


def describe_attributes(attributes: int) -> list[str]:
    """The words of mountinfo for MOUNT_ATTR_ bits, in its order."""
    words = ["ro" if attributes & libc.MOUNT_ATTR_RDONLY else "rw"]
    if attributes & libc.MOUNT_ATTR_NOSUID:
        words.append("nosuid")
    if attributes & libc.MOUNT_ATTR_NODEV:
        words.append("nodev")
    if attributes & libc.MOUNT_ATTR_NOEXEC:
        words.append("noexec")
    if attributes & libc.MOUNT_ATTR_NOATIME:
        words.append("noatime")
    if attributes & libc.MOUNT_ATTR_NODIRATIME:
        words.append("nodiratime")
    if attributes & libc.MOUNT_ATTR_ATIME_MASK == _RELATIME:
        words.append("relatime")
    if attributes & libc.MOUNT_ATTR_NOSYMFOLLOW:
        words.append("nosymfollow")
    if attributes & libc.MOUNT_ATTR_IDMAP:
        words.append("idmapped")
    return words
