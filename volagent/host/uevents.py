"""Block devices that come, change and go, as the kernel tells it (uevents by netlink).

An event says where to look, never what is true: whoever gets one reads the device again. When the
socket overflows, one event with the action `lost` says that anything may have happened. Only what
the kernel itself has sent counts. The messages are read by pyroute2, which is loaded (in a thread)
when the first watch begins, because it weighs more than the rest of the daemon together.

For the event loop's thread.
"""

import asyncio
import errno
import importlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from volagent.host.errors import Unsupported

if TYPE_CHECKING:
    from volagent.host.process import Helpers

DeviceAction = Literal["add", "change", "remove", "lost"]

_NETLINK_KOBJECT_UEVENT: Final = 15
_KERNEL_GROUP: Final = 1
_MESSAGE_BYTES_MAX: Final = 16 * 1024
_RECEIVE_BUFFER_BYTES: Final = 1 << 20
_BATCH_MAX: Final = 64
"""Messages taken at once; what is left is read in the loop's next round."""
_ACTIONS: Final = ("add", "change", "remove")


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """Something happened to a block device."""

    action: DeviceAction
    device: str = ""
    """Its node (`/dev/sdb`)."""
    number: str = ""
    """`major:minor`."""


class DeviceWatch:
    """Calls `on_event` until it is closed."""

    def __init__(
        self, parse: Callable[[bytes], Any], end: socket.socket, on_event: "OnDeviceEvent"
    ) -> None:
        self._parse = parse
        self._end = end
        self._on_event = on_event
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end.fileno(), self._read)

    def close(self) -> None:
        """Stop watching; idempotent."""
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end.fileno())
            self._end.close()

    def _read(self) -> None:
        for _ in range(_BATCH_MAX):
            if self._end.fileno() < 0:
                return  # closed by whoever was told
            try:
                data, sender = self._end.recvfrom(_MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._on_event(DeviceEvent("lost"))
                continue
            if sender[0] == 0:  # else somebody pretends to be the kernel
                self._tell(data)

    def _tell(self, data: bytes) -> None:
        for message in self._parse(data):
            action, name = message.get("ACTION"), message.get("DEVNAME")
            if message.get("SUBSYSTEM") == "block" and action in _ACTIONS and name:
                number = f"{message.get('MAJOR')}:{message.get('MINOR')}"
                self._on_event(DeviceEvent(action, f"/dev/{name.removeprefix('/dev/')}", number))


OnDeviceEvent = Callable[[DeviceEvent], None]


async def watch_devices(helpers: "Helpers", on_event: OnDeviceEvent) -> DeviceWatch:
    """Begin to watch. Raises `Unsupported` where the kernel does not tell (most containers)."""
    uevent = await helpers.run_in_pool(importlib.import_module, "pyroute2.netlink.uevent")
    try:
        end = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            _NETLINK_KOBJECT_UEVENT,
        )
    except OSError as error:
        raise Unsupported("socket", "uevents", error.errno or 0) from error
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        end.bind((0, _KERNEL_GROUP))
    except OSError as error:
        end.close()
        raise Unsupported("bind", "uevents", error.errno or 0) from error
    return DeviceWatch(uevent.MarshalUevent().parse, end, on_event)
