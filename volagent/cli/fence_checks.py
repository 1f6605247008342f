"""What `volagent doctor` says of this node's fence: which proof it can give that it does not write.

Looks only; a watchdog that is opened starts, so it is not opened here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from volagent.cli.checks import FAIL, OK, WARN, Finding
from volagent.host.watchdog import WatchdogFacts
from volagent.settings import FenceSettings

_AREA = "fence"


@dataclass(frozen=True, slots=True)
class FenceFacts:
    """What was found on this machine."""

    watchdog: WatchdogFacts
    sysrq: bool
    """Whether the kernel can be told to reset the machine at once."""
    virtual: bool
    """Whether a hypervisor can hold this machine and let it go on later."""
    sessions: int
    """Of iSCSI, at this moment."""


def check_fence(settings: FenceSettings, facts: FenceFacts) -> Iterator[Finding]:
    """Findings. Pure."""
    on = settings.self == "on"
    if on:
        yield Finding(_AREA, "fences itself", OK,
                      "gives its exclusive disks up without a lease")  # fmt: skip
    else:
        yield Finding(_AREA, "fences itself", OK,
                      "no: keeps its disks without a server; they are taken from it by the storage,"
                      " a hook or a person's word, or not at all")  # fmt: skip
    yield _check_watchdog(settings, facts.watchdog, on=on)
    if on:
        yield from _check_reset(settings, facts)
    yield Finding(_AREA, "proof by the storage", OK,
                  f"asked of each iSCSI disk when it is attached ({facts.sessions} sessions now);"
                  " an NBD server gives none")  # fmt: skip


def _check_reset(settings: FenceSettings, facts: FenceFacts) -> Iterator[Finding]:
    if settings.watchdog and facts.watchdog.is_software:
        yield Finding(
            _AREA, "software watchdog", WARN,
            f"{facts.watchdog.path} is a timer of this kernel: it resets a machine whose agent is"
            " gone, not one whose kernel stands still",
            "use the hardware's, where the machine has one",
        )  # fmt: skip
    if facts.virtual:
        yield Finding(
            _AREA, "virtual machine", WARN,
            "a hypervisor can hold it, its clocks and its watchdog for any time, and let it go on:"
            " what it had in memory is written then",
            "never pause, save or migrate it while it is lost; or use disks with persistent"
            " reservations, or a hook that asks the hypervisor",
        )  # fmt: skip
    level = OK if facts.sysrq else WARN
    yield Finding(
        _AREA, "sysrq", level,
        "a reset at once, by the agent itself" if facts.sysrq else "no /proc/sysrq-trigger:"
        " a reset waits for the watchdog",
    )  # fmt: skip


def _check_watchdog(settings: FenceSettings, facts: WatchdogFacts, *, on: bool) -> Finding:
    """Whether the promise can be made."""
    name = "watchdog"
    bad = FAIL if on else OK
    if not settings.watchdog:
        return Finding(_AREA, name, WARN if on else OK, "none: nothing is promised",
                       'set fence.watchdog = "/dev/watchdog"' if on else "")  # fmt: skip
    if not facts.exists:
        return Finding(
            _AREA, name, bad, f"{facts.path}: none; nothing is promised",
            "load the driver of the hardware (iTCO_wdt, sp5100_tco, i6300esb, ipmi_watchdog), or"
            " softdog: `modprobe softdog`, and its name in /etc/modules-load.d" if on else "",
        )  # fmt: skip
    if facts.toothless:
        return Finding(_AREA, name, bad, f"{facts.path}: softdog with soft_noboot only complains",
                       "load it without soft_noboot" if on else "")  # fmt: skip
    what = facts.identity or "a watchdog"
    if 0 < facts.longest_s < settings.reset_after_s:
        return Finding(
            _AREA, name, bad, f"{facts.path} ({what}) takes {facts.longest_s} s at most, and"
            f" {settings.reset_after_s:g} are needed",
            "shorten lease.timeout_s or fence.give_up_s, or use softdog" if on else "",
        )  # fmt: skip
    if facts.active and not on:
        return Finding(_AREA, name, OK, f"{facts.path} ({what}) is another's: systemd's, or a"
                       " watchdog daemon's")  # fmt: skip
    detail = f"{facts.path} ({what})" + (", armed" if facts.active else "")
    if facts.nowayout:
        detail += "; cannot be stopped once started: an agent that is stopped means a reset"
    return Finding(_AREA, name, OK, detail)
