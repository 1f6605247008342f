"""`volagent.host.contract.Host` over a `FakeKernel`; passes the same suite as the real one."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.simulation.fake_calls import FakeCalls
from tests.simulation.fake_devices import FakeDevices
from tests.simulation.fake_kernel import FakeKernel
from tests.simulation.fake_mounts import FakeMounts
from tests.simulation.fake_trees import FakeTrees
from volagent.host.contract import Holder, Host, MountEntry, MountId, Usage
from volagent.host.errors import Absent


@dataclass
class FakeHolders(FakeCalls):
    async def find_holders(self, target: str, *, limit: int = 8) -> tuple[Holder, ...]:
        if target in self.kernel.held_open:
            return (Holder(4711, "cat", target, "open file"),)
        return ()

    async def find_openers(self, number: str) -> tuple[Holder, ...]:
        return ()

    async def namespaces_holding(self, mounts: Sequence[MountEntry]) -> Mapping[MountId, Holder]:
        await self.pause()
        return {
            entry.mount_id: Holder(4712, "sleep", entry.mount_point, "mount namespace")
            for entry in mounts
            if entry.mount_point in self.kernel.pinned
        }


@dataclass
class FakeGauges(FakeCalls):
    async def measure(self, path: str, *, backend: str, timeout_s: float) -> Usage:
        await self.pause(backend, timeout_s, "statvfs")
        if self.kernel.inode(path) is None:
            raise Absent("statvfs", path, 2)
        return self.kernel.usage


def make_fake_host(
    kernel: FakeKernel, *, chance: random.Random | None = None, delay_s: float = 0.0
) -> Host:
    """A host on that kernel; `delay_s` bounds how long slow calls take."""
    chance = chance or random.Random(0)
    parts = (FakeMounts, FakeTrees, FakeDevices, FakeHolders, FakeGauges)
    return Host(*(part(kernel, chance, delay_s) for part in parts))
