"""A backup: every object as it is stored, and what else makes it the same cluster. Pure.

A file of lines: a header, one line per object and per shared secret, and the digest of all that
stands before it, so that a file that was cut off or changed is known for one. It holds all Secrets,
the key that tokens are signed with and the certificate authority's: it is to be kept like those.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

FORMAT_VERSION = 1
GAP = 10_000_000
"""Revisions left out when a store is filled: those that clients saw after the backup was taken."""


class BackupError(ValueError):
    """The file is no backup, or not a whole one."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one revision."""

    revision: int
    objects: list[tuple[str, bytes]]
    """The store's keys (`/pods/default/web`) and values."""
    shared: dict[str, bytes]
    """What the servers of a cluster have besides: the token key, the authority."""

    @property
    def resume_after(self) -> int:
        """Every revision of a store that is filled from this is greater."""
        return self.revision + GAP


class _Header(msgspec.Struct, frozen=True):
    volagent_backup: int
    revision: int
    objects: int


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """An object, or (with `shared`) a shared secret; bytes are base64."""

    value: bytes
    key: str = ""
    shared: str = ""


class _Trailer(msgspec.Struct, frozen=True):
    sha256: str


def encode_lines(snapshot: Snapshot) -> Iterator[bytes]:
    """The file, line by line."""
    encoder, digest = msgspec.json.Encoder(), hashlib.sha256()
    lines: Iterable[msgspec.Struct] = (
        _Header(FORMAT_VERSION, snapshot.revision, len(snapshot.objects)),
        *(_Line(value, shared=name) for name, value in sorted(snapshot.shared.items())),
    )
    for line in lines:
        text = encoder.encode(line) + b"\n"
        digest.update(text)
        yield text
    for key, value in snapshot.objects:
        text = encoder.encode(_Line(value, key=key)) + b"\n"
        digest.update(text)
        yield text
    yield encoder.encode(_Trailer(digest.hexdigest())) + b"\n"


def decode(content: bytes) -> Snapshot:
    """What a file holds. Raises `BackupError`."""
    body, _, last = content.rstrip(b"\n").rpartition(b"\n")
    body += b"\n"
    try:
        trailer = msgspec.json.decode(last, type=_Trailer)
        first, *rest = body.splitlines()
        header = msgspec.json.decode(first, type=_Header)
        if header.volagent_backup != FORMAT_VERSION:
            raise BackupError(f"it has format {header.volagent_backup}, this volagent reads"
                              f" {FORMAT_VERSION}")  # fmt: skip
        if trailer.sha256 != hashlib.sha256(body).hexdigest():
            raise BackupError("it was changed or damaged: its digest is another one")
        decoder = msgspec.json.Decoder(_Line)
        lines = [decoder.decode(line) for line in rest]
    except (msgspec.MsgspecError, ValueError) as error:
        if isinstance(error, BackupError):
            raise
        raise BackupError("it is no backup of volagent's, or was cut off") from error
    objects = [(line.key, line.value) for line in lines if line.key]
    if len(objects) != header.objects:
        raise BackupError(f"it should hold {header.objects} objects and holds {len(objects)}")
    shared = {line.shared: line.value for line in lines if line.shared}
    return Snapshot(header.revision, objects, shared)
