"""Where things lie in etcd, and how a stored object looks.

    /PREFIX/facts               what this store is: format, offset of revisions, whether it is whole
    /PREFIX/objects/pods/NS/N   one object: `MARK\\nDOCUMENT`
    /PREFIX/deleted             the mark of the last delete
    /PREFIX/leader              who runs the controllers; under a lease of etcd's
    /PREFIX/keys/NAME           what all servers share: token key, certificate authority

A *mark* names one write: whoever follows the changes knows by it which of them were its own, also
when etcd's answer was lost. A *revision* of the store is etcd's plus `offset`, which is chosen when
a store is filled from a backup, so that revisions go on from there and never come again.
"""

import secrets
from dataclasses import dataclass, field

import msgspec

FORMAT_VERSION = 1
MARK_BYTES = 22


class Facts(msgspec.Struct, frozen=True):
    """What a store is."""

    format: int
    offset: int = 0
    whole: bool = True
    """False while it is filled: a restore that was interrupted has to be begun again."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one store."""

    prefix: str
    objects: bytes = field(init=False)
    facts: bytes = field(init=False)
    deleted: bytes = field(init=False)
    leader: bytes = field(init=False)
    keys: bytes = field(init=False)

    def __post_init__(self) -> None:
        for name in ("objects", "facts", "deleted", "leader", "keys"):
            object.__setattr__(self, name, f"/{self.prefix}/{name}".encode())

    @property
    def whole(self) -> bytes:
        """What all keys begin with."""
        return f"/{self.prefix}/".encode()

    def object_key(self, key: str) -> bytes:
        """Where an object lies."""
        return self.objects + key.encode()

    def shared_key(self, name: str) -> bytes:
        """Where something lies that all servers share."""
        return self.keys + b"/" + name.encode()


class Marks:
    """Makes marks that no other process makes."""

    def __init__(self) -> None:
        self._own = secrets.token_hex(6).encode()
        self._count = 0

    def draw(self) -> bytes:
        """A new one."""
        self._count += 1
        return self._own + b"%010x" % self._count


def frame(mark: bytes, document: bytes) -> bytes:
    """What is stored."""
    return mark + b"\n" + document


def unframe(value: bytes) -> tuple[bytes, bytes]:
    """Mark and document."""
    return value[:MARK_BYTES], value[MARK_BYTES + 1 :]
