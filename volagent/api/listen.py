"""Where the API listens: `unix://PATH` and `https://ADDRESS:PORT`.

A socket file that a dead daemon left is replaced; one that somebody still answers on is not, so a
second daemon on the same directory fails here instead of taking the clients away from the first.
"""

import errno
import grp
import os
import re
import socket
import stat
from dataclasses import dataclass

PATH_LIMIT_BYTES = 107
"""`sockaddr_un.sun_path` holds 108 bytes with the final NUL."""
BACKLOG = 1024

_HTTPS = re.compile(r"https://(\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\]|[^\s:/\[\]]+):(\d{1,5})/?")


class ListenError(Exception):
    """The API cannot listen there."""


@dataclass(frozen=True, slots=True)
class UnixListener:
    """A unix socket."""

    path: str


@dataclass(frozen=True, slots=True)
class TlsListener:
    """A TCP port with TLS. `host` is a name or an address, without brackets."""

    host: str
    port: int


Listener = UnixListener | TlsListener


def parse_listener(text: str) -> Listener:
    """What a `--listen` value says. Raises `ListenError`."""
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if not os.path.isabs(path) or "\0" in path:
            raise ListenError(f"{text}: want unix:///absolute/path")
        if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
            raise ListenError(f"{text}: the path exceeds {PATH_LIMIT_BYTES} bytes")
        return UnixListener(path)
    if text.startswith("http://"):
        raise ListenError(f"{text}: plain http is not served; use https://ADDRESS:PORT")
    found = _HTTPS.fullmatch(text)
    if found is None:
        raise ListenError(f"{text}: neither unix://PATH nor https://ADDRESS:PORT")
    port = int(found[2])
    if port > 65535:
        raise ListenError(f"{text}: no port has the number {port}")
    return TlsListener(found[1].strip("[]"), port)


def bind_unix(path: str, mode: int, group: str) -> socket.socket:
    """A listening socket at `path` with these permissions; of `group` where that exists.

    Raises `ListenError` when somebody listens there already, or the path cannot be used.
    """
    _clear_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _bind_private(listener, path)
        _set_access(path, mode, group)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(f"cannot listen on {path}: {error.strerror or error}") from error
    return listener


def _bind_private(listener: socket.socket, path: str) -> None:
    """Bind so that nobody can connect before the permissions are set."""
    former = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(former)


def _set_access(path: str, mode: int, group: str) -> None:
    try:
        gid = grp.getgrnam(group).gr_gid
    except KeyError:
        gid = -1
    if os.geteuid() == 0:
        os.chown(path, -1, gid)
    os.chmod(path, mode)


def _clear_stale(path: str) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"cannot listen on {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(f"cannot listen on {path}: a file that is no socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        result = probe.connect_ex(path)
    if result == errno.ECONNREFUSED:
        os.unlink(path)
    elif result in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise ListenError(f"cannot listen on {path}: another daemon answers there")
    elif result != errno.ENOENT:
        raise ListenError(f"cannot listen on {path}: {os.strerror(result)}")
