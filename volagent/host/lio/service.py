"""This machine's target as the rest sees it: each request in a helper process that may be killed.

Ending a session waits for its requests, and with them for the disk: it can take as long as that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from volagent.host.errors import HostError
from volagent.host.lio.calls import ONLY_RECORDS, perform
from volagent.host.process import Helpers

BACKEND: Final = "lio"
TIMEOUT_S: Final = 60.0
CONFIGFS: Final = "/sys/kernel/config"
_MODULES: Final = ("target_core_mod", "target_core_file", "iscsi_target_mod")


@dataclass(frozen=True, slots=True)
class TargetService:
    """The target of one directory of volumes."""

    helpers: Helpers
    directory: str
    iqn_base: str
    portals: Sequence[str]
    configfs: str = CONFIGFS

    async def load(self) -> None:
        """Have the kernel's modules and its configfs. Raises `HostError`."""
        done = await self.helpers.run(
            ("modprobe", "-a", *_MODULES), backend=BACKEND, timeout_s=TIMEOUT_S
        )
        if done.returncode:
            detail = f"{done.complaint}; is it in this kernel's package?"
            raise HostError("modprobe", "iscsi_target_mod", 0, detail)
        argv = ("mount", "-t", "configfs", "configfs", self.configfs)
        done = await self.helpers.run(argv, backend=BACKEND, timeout_s=TIMEOUT_S)
        if done.returncode and "already mounted" not in done.complaint:
            raise HostError("mount", self.configfs, 0, done.complaint)

    async def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """One request of `lio/calls.py`. Raises `HostError`."""
        asked = {
            "do": do, "path": self.directory, "iqn_base": self.iqn_base,
            "portals": list(self.portals), "configfs": f"{self.configfs}/target", **request,
        }  # fmt: skip
        if do in ONLY_RECORDS:
            return await self.helpers.run_in_pool(perform, asked)
        return await self.helpers.call("lio", asked, backend=BACKEND, timeout_s=TIMEOUT_S)
