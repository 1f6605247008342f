"""An export of an NFS server, mounted for the provisioner's own use.

Mounted when it is first needed and kept; found again after a restart. Every call on it runs in a
process that can be killed, in the server's bulkhead, so that a dead server costs only its own
volumes. Before each call the device of the mount is told, so that nothing is ever done in the empty
directory below a mount that is gone.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from volagent.drivers.errors import Transient, Uncertain
from volagent.host.contract import Host, MountEntry
from volagent.host.errors import HostError, TimedOut
from volagent.host.process import Helpers

CALL_TIMEOUT_S: Final = 60.0
MOUNT_MODE: Final = 0o700
FS_TYPE: Final = "nfs"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NfsMount:
    """One export of one server."""

    host: Host
    helpers: Helpers
    server: str
    path: str
    options: Sequence[str]
    work_dir: str
    mount_timeout_s: float

    @property
    def source(self) -> str:
        """`server:/path`."""
        server = f"[{self.server}]" if ":" in self.server else self.server
        return f"{server}:{self.path}"

    @property
    def target(self) -> str:
        """Where it is mounted."""
        digest = hashlib.sha256(f"{self.source}\0{','.join(self.options)}".encode()).hexdigest()
        return f"{self.work_dir}/nfs-{digest[:16]}"

    @property
    def backend(self) -> str:
        """The bulkhead."""
        return f"nfs:{self.server}"

    async def perform(self, request: Json) -> Json:
        """Do one request on the export. Raises `HostError`, `Transient`."""
        entry = await self._ensure_mounted()
        asked = {**request, "path": self.target, "device": entry.device}
        try:
            return await self.helpers.call(
                "export", asked, backend=self.backend, timeout_s=CALL_TIMEOUT_S
            )
        except TimedOut as error:
            raise Uncertain(
                f"{self.source} does not answer: {error}",
                remedy="see whether the server is up; it is asked again",
            ) from error

    async def _ensure_mounted(self) -> MountEntry:
        found = self.host.mounts.find_mount_at(self.target)
        if found is not None and found.fs_type.startswith(FS_TYPE):
            return found
        try:
            self.host.trees.ensure_dir(self.target, mode=MOUNT_MODE)
            mount_id = await self.host.mounts.mount_network(
                self.source, self.target, fs_type=FS_TYPE, options=self.options,
                backend=self.backend, timeout_s=self.mount_timeout_s,
            )  # fmt: skip
        except HostError as error:
            raise Transient(
                f"cannot mount {self.source}: {error}",
                remedy="see whether the server exports it to this machine (showmount -e)",
            ) from error
        entry = self.host.mounts.find_mount(mount_id)
        if entry is None:
            raise Transient(f"{self.source} was unmounted at once by somebody else")
        return entry
