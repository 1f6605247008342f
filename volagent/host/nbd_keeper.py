"""The process behind each NBD device: it connects the device anew when the connection has died.

A server that restarts ends its connections. The kernel then lets I/O wait (`DEAD_TIMEOUT_S`) until
somebody hands it another connection. That must not depend on the daemon, which may be restarted or
killed meanwhile; so it is a small process of its own, as `nbd-client -persist` is. It ends when the
device is disconnected, and nothing else ends it but a signal. SIGHUP: connect anew now, to learn
the export's new size.

It holds the lock of its export for as long as it lives: the proof that somebody cares, and the
reason why nobody else connects the same export. The lock's file says `<pid> owned`, or `<pid>
found` while the connection is of an earlier keeper, which only the kernel can end.

A connection is replaced only by one to an export that is at least as large and as writable.
"""

import errno
import os
import select
import signal
import time
from typing import Final

from volagent.host.errors import HostError
from volagent.host.nbd_devices import NbdDevice, read_device
from volagent.host.nbd_link import FLAG_READ_ONLY, Facts, Target, dial
from volagent.host.nbd_netlink import NbdNetlink, read_deaths
from volagent.host.nbd_wire import Wire

DIAL_TIMEOUT_S: Final = 10.0
PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 3.0
CHECK_S: Final = 5.0
"""How often it looks whether the device is still its own."""
VERDICT_S: Final = 3.0
"""How long the kernel may take to call a connection dead whose end we have seen."""


def start(target: Target, index: int, lock: int, wire: Wire | None) -> None:
    """Leave a keeper behind that outlives this process and its session."""
    if os.fork() != 0:
        return
    os.setsid()
    os.chdir("/")
    null = os.open("/dev/null", os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    status = 1
    try:
        _Keeper(target, index, lock, wire).keep()
        status = 0
    finally:
        os._exit(status)


class _Keeper:
    def __init__(self, target: Target, index: int, lock: int, wire: Wire | None) -> None:
        self._target = target
        self._index = index
        self._lock = lock
        self._wire = wire
        self._netlink = NbdNetlink()
        self._news = self._netlink.listen()
        self._wakes, self._woken = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._woken)
        signal.signal(signal.SIGHUP, lambda *_: None)

    def keep(self) -> None:
        """Until the device is not ours any more."""
        dead = self._wire is None
        while True:
            if dead:
                self._replace()
            device = self._find()
            if device is None:
                return
            self._note()
            dead = self._watch()

    def _find(self) -> NbdDevice | None:
        device = read_device(self._index)
        return device if device is not None and device.identity == self._target.identity else None

    def _note(self) -> None:
        state = "found" if self._wire is None else "owned"
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()} {state}\n".encode(), 0)

    def _watch(self) -> bool:
        """Carry what is to be carried; True when the connection is dead, False to look around."""
        until_s = time.monotonic() + CHECK_S
        ended = False
        while (left_s := until_s - time.monotonic()) > 0:
            wants = {} if ended or self._wire is None else self._wire.wants()
            ready = self._poll(left_s, wants)
            if self._news.fileno() in ready:
                dead = read_deaths(self._news)
                if dead is None or self._index in dead:
                    return True
            if self._wakes in ready:
                os.read(self._wakes, 64)
                if self._wire is not None:
                    self._wire.cut()
            if ready & wants.keys() and self._wire is not None and not self._wire.carry():
                self._wire.cut()
                ended = True
                until_s = time.monotonic() + VERDICT_S
        return ended and self._find() is not None

    def _poll(self, timeout_s: float, wants: dict[int, int]) -> set[int]:
        poll = select.poll()
        poll.register(self._news, select.POLLIN)
        poll.register(self._wakes, select.POLLIN)
        for fd, events in wants.items():
            poll.register(fd, events)
        return {fd for fd, _ in poll.poll(max(1, int(timeout_s * 1000)))}

    def _replace(self) -> None:
        """Until there is a live connection, by us or not, or the device is not ours any more."""
        adopting = self._wire is None
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        pause_s = PAUSE_FIRST_S
        while (device := self._find()) is not None:
            try:
                wire = self._offer(device, with_size=not adopting)
            except (HostError, OSError):
                wire = None
            else:
                if wire is not None or adopting:
                    self._wire = wire
                    return
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, PAUSE_MAX_S)

    def _offer(self, device: NbdDevice, *, with_size: bool) -> Wire | None:
        """A new connection, if the kernel wanted one."""
        wire = Wire(dial(self._target, timeout_s=DIAL_TIMEOUT_S))
        taken = False
        try:
            _refuse_lesser(device, wire.facts, self._target)
            self._netlink.replace(
                self._index,
                wire.kernel_end.fileno(),
                self._target.identity,
                size_bytes=wire.facts.size_bytes if with_size else None,
            )
            taken = wire.is_taken
        finally:
            if not taken:
                wire.close()
        return wire if taken else None


def _refuse_lesser(device: NbdDevice, facts: Facts, target: Target) -> None:
    """Raises `HostError` when the export is not any more what the device was made from."""
    if facts.size_bytes < device.size_bytes:
        detail = f"it has {facts.size_bytes} bytes now, and had {device.size_bytes}"
        raise HostError("reconnect", target.identity, errno.ESTALE, detail)
    if facts.flags & FLAG_READ_ONLY and not device.read_only:
        raise HostError("reconnect", target.identity, errno.EROFS, "it is read-only now")
