"""A client for User-Mode-Linux's management console (a datagram socket per machine).

Debian's `uml_mconsole` answers to an abstract socket, which belongs to one network namespace; ours
is bound to a path, so it works from outside the lab's network.
"""

import itertools
import os
import socket
import struct
from pathlib import Path

_MAGIC = 0xCAFEBABE
_VERSION = 2
_MAX_COMMAND_BYTES = 512
_REPLY_HEADER = struct.Struct("=III")  # error, more follows, length
_clients = itertools.count()


class ConsoleRefused(Exception):
    """The machine's kernel answered with an error."""


def send(directory: Path, machine: str, command: str, *, timeout_s: float = 10.0) -> str:
    """Send one command (`halt`, `stop`, `go`, `config ubdb=FILE`, ...) and return the answer.

    `directory` is the machine's `uml_dir`. Raises `OSError` when it is not running.
    """
    text = command.encode()
    request = struct.pack(f"=III{_MAX_COMMAND_BYTES}s", _MAGIC, _VERSION, len(text), text)
    own = directory / f"client-{os.getpid()}-{next(_clients)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout_s)
        client.bind(str(own))
        try:
            client.sendto(request, str(directory / machine / "mconsole"))
            return _receive(client)
        finally:
            own.unlink()


def _receive(client: socket.socket) -> str:
    answer = b""
    failed = False
    more = True
    while more:
        datagram = client.recv(4096)
        error, more, length = _REPLY_HEADER.unpack_from(datagram)
        answer += datagram[_REPLY_HEADER.size : _REPLY_HEADER.size + length]
        failed |= bool(error)
    text = answer.rstrip(b"\0").decode(errors="replace")
    if failed:
        raise ConsoleRefused(text)
    return text
