"""A negotiated connection as the kernel's NBD takes it: the TCP socket, or one end of a pair.

The kernel's NBD speaks no TLS. With TLS it gets one end of a socket pair, and whoever keeps the
other end carries bytes between that and the encrypted connection (`carry`), as `nbd-client` does.
Not thread-safe; `carry` never blocks.
"""

import select
import socket
import ssl
from typing import Final

from volagent.host import nbd_netlink
from volagent.host.nbd_link import Facts, Link

_CARRIED_BYTES_MAX: Final = 1 << 20
"""Held in each direction; beyond it, the sender is not read."""
_CHUNK_BYTES: Final = 128 * 1024


class Wire:
    """One connection and what is known of its export."""

    def __init__(self, link: Link) -> None:
        self.facts: Facts = link.facts
        self._stream = link.stream
        self._ours: socket.socket | None = None
        self.kernel_end = link.stream
        self._to_server = bytearray()
        self._to_kernel = bytearray()
        if isinstance(link.stream, ssl.SSLSocket):
            self._ours, self.kernel_end = socket.socketpair()
            self._ours.setblocking(False)
            link.stream.setblocking(False)
        else:
            link.stream.setblocking(True)

    @property
    def is_taken(self) -> bool:
        """Whether the kernel uses it."""
        return nbd_netlink.is_taken(self.kernel_end)

    def cut(self) -> None:
        """End it, so that the kernel notices and wants another; idempotent."""
        for end in (self._ours, self._stream):
            if end is not None:
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # it is dead already

    def close(self) -> None:
        """Idempotent."""
        self.cut()
        for end in (self._ours, self.kernel_end, self._stream):
            if end is not None:
                end.close()

    def wants(self) -> dict[int, int]:
        """What to poll for: descriptor to events. An end of the connection is always told."""
        if self._ours is None:
            return {self._stream.fileno(): select.POLLRDHUP}
        reads_server = len(self._to_kernel) < _CARRIED_BYTES_MAX
        reads_kernel = len(self._to_server) < _CARRIED_BYTES_MAX
        return {
            self._stream.fileno(): _events(reads=reads_server, writes=bool(self._to_server)),
            self._ours.fileno(): _events(reads=reads_kernel, writes=bool(self._to_kernel)),
        }

    def carry(self) -> bool:
        """Move what can be moved without waiting; False when the connection has ended."""
        if self._ours is None:
            return False  # only its end is polled for
        assert isinstance(self._stream, ssl.SSLSocket)
        try:
            while True:
                moved = _fill(self._ours, self._to_server) + _fill(self._stream, self._to_kernel)
                moved += _drain(self._ours, self._to_kernel)
                moved += _drain(self._stream, self._to_server)
                if not moved:
                    return True
        except OSError:  # an end of the connection too
            return False


def _events(*, reads: bool, writes: bool) -> int:
    return (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0)


def _fill(end: socket.socket, held: bytearray) -> int:
    """Read into a buffer. Raises `OSError` at the end of the stream."""
    if len(held) >= _CARRIED_BYTES_MAX:
        return 0
    try:
        data = end.recv(_CHUNK_BYTES)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return 0
    if not data:
        raise ConnectionResetError
    held += data
    return len(data)


def _drain(end: socket.socket, held: bytearray) -> int:
    """Write from a buffer."""
    if not held:
        return 0
    try:
        # TLS wants to be offered the same bytes again when it could not write them.
        sent = end.send(bytes(held[:_CHUNK_BYTES]))
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return 0
    del held[:sent]
    return sent
