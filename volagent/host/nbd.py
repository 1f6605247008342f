"""NBD devices for the event loop: every call that asks a server or the kernel runs in a child.

`nbd-client` is not used: version 3.24 (Debian 12) can neither tell the kernel whose device it is,
nor let I/O wait while a server is away, nor give a device another connection; without those a
restarted server means I/O errors, and a killed daemon means a device that nobody recognises. The
negotiation is small (`nbd_link.py`) and the rest is the kernel's (`nbd_netlink.py`). The children
are bounded and behind the bulkhead that the caller names; what stays behind of one is the keeper of
the device (`nbd_keeper.py`), which outlives the daemon.

Secrets go to a child by its standard input, and from there into memory only.
"""

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from volagent.host import block_devices
from volagent.host.contract import BlockDevice
from volagent.host.errors import HostError, Unsupported
from volagent.host.nbd_devices import list_devices
from volagent.host.nbd_link import Target

if TYPE_CHECKING:
    from volagent.host.process import Helpers

CONNECT_TIMEOUT_S: Final = 40.0
DISCONNECT_TIMEOUT_S: Final = 300.0
"""Writing out included; a server that is away is given up on then, and tried again later."""
GROW_TIMEOUT_S: Final = 60.0
CUT_TIMEOUT_S: Final = 30.0
_MODPROBE_TIMEOUT_S: Final = 30.0
_NO_MODULE: Final = "modprobe nbd fails: the kernel needs CONFIG_BLK_DEV_NBD"


@dataclass(frozen=True, slots=True)
class NbdRequest:
    """One export, and how its device should be."""

    target: Target
    wants_tls: bool
    """Also when the material is not known: then a device is found, and none connected."""
    read_only: bool
    backend: str
    """The bulkhead: its server."""


class NbdLinks(Protocol):
    """What drivers ask of NBD."""

    async def connect(self, request: NbdRequest) -> BlockDevice:
        """The device of an export: the one it has already, else a new one.

        Raises `Absent` (no such export), `Busy` (connected otherwise), `Unsupported` (no module),
        `TimedOut`, `HostError`.
        """

    def find(self, identity: str) -> BlockDevice | None:
        """The device that is connected to an export now."""

    def list_connected(self) -> dict[str, BlockDevice]:
        """The devices that are connected to exports by us, by export."""

    async def disconnect(self, device: BlockDevice, identity: str) -> None:
        """Write a device out and disconnect it, if it is this export's still.

        Raises `Busy` (somebody has it open), `TimedOut`, `HostError`.
        """

    async def cut(self, device: BlockDevice, identity: str) -> None:
        """Disconnect a device unwritten, if it is this export's still, whoever has it open.

        What is on its way fails, and so does all that comes. Raises `TimedOut`, `HostError`.
        """

    async def grow(self, request: NbdRequest) -> int:
        """Take on the export's size of now, in use; the size in bytes. Raises as `connect`."""


class RealNbd:
    """`NbdLinks` on this machine; `directory` holds the locks of the exports in use (tmpfs)."""

    def __init__(self, *, helpers: "Helpers", directory: str) -> None:
        self._helpers = helpers
        self._directory = directory

    async def connect(self, request: NbdRequest) -> BlockDevice:
        """Find or connect."""
        try:
            answer = await self._call_connect(request)
        except Unsupported as error:
            if error.call != "netlink":
                raise
            await self._load_module()
            answer = await self._call_connect(request)
        return block_devices.identify(f"/dev/nbd{answer['index']}")

    async def _call_connect(self, request: NbdRequest) -> dict[str, Any]:
        return await self._helpers.call(
            "connect_nbd",
            {**self._describe(request), "read_only": request.read_only},
            backend=request.backend,
            timeout_s=CONNECT_TIMEOUT_S,
        )

    async def _load_module(self) -> None:
        try:
            outcome = await self._helpers.run(
                ("modprobe", "nbd"), backend="local", timeout_s=_MODPROBE_TIMEOUT_S
            )
        except Unsupported as error:
            raise Unsupported("modprobe", "nbd", error.errno, _NO_MODULE) from error
        if outcome.returncode != 0:
            missing = "not found" in outcome.complaint
            text = _NO_MODULE if missing else "modprobe nbd fails"
            raise Unsupported("modprobe", "nbd", 0, f"{text}; {outcome.complaint}")

    def _describe(self, request: NbdRequest) -> dict[str, Any]:
        target = request.target
        return {
            "server": target.server,
            "port": target.port,
            "export": target.export,
            "tls": target.tls,
            "wants_tls": request.wants_tls,
            "only_find": request.wants_tls and target.tls is None,
            "directory": self._directory,
        }

    def find(self, identity: str) -> BlockDevice | None:
        """From sysfs."""
        return self.list_connected().get(identity)

    def list_connected(self) -> dict[str, BlockDevice]:
        """From sysfs; only ours have a name there."""
        found = {}
        for device in list_devices():
            if device.identity:
                with contextlib.suppress(HostError):
                    found[device.identity] = block_devices.identify(device.path)
        return found

    async def disconnect(self, device: BlockDevice, identity: str) -> None:
        """Behind the bulkhead of the device: a sick one delays nobody else."""
        await self._helpers.call(
            "disconnect_nbd",
            {"path": device.path, "backend": identity, "directory": self._directory},
            backend=f"device:{device.path}",
            timeout_s=DISCONNECT_TIMEOUT_S,
        )

    async def cut(self, device: BlockDevice, identity: str) -> None:
        """Behind the bulkhead of the device."""
        await self._helpers.call(
            "cut_nbd",
            {"path": device.path, "backend": identity, "directory": self._directory},
            backend=f"device:{device.path}",
            timeout_s=CUT_TIMEOUT_S,
        )

    async def grow(self, request: NbdRequest) -> int:
        """By a new connection of the device's keeper."""
        answer = await self._helpers.call(
            "grow_nbd", self._describe(request), backend=request.backend, timeout_s=GROW_TIMEOUT_S
        )
        return int(answer["size_bytes"])
