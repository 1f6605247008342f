"""The machine's watchdog: /dev/watchdog, and the kernel's own reset as the second way.

Whoever opens the device starts it; from then on the machine is reset, by hardware or by the kernel
(softdog), whenever nobody has fed it for its timeout. Closing it stops it only after a `V` was
written (the magic close) and only without `nowayout`; a process that is killed therefore leaves it
running, and that is what makes it a proof. A device without the magic close stops with the process
that had it open, so it is refused.

Opening feeds, too: who opens needs the same reason as who feeds.

Never blocks for long: every call here is a few microseconds in the kernel. For one thread.
"""

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from typing import Final, Protocol

from volagent.host.errors import Busy, HostError, Unsupported

SYSRQ_TRIGGER: Final = "/proc/sysrq-trigger"
_CLASS: Final = "/sys/class/watchdog"
_SOFTDOG_NOBOOT: Final = "/sys/module/softdog/parameters/soft_noboot"
# <linux/watchdog.h>; the numbers are those of all architectures but alpha, mips, powerpc and sparc.
_GETSUPPORT: Final = 0x80285700
_SETTIMEOUT: Final = 0xC0045706
_MAGICCLOSE: Final = 0x0100
_INFORMATION: Final = struct.Struct("=II32s")
_NUMBER: Final = struct.Struct("=i")
_MISC_MAJOR: Final = 10


class Watchdog(Protocol):
    """Resets the machine unless it is fed."""

    @property
    def path(self) -> str:
        """What it is called."""

    @property
    def is_armed(self) -> bool:
        """Whether it is open here, so that it resets the machine when it is not fed."""

    def arm(self, timeout_s: int) -> int:
        """Start (and feed) it; after how many seconds without being fed it really resets.

        Raises `Unsupported` (no device, or none that outlives its opener), `Busy`, `HostError`.
        """

    def feed(self) -> None:
        """Have it count from the beginning; nothing when it is not armed. Raises `HostError`."""

    def disarm(self) -> bool:
        """Stop it; whether it has stopped (with `nowayout` it cannot be)."""

    def abandon(self) -> None:
        """Let it go on without us: it resets the machine unless somebody else feeds it."""


class RealWatchdog:
    """`Watchdog` over a watchdog device of the kernel."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    @property
    def path(self) -> str:
        """The device."""
        return self._path

    @property
    def is_armed(self) -> bool:
        """Whether it is open."""
        return self._fd >= 0

    def arm(self, timeout_s: int) -> int:
        """Open it, see that it will do, set its time."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            fd = _open(self._path, timeout_s)
        try:
            given_s = _set_up(fd, self._path, timeout_s)
        except HostError:
            _stop(fd)
            raise
        self._fd = fd
        return given_s

    def feed(self) -> None:
        """Write anything but the magic character."""
        if self._fd < 0:
            return
        try:
            os.write(self._fd, b"\0")
        except OSError as error:
            raise HostError("write", self._path, error.errno or 0) from error

    def disarm(self) -> bool:
        """The magic close."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return True
        stays = look_at(self._path).nowayout is True
        return _stop(fd) and not stays

    def abandon(self) -> None:
        """Close it without the magic character."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def reset_now(trigger: str = SYSRQ_TRIGGER) -> None:
    """Have the kernel reset the machine at once; nothing is written out. Raises `HostError`.

    No proof by itself: it needs this very process to run.
    """
    try:
        fd = os.open(trigger, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"b")
        finally:
            os.close(fd)
    except OSError as error:
        raise HostError("sysrq", trigger, error.errno or 0) from error


@dataclass(frozen=True, slots=True)
class WatchdogFacts:
    """What is known of a watchdog device without opening it, which would start it."""

    path: str
    exists: bool
    identity: str = ""
    """What the driver calls it: `Software Watchdog`, `iTCO_wdt`."""
    active: bool = False
    """Somebody has it open, or it runs on without anybody."""
    nowayout: bool | None = None
    """True: once started it cannot be stopped. None: the kernel does not tell."""
    longest_s: int = 0
    """The longest time it takes, where the kernel tells; else 0."""
    toothless: bool = False
    """softdog that was told not to reset (`soft_noboot`)."""

    @property
    def is_software(self) -> bool:
        """A timer of this very kernel: it does nothing when the kernel stands still."""
        return self.identity.lower().startswith("software watchdog")


def look_at(path: str, sys_class: str = _CLASS, noboot: str = _SOFTDOG_NOBOOT) -> WatchdogFacts:
    """The facts of the device at a path."""
    try:
        device = os.stat(path).st_rdev
    except OSError:
        return WatchdogFacts(path, exists=False)
    # The old /dev/watchdog is misc device 130 and leads to the first one.
    name = "watchdog0" if os.major(device) == _MISC_MAJOR else f"watchdog{os.minor(device)}"
    identity = _read(f"{sys_class}/{name}/identity")
    nowayout = _read(f"{sys_class}/{name}/nowayout")
    software = identity.lower().startswith("software watchdog")
    return WatchdogFacts(
        path,
        exists=True,
        identity=identity,
        active=_read(f"{sys_class}/{name}/state") == "active",
        nowayout=None if not nowayout else nowayout != "0",
        longest_s=int(_read(f"{sys_class}/{name}/max_timeout") or 0),
        toothless=software and _read(noboot) not in ("", "0"),
    )


def is_virtual_machine() -> bool:
    """Whether a hypervisor can hold this machine and let it go on later."""
    told = _read("/proc/cpuinfo")
    return "hypervisor" in told.split() or "User Mode Linux" in told


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def _open(path: str, timeout_s: int) -> int:
    facts = look_at(path)
    if facts.toothless:
        detail = "softdog was loaded with soft_noboot: it only complains"
        raise Unsupported("open", path, errno.ENODEV, detail)
    if 0 < facts.longest_s < timeout_s:
        # Not even opened: with nowayout it would run on with a time that is too short.
        raise _too_short(path, facts.longest_s, timeout_s)
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        detail = "no watchdog: load the driver of the hardware, or softdog"
        raise Unsupported("open", path, errno.ENOENT, detail) from error
    except OSError as error:
        if error.errno == errno.EBUSY:
            detail = "another has it: systemd (RuntimeWatchdogSec), or a watchdog daemon"
            raise Busy("open", path, errno.EBUSY, detail) from error
        if error.errno in (errno.ENODEV, errno.ENXIO):
            raise Unsupported("open", path, error.errno, "no watchdog is behind it") from error
        raise HostError("open", path, error.errno or 0) from error


def _set_up(fd: int, path: str, timeout_s: int) -> int:
    """Its time, and fed; the seconds that the driver made of it. Raises `HostError`."""
    number = bytearray(_NUMBER.pack(timeout_s))
    try:
        _demand_magic_close(fd, path)
        fcntl.ioctl(fd, _SETTIMEOUT, number)
        os.write(fd, b"\0")
    except OSError as error:
        detail = f"it does not take {timeout_s} s"
        raise HostError("watchdog", path, error.errno or 0, detail) from error
    given_s = int(_NUMBER.unpack(number)[0])
    if given_s < timeout_s:
        raise _too_short(path, given_s, timeout_s)
    return given_s


def _too_short(path: str, given_s: int, timeout_s: int) -> Unsupported:
    detail = f"it resets after {given_s} s at the latest, and {timeout_s} are needed"
    return Unsupported("watchdog", path, errno.EINVAL, detail)


def _demand_magic_close(fd: int, path: str) -> None:
    """Raises `Unsupported` for a watchdog that stops when its opener is killed."""
    information = bytearray(_INFORMATION.size)
    fcntl.ioctl(fd, _GETSUPPORT, information)
    options, _, _ = _INFORMATION.unpack(information)
    if not options & _MAGICCLOSE and look_at(path).nowayout is not True:
        detail = "it stops when its opener is killed (no magic close): set the driver's nowayout"
        raise Unsupported("watchdog", path, errno.EOPNOTSUPP, detail)


def _stop(fd: int) -> bool:
    """The magic close; whether the kernel took it."""
    try:
        os.write(fd, b"V")
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
