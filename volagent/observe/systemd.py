"""Telling systemd how the daemon is: ready, reloading, stopping, alive.

The protocol is one datagram to the socket named by NOTIFY_SOCKET (sd_notify(3)); without the
variable every call does nothing. The watchdog is fed from the event loop, so that a loop that hangs
is restarted.
"""

import asyncio
import os
import socket


def notify(state: str) -> None:
    """Send one state (`READY=1`, `STOPPING=1`, `STATUS=...`)."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(address)
        sender.sendall(state.encode())


def watchdog_interval_s() -> float | None:
    """Half of the time after which systemd restarts a silent daemon, or None without a watchdog."""
    wanted, pid = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")
    if not wanted or (pid and int(pid) != os.getpid()):
        return None
    return int(wanted) / 2e6


async def feed_watchdog(interval_s: float) -> None:
    """Say that the loop is alive, for ever."""
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)
