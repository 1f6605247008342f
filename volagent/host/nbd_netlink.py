"""The kernel's NBD devices by generic netlink: connect, replace a dead connection, disconnect.

What ioctls (and `nbd-client` 3.24) cannot say: who is behind a device (`BACKEND_IDENTIFIER`, Linux
5.14), how long I/O waits for a connection that died (`DEAD_CONN_TIMEOUT`), a new connection for the
old device (`RECONFIGURE`), a new size. The kernel chooses the free device itself, so two never get
one. Numbers are those of linux/nbd-netlink.h and linux/genetlink.h.

The bare minimum of netlink, because the processes that need it must start quickly and stay small.
Blocks for microseconds to milliseconds. One object, one thread.
"""

import errno
import itertools
import os
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final

from volagent.host.errors import HostError, Unsupported

_GENERIC: Final = 16
_HEADER: Final = struct.Struct("=IHHII")
_GENERIC_HEADER: Final = struct.Struct("=BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ERROR: Final = 2
_REQUEST_AND_ACK: Final = 0x1 | 0x4
_NESTED: Final = 0x8000
_TYPE_MASK: Final = 0x3FFF
_CONTROL: Final = 16
_GET_FAMILY: Final = 3
_FAMILY_ID: Final = 1
_FAMILY_NAME: Final = 2
_GROUPS: Final = 7
_GROUP_ID: Final = 2
_SOL_NETLINK: Final = 270
_ADD_MEMBERSHIP: Final = 1

_CONNECT: Final = 1
_DISCONNECT: Final = 2
_RECONFIGURE: Final = 3
_LINK_DEAD: Final = 4
_INDEX: Final = 1
_SIZE_BYTES: Final = 2
_BLOCK_SIZE_BYTES: Final = 3
_TIMEOUT: Final = 4
_SERVER_FLAGS: Final = 5
_SOCKETS: Final = 7
_DEAD_CONN_TIMEOUT: Final = 8
_BACKEND_IDENTIFIER: Final = 10
_SOCK_ITEM: Final = 1
_SOCK_FD: Final = 1

REQUEST_TIMEOUT_S: Final = 30
"""A request of the block layer without an answer for so long ends the connection and is sent again
on the next one. Nothing fails."""
DEAD_TIMEOUT_S: Final = 24 * 3600
"""How long I/O waits for a server that has gone before it fails."""
_ANSWER_TIMEOUT_S: Final = 20.0
_MESSAGE_BYTES_MAX: Final = 64 * 1024


class NbdNetlink:
    """The kernel's NBD family. Raises `Unsupported` when the kernel has none (no module)."""

    def __init__(self) -> None:
        self._sequence = itertools.count(1)
        self._end = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _GENERIC
        )
        try:
            self._end.bind((0, 0))
            self._end.settimeout(_ANSWER_TIMEOUT_S)
            self._family, self._groups = self._find_family()
        except BaseException:
            self._end.close()
            raise

    def close(self) -> None:
        """Idempotent."""
        self._end.close()

    def connect(
        self, fd: int, identity: str, *, size_bytes: int, block_bytes: int, flags: int
    ) -> int:
        """Give a negotiated connection to a free device; its number. Raises `HostError`."""
        answers = self._request(
            "connect", identity, _CONNECT,
            (_SIZE_BYTES, _u64(size_bytes)),
            (_BLOCK_SIZE_BYTES, _u64(block_bytes)),
            (_TIMEOUT, _u64(REQUEST_TIMEOUT_S)),
            (_DEAD_CONN_TIMEOUT, _u64(DEAD_TIMEOUT_S)),
            (_SERVER_FLAGS, _u64(flags)),
            (_BACKEND_IDENTIFIER, _text(identity)),
            _sockets(fd),
        )  # fmt: skip
        for answer in answers:
            for kind, data in _attributes(answer):
                if kind == _INDEX:
                    return int(struct.unpack("=I", data)[0])
        raise HostError("nbd connect", identity, errno.EPROTO, "the kernel does not say where")

    def replace(self, index: int, fd: int, identity: str, *, size_bytes: int | None) -> None:
        """Offer a new connection in place of a dead one, and a size.

        Only a dead one is replaced, and the kernel does not say whether it was: `is_taken`.
        Raises `HostError` (EINVAL: the device is not connected, or not to this identity).
        """
        size = () if size_bytes is None else ((_SIZE_BYTES, _u64(size_bytes)),)
        self._request(
            "reconnect", identity, _RECONFIGURE,
            (_INDEX, struct.pack("=I", index)),
            (_TIMEOUT, _u64(REQUEST_TIMEOUT_S)),
            (_DEAD_CONN_TIMEOUT, _u64(DEAD_TIMEOUT_S)),
            (_BACKEND_IDENTIFIER, _text(identity)),
            *size,
            _sockets(fd),
        )  # fmt: skip

    def disconnect(self, index: int) -> None:
        """End a device's connection. Raises `HostError`."""
        self._request(
            "disconnect", f"/dev/nbd{index}", _DISCONNECT, (_INDEX, struct.pack("=I", index))
        )

    def listen(self) -> socket.socket:
        """A non-blocking socket on which the kernel tells of dead connections."""
        end = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            _GENERIC,
        )
        end.bind((0, 0))
        for group in self._groups:
            end.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        return end

    def _find_family(self) -> tuple[int, list[int]]:
        try:
            answers = self._ask(_CONTROL, _GET_FAMILY, ((_FAMILY_NAME, _text("nbd")),))
        except OSError as error:
            detail = "the kernel has no NBD, or its module is not loaded"
            raise Unsupported("netlink", "nbd", error.errno or 0, detail) from error
        family, groups = 0, []
        for answer in answers:
            for kind, data in _attributes(answer):
                if kind == _FAMILY_ID:
                    (family,) = struct.unpack("=H", data)
                elif kind == _GROUPS:
                    groups += [_read_group(group) for _, group in _attributes(data)]
        return family, groups

    def _request(
        self, call: str, subject: str, command: int, *attributes: tuple[int, bytes]
    ) -> list[bytes]:
        try:
            return self._ask(self._family, command, attributes)
        except OSError as error:
            raise HostError(f"nbd {call}", subject, error.errno or errno.ETIMEDOUT) from error

    def _ask(
        self, family: int, command: int, attributes: tuple[tuple[int, bytes], ...]
    ) -> list[bytes]:
        """One request and its acknowledgement. Raises `OSError`."""
        sequence = next(self._sequence)
        body = _GENERIC_HEADER.pack(command, 1, 0) + _pack(*attributes)
        header = _HEADER.pack(_HEADER.size + len(body), family, _REQUEST_AND_ACK, sequence, 0)
        self._end.send(header + body)
        answers = []
        while True:
            for kind, about, data in _messages(self._end.recv(_MESSAGE_BYTES_MAX)):
                if about != sequence:
                    continue
                if kind != _ERROR:
                    answers.append(data[_GENERIC_HEADER.size :])
                    continue
                code = -struct.unpack_from("=i", data)[0]
                if code:
                    raise OSError(code, os.strerror(code))
                return answers


def read_deaths(end: socket.socket) -> set[int] | None:
    """Devices whose connection died, as told on a listening socket; None: some news were lost."""
    dead: set[int] = set()
    while True:
        try:
            data = end.recv(_MESSAGE_BYTES_MAX)
        except BlockingIOError:
            return dead
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return None
            raise
        for _, _, body in _messages(data):
            if body[:1] == bytes((_LINK_DEAD,)):
                dead |= {
                    struct.unpack("=I", value)[0]
                    for kind, value in _attributes(body[_GENERIC_HEADER.size :])
                    if kind == _INDEX
                }


def is_taken(fd: socket.socket) -> bool:
    """Whether the kernel's NBD has taken this connection: it sets its own time-out on it."""
    return any(fd.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, _, sequence, _ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[_HEADER.size : length]
        data = data[_align(length) :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : length]
        data = data[_align(length) :]


def _read_group(data: bytes) -> int:
    for kind, value in _attributes(data):
        if kind == _GROUP_ID:
            return int.from_bytes(value, sys.byteorder)
    return 0


def _pack(*attributes: tuple[int, bytes]) -> bytes:
    packed = b""
    for kind, data in attributes:
        length = _ATTRIBUTE.size + len(data)
        packed += _ATTRIBUTE.pack(length, kind) + data + bytes(_align(length) - length)
    return packed


def _sockets(fd: int) -> tuple[int, bytes]:
    item = _pack((_SOCK_FD, struct.pack("=I", fd)))
    return _SOCKETS | _NESTED, _pack((_SOCK_ITEM | _NESTED, item))


def _u64(number: int) -> bytes:
    return struct.pack("=Q", number)


def _text(text: str) -> bytes:
    return text.encode() + b"\0"


def _align(length: int) -> int:
    return (length + 3) & ~3
