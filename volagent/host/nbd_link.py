"""Talking to an NBD server until it is ready for the kernel: greeting, TLS, the export's facts.

The fixed newstyle negotiation of the NBD protocol (https://github.com/NetworkBlockDevice/nbd,
doc/proto.md): `NBD_OPT_STARTTLS` when asked for, then `NBD_OPT_GO` for one export by its name.
(`NBD_OPT_INFO` would only ask, but nbd-server 3.24 opens no export for it and answers 0 bytes.)
Blocks, with a bound per read: for child processes only.

A certificate and its key reach OpenSSL through files in memory without a name (memfd), so neither
ever has a path that somebody else could open.
"""

import errno
import os
import socket
import ssl
import struct
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from volagent.host.errors import Absent, HostError, Unsupported

FLAG_READ_ONLY: Final = 1 << 1

_GREETING: Final = struct.Struct(">8s8sH")
_OPTION: Final = struct.Struct(">8sII")
_REPLY: Final = struct.Struct(">QIII")
_INFO_EXPORT: Final = struct.Struct(">HQH")
_INFO_BLOCK_SIZE: Final = struct.Struct(">HIII")
_MAGIC: Final = b"NBDMAGIC"
_OPTION_MAGIC: Final = b"IHAVEOPT"
_REPLY_MAGIC: Final = 0x3E889045565A9
_FIXED_NEWSTYLE: Final = 1
_NO_ZEROES: Final = 2
_OPT_STARTTLS: Final = 5
_OPT_GO: Final = 7
_REQUEST: Final = struct.Struct(">IHHQQI")
_REQUEST_MAGIC: Final = 0x25609513
_COMMAND_DISCONNECT: Final = 2
_REP_ACK: Final = 1
_REP_INFO: Final = 3
_REP_ERROR: Final = 1 << 31
_ERR_UNSUPPORTED: Final = _REP_ERROR + 1
_ERR_TLS_REQUIRED: Final = _REP_ERROR + 5
_ERR_UNKNOWN: Final = _REP_ERROR + 6
_ERRORS: Final = {
    _ERR_UNSUPPORTED: "it does not know NBD_OPT_GO or NBD_OPT_STARTTLS",
    _REP_ERROR + 2: "its policy forbids it",
    _REP_ERROR + 3: "it calls the request invalid",
    _REP_ERROR + 4: "its platform cannot do it",
    _ERR_TLS_REQUIRED: "it wants TLS",
    _ERR_UNKNOWN: "it does not know the export",
    _REP_ERROR + 7: "it is shutting down",
    _REP_ERROR + 8: "it wants another block size",
}
_TYPE_EXPORT: Final = 0
_TYPE_BLOCK_SIZE: Final = 3
_REPLY_BYTES_MAX: Final = 64 * 1024
_REPLIES_MAX: Final = 32
BLOCK_BYTES_MIN: Final = 512
BLOCK_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Target:
    """Which export, and how to talk to its server."""

    server: str
    port: int
    export: str
    tls: dict[str, str] | None = field(default=None, repr=False)
    """`ca`, `certificate`, `key` in PEM, and `host_name` to check the server's by."""

    @property
    def identity(self) -> str:
        """What the kernel keeps as the device's backend."""
        return f"{self.server}:{self.port}/{self.export}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of an export."""

    size_bytes: int
    flags: int
    """The transmission flags, as the kernel takes them."""
    block_bytes: int


@dataclass(slots=True)
class Link:
    """A negotiated connection; `stream` encrypts when TLS was asked for."""

    stream: socket.socket
    facts: Facts

    def close(self) -> None:
        """Idempotent."""
        self.stream.close()


def dial(target: Target, *, timeout_s: float) -> Link:
    """Connect and negotiate: afterwards the server waits for requests on this export.

    Raises `Absent` (no such export), `Unsupported` (no server that we can talk to), `HostError`.
    """
    where = f"{target.server}:{target.port}"
    stream = _connect(target, where, timeout_s)
    try:
        stream.settimeout(timeout_s)
        _greet(stream, where)
        if target.tls is not None:
            stream = _encrypt(stream, target.tls, where)
        return Link(stream, _ask(stream, target, where, time.monotonic() + timeout_s))
    except TimeoutError as error:
        stream.close()
        detail = "connected, but it does not answer"
        raise HostError("negotiate", where, errno.ETIMEDOUT, detail) from error
    except ssl.SSLError as error:
        stream.close()
        raise HostError("TLS", where, errno.EPROTO, _words_of(error)) from error
    except OSError as error:
        stream.close()
        raise HostError("negotiate", where, error.errno or errno.EIO) from error
    except BaseException:
        stream.close()
        raise


def inquire(target: Target, *, timeout_s: float) -> Facts:
    """What the server says of the export now, by a connection of its own. Raises as `dial`."""
    link = dial(target, timeout_s=timeout_s)
    try:
        link.stream.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _COMMAND_DISCONNECT, 0, 0, 0))
    except OSError:
        pass  # it has told all that we wanted to know
    finally:
        link.close()
    return link.facts


def _connect(target: Target, where: str, timeout_s: float) -> socket.socket:
    try:
        stream = socket.create_connection((target.server, target.port), timeout_s)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except socket.gaierror as error:
        raise HostError(
            "resolve", target.server, errno.EHOSTUNREACH, str(error.strerror)
        ) from error
    except TimeoutError as error:
        raise HostError("connect", where, errno.ETIMEDOUT) from error
    except OSError as error:
        raise HostError("connect", where, error.errno or errno.EIO) from error
    return stream


def _greet(stream: socket.socket, where: str) -> None:
    magic, style, flags = _GREETING.unpack(_read(stream, _GREETING.size, where))
    if (magic, style) != (_MAGIC, _OPTION_MAGIC) or not flags & _FIXED_NEWSTYLE:
        raise Unsupported("negotiate", where, errno.EPROTO, "no NBD server of the newstyle kind")
    stream.sendall(struct.pack(">I", _FIXED_NEWSTYLE | (flags & _NO_ZEROES)))


def _encrypt(stream: socket.socket, tls: dict[str, str], where: str) -> socket.socket:
    stream.sendall(_OPTION.pack(_OPTION_MAGIC, _OPT_STARTTLS, 0))
    _, kind, said = _read_reply(stream, _OPT_STARTTLS, where)
    if kind != _REP_ACK:
        raise _explain_refusal("start TLS", where, kind, said)
    return _make_context(tls).wrap_socket(stream, server_hostname=tls["host_name"])


def _make_context(tls: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=tls["ca"])
        if tls["certificate"]:
            with ExitStack() as files:
                certificate = _open_in_memory(files, tls["certificate"])
                context.load_cert_chain(certificate, _open_in_memory(files, tls["key"]))
    except (ssl.SSLError, ValueError) as error:
        detail = f"the secret's certificates cannot be used: {_words_of(error)}"
        # Not chained: nothing of the material may be shown.
        raise HostError("TLS", "certificates", errno.EINVAL, detail) from None
    return context


def _open_in_memory(files: ExitStack, content: str) -> str:
    fd = os.memfd_create("nbd", os.MFD_CLOEXEC)
    files.callback(os.close, fd)
    os.write(fd, content.encode())
    return f"/proc/self/fd/{fd}"


def _ask(stream: socket.socket, target: Target, where: str, until_s: float) -> Facts:
    name = target.export.encode()
    wants = struct.pack(">HH", 1, _TYPE_BLOCK_SIZE)
    data = struct.pack(">I", len(name)) + name + wants
    stream.sendall(_OPTION.pack(_OPTION_MAGIC, _OPT_GO, len(data)) + data)
    size_bytes, flags, block_bytes = -1, 0, BLOCK_BYTES_MIN
    for _ in range(_REPLIES_MAX):
        if time.monotonic() > until_s:
            raise TimeoutError
        _, kind, said = _read_reply(stream, _OPT_GO, where)
        if kind == _REP_ACK and size_bytes >= 0:
            return Facts(size_bytes, flags, block_bytes)
        if kind != _REP_INFO:
            raise _explain_refusal("open", f"{where}/{target.export}", kind, said)
        about = int.from_bytes(said[:2], "big")
        if about == _TYPE_EXPORT and len(said) == _INFO_EXPORT.size:
            _, size_bytes, flags = _INFO_EXPORT.unpack(said)
        elif about == _TYPE_BLOCK_SIZE and len(said) == _INFO_BLOCK_SIZE.size:
            block_bytes = _choose_block_bytes(_INFO_BLOCK_SIZE.unpack(said)[1], where)
    raise Unsupported("negotiate", where, errno.EPROTO, "it talks without end")


def _choose_block_bytes(smallest: int, where: str) -> int:
    """The sector size of the device: what the server can do at least, in what the kernel can."""
    if smallest > BLOCK_BYTES_MAX:
        detail = (
            f"it wants blocks of {smallest} bytes, and the kernel has at most {BLOCK_BYTES_MAX}"
        )
        raise Unsupported("negotiate", where, errno.EINVAL, detail)
    return max(BLOCK_BYTES_MIN, smallest)


def _read_reply(stream: socket.socket, option: int, where: str) -> tuple[int, int, bytes]:
    magic, answered, kind, length = _REPLY.unpack(_read(stream, _REPLY.size, where))
    if magic != _REPLY_MAGIC or answered != option or length > _REPLY_BYTES_MAX:
        raise Unsupported("negotiate", where, errno.EPROTO, "its answer is not NBD's")
    return answered, kind, _read(stream, length, where)


def _read(stream: socket.socket, length: int, where: str) -> bytes:
    data = b""
    while len(data) < length:
        part = stream.recv(length - len(data))
        if not part:
            detail = "the server closed the connection; does it allow this machine?"
            raise HostError("negotiate", where, errno.ECONNRESET, detail)
        data += part
    return data


def _explain_refusal(call: str, subject: str, kind: int, said: bytes) -> HostError:
    words = "".join(c for c in said.decode(errors="replace") if c.isprintable())[:200]
    detail = _ERRORS.get(kind, f"it refuses with {kind:#x}") + (f": {words!r}" if words else "")
    if kind == _ERR_UNKNOWN:
        return Absent(call, subject, errno.ENOENT, detail)
    if kind == _ERR_UNSUPPORTED:
        return Unsupported(call, subject, errno.EOPNOTSUPP, detail)
    return HostError(call, subject, errno.EACCES, detail)


def _words_of(error: Any) -> str:
    message = getattr(error, "verify_message", "") or getattr(error, "reason", "") or ""
    return str(message or error.__class__.__name__)
