"""etcd's messages as its JSON gateway speaks them: what is asked, and what is answered.

Bytes travel as base64, 64-bit numbers as text; both are msgspec's own conversions (`strict=False`).
A field that is zero, empty or false is left out by etcd, so each has that default. Source: etcd's
`rpc.proto` and `kv.proto` (3.4).
"""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import msgspec

Request = dict[str, Any]


class Header(msgspec.Struct, frozen=True):
    """Which cluster answered, at which revision."""

    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0


class KeyValue(msgspec.Struct, frozen=True):
    """A key; of a deleted one only `key` and `mod_revision` are told."""

    key: bytes = b""
    create_revision: int = 0
    mod_revision: int = 0
    value: bytes = b""


class Range(msgspec.Struct, frozen=True):
    """The answer to a read."""

    header: Header = Header()
    kvs: tuple[KeyValue, ...] = ()
    more: bool = False


class Part(msgspec.Struct, frozen=True):
    """The answer to one operation of a transaction."""

    response_range: Range | None = None


class Txn(msgspec.Struct, frozen=True):
    """The answer to a transaction."""

    header: Header = Header()
    succeeded: bool = False
    responses: tuple[Part, ...] = ()


class Event(msgspec.Struct, frozen=True):
    """One change of one key."""

    kv: KeyValue
    type: str = "PUT"


class Told(msgspec.Struct, frozen=True):
    """What a watch says at once."""

    header: Header = Header()
    created: bool = False
    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: tuple[Event, ...] = ()


class Failure(msgspec.Struct, frozen=True):
    """Why there is no answer; `code` is gRPC's."""

    error: str = ""
    message: str = ""
    code: int = 0
    grpc_code: int = 0


class WatchLine(msgspec.Struct, frozen=True):
    """One line of a watch."""

    result: Told | None = None
    error: Failure | None = None


class Lease(msgspec.Struct, frozen=True):
    """A lease that was granted, or renewed; `TTL` 0: it is over."""

    header: Header = Header()
    id: int = msgspec.field(name="ID", default=0)
    ttl_s: int = msgspec.field(name="TTL", default=0)


class LeaseLine(msgspec.Struct, frozen=True):
    """One line of a stream of renewals."""

    result: Lease | None = None
    error: Failure | None = None


class Status(msgspec.Struct, frozen=True):
    """How a member is."""

    header: Header = Header()
    version: str = ""
    db_bytes: int = msgspec.field(name="dbSize", default=0)
    used_bytes: int = msgspec.field(name="dbSizeInUse", default=0)
    leader: int = 0


class Done(msgspec.Struct, frozen=True):
    """An answer of which only the header counts."""

    header: Header = Header()


def text(data: bytes) -> str:
    """Bytes as they travel."""
    return b64encode(data).decode("ascii")


def end_of(prefix: bytes) -> bytes:
    """The first key after all that begin with a prefix."""
    return prefix[:-1] + bytes([prefix[-1] + 1])


def read(key: bytes, end: bytes = b"", *, limit: int = 0, revision: int = 0) -> Request:
    """Read a key, or all from it to `end`."""
    request: Request = {"key": text(key)}
    if end:
        request["range_end"] = text(end)
    if limit:
        request["limit"] = limit
    if revision:
        request["revision"] = revision
    return request


def put(key: bytes, value: bytes, lease: int = 0) -> Request:
    """An operation: set a key."""
    request: Request = {"key": text(key), "value": text(value)}
    if lease:
        request["lease"] = str(lease)
    return {"request_put": request}


def remove(key: bytes) -> Request:
    """An operation: delete a key."""
    return {"request_delete_range": {"key": text(key)}}


def is_at(key: bytes, mod_revision: int) -> Request:
    """A condition: the key was last changed at this revision; 0: it is not there."""
    return {"key": text(key), "target": "MOD", "mod_revision": mod_revision}


def is_life(key: bytes, create_revision: int) -> Request:
    """A condition: this life of the key began at this revision."""
    return {"key": text(key), "target": "CREATE", "create_revision": create_revision}


def txn(
    conditions: Sequence[Request], then: Sequence[Request], otherwise: Sequence[Request]
) -> Request:
    """Do `then` if all conditions hold, else `otherwise`; all at one revision."""
    return {"compare": conditions, "success": then, "failure": otherwise}
