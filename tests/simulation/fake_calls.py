"""How every call of the fake host runs: interruptible at both ends, slow or hanging when asked."""

import asyncio
import random
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.simulation.fake_kernel import FakeKernel
from volagent.host.errors import TimedOut


@dataclass
class FakeCalls:
    """Base of the parts of the fake host."""

    kernel: FakeKernel
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    delay_s: float = 0.0

    @contextmanager
    def change(self, call: str, subject: str):
        """Around one change: the kernel's fault injection may strike on either side."""
        steps = self.kernel.changing(call, subject)
        next(steps)
        yield
        next(steps, None)

    async def pause(self, backend: str = "local", timeout_s: float = 30.0, what: str = "") -> None:
        """As long as a slow call takes; a backend that hangs takes all the time there is."""
        if backend in self.kernel.hung:
            await asyncio.sleep(timeout_s)
            raise TimedOut(what, backend, 110)
        if self.delay_s:
            await asyncio.sleep(self.chance.random() * self.delay_s)
