"""Connecting, disconnecting and growing NBD devices: what `child_calls.py` runs in a child process.

One device per export on a machine: looking for it, connecting it and leaving its keeper behind is
one step under the export's lock (`<directory>/<hash>.lock`), and a second one finds the first one's
device by its identity in sysfs. A device is disconnected only while it is held exclusively here,
written out, and open nowhere else.
"""

import errno
import fcntl
import hashlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from volagent.host import nbd_keeper
from volagent.host.errors import Absent, Busy, HostError
from volagent.host.nbd_devices import NbdDevice, find_device, read_device
from volagent.host.nbd_link import FLAG_READ_ONLY, Target, dial, inquire
from volagent.host.nbd_netlink import NbdNetlink
from volagent.host.nbd_wire import Wire
from volagent.host.openers import find_openers

DIAL_TIMEOUT_S: Final = 10.0
LOCK_TIMEOUT_S: Final = 5.0
SETTLE_TIMEOUT_S: Final = 20.0
"""How long the kernel and a keeper may take to show what was asked of them."""
_PAUSE_S: Final = 0.05


def connect(arguments: dict[str, Any]) -> dict[str, Any]:
    """The device of an export: the one that it has, else a new one, with a keeper: `index`.

    `server`, `port`, `export`, `tls`, `directory`, `read_only`; `only_find`: connect nothing.
    """
    target = _target_of(arguments)
    lock = _open_lock(arguments["directory"], target)
    keyless = arguments["wants_tls"] and target.tls is None
    found = find_device(target.identity)
    if found is None and not arguments["only_find"]:
        _await_lock(lock, target)
        found = find_device(target.identity)
        if found is None:
            return {"index": _connect(target, lock, read_only=arguments["read_only"])}
        nbd_keeper.start(target, found.index, lock, None)
    elif found is None:
        raise Absent("nbd", target.identity, errno.ENODEV, "it is not connected")
    elif not keyless and _try_lock(lock):
        nbd_keeper.start(target, found.index, lock, None)  # its keeper was killed
    if found.read_only is not arguments["read_only"]:
        state = "read-only" if found.read_only else "writable"
        raise Busy("nbd", target.identity, errno.EBUSY, f"{found.path} has it already, {state}")
    return {"index": found.index}


def _connect(target: Target, lock: int, *, read_only: bool) -> int:
    netlink = NbdNetlink()
    wire = Wire(dial(target, timeout_s=DIAL_TIMEOUT_S))
    flags = wire.facts.flags
    if flags & FLAG_READ_ONLY and not read_only:
        raise HostError("open", target.identity, errno.EROFS, "the server offers it read-only")
    index = netlink.connect(
        wire.kernel_end.fileno(),
        target.identity,
        size_bytes=wire.facts.size_bytes,
        block_bytes=wire.facts.block_bytes,
        flags=flags | (FLAG_READ_ONLY if read_only else 0),
    )
    made = read_device(index)
    if made is None or made.identity != target.identity:
        netlink.disconnect(index)
        detail = "the kernel does not keep a device's identity: Linux 5.14 does"
        raise HostError("nbd connect", target.identity, errno.EOPNOTSUPP, detail)
    nbd_keeper.start(target, index, lock, wire)
    return index


def disconnect(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write out and disconnect the device at `path` if it is `backend`'s still; `directory`."""
    path, backend = arguments["path"], arguments["backend"]
    found = find_device(backend)
    if found is None or found.path != path:
        return {}
    try:
        fd = os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):
            return {}
        kind = Busy if error.errno == errno.EBUSY else HostError
        raise kind("nbd disconnect", path, error.errno or 0) from error
    try:
        again = find_device(backend)
        if again is None or again.index != found.index:
            return {}
        number = os.fstat(fd).st_rdev
        for pid, command, opened in find_openers(f"{os.major(number)}:{os.minor(number)}"):
            detail = f"held by pid {pid} ({command}): {opened}"
            raise Busy("nbd disconnect", path, errno.EBUSY, detail)
        os.fsync(fd)
        NbdNetlink().disconnect(found.index)
        _dismiss_keeper(arguments["directory"], backend)
    except OSError as error:
        raise HostError("nbd disconnect", path, error.errno or 0) from error
    finally:
        os.close(fd)
    # Only now: whoever has it open keeps the kernel from forgetting it, and that was ourselves.
    if not _await(lambda: not _is(found)):
        raise Busy("nbd disconnect", path, errno.EBUSY, "the kernel still shows it connected")
    return {}


def cut(arguments: dict[str, Any]) -> dict[str, Any]:
    """Disconnect the device at `path` unwritten if it is `backend`'s still; `directory`.

    Its keeper goes first: it would connect the device again.
    """
    path, backend = arguments["path"], arguments["backend"]
    found = find_device(backend)
    if found is None or found.path != path:
        return {}
    _dismiss_keeper(arguments["directory"], backend)
    gone = _await(lambda: not _read_keeper(arguments["directory"], backend)[0])
    NbdNetlink().disconnect(found.index)
    if not gone:
        detail = "its keeper does not end, and could connect it again"
        raise HostError("nbd cut", path, errno.ETIMEDOUT, detail)
    return {}


def grow(arguments: dict[str, Any]) -> dict[str, Any]:
    """Let a device take on the size that its export has on the server now: `size_bytes`.

    A server keeps to the size that it told when a connection began, so the keeper makes another.
    """
    target = _target_of(arguments)
    found = find_device(target.identity)
    if found is None:
        raise Absent("nbd grow", target.identity, errno.ENODEV, "it is not connected")
    facts = inquire(target, timeout_s=DIAL_TIMEOUT_S)
    if facts.size_bytes <= found.size_bytes:
        return {"size_bytes": found.size_bytes}
    pid, state = _read_keeper(arguments["directory"], target.identity)
    if state != "owned":
        detail = "its connection was made by a process that is gone, and cannot be renewed"
        raise Busy("nbd grow", target.identity, errno.EBUSY, detail)
    os.kill(pid, signal.SIGHUP)

    def has_grown() -> bool:
        device = read_device(found.index)
        return device is not None and device.size_bytes >= facts.size_bytes

    if not _await(has_grown):
        detail = "the new connection is not there yet"
        raise HostError("nbd grow", target.identity, errno.ETIMEDOUT, detail)
    return {"size_bytes": facts.size_bytes}


def _target_of(arguments: dict[str, Any]) -> Target:
    return Target(arguments["server"], arguments["port"], arguments["export"], arguments.get("tls"))


def _lock_path(directory: str, identity: str) -> str:
    return f"{directory}/{hashlib.sha256(identity.encode()).hexdigest()[:32]}.lock"


def _open_lock(directory: str, target: Target) -> int:
    os.makedirs(directory, mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(_lock_path(directory, target.identity), flags, 0o600)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _await_lock(lock: int, target: Target) -> None:
    if not _await(lambda: _try_lock(lock), LOCK_TIMEOUT_S):
        raise Busy("nbd", target.identity, errno.EBUSY, "somebody else is connecting it")


def _read_keeper(directory: str, identity: str) -> tuple[int, str]:
    """The process that keeps an export's device and its state; (0, "") when there is none."""
    try:
        fd = os.open(_lock_path(directory, identity), os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, ""
    try:
        if _try_lock(fd):
            return 0, ""
        pid, _, state = os.pread(fd, 64, 0).decode().strip().partition(" ")
        return (int(pid), state) if pid else (0, "")
    finally:
        os.close(fd)


def _dismiss_keeper(directory: str, identity: str) -> None:
    pid, _ = _read_keeper(directory, identity)
    if pid:
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return


def _is(device: NbdDevice) -> bool:
    now = read_device(device.index)
    return now is not None and now.identity == device.identity


def _await(holds: Callable[[], bool], timeout_s: float = SETTLE_TIMEOUT_S) -> bool:
    until_s = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > until_s:
            return False
        time.sleep(_PAUSE_S)
    return True
