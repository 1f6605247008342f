"""An API in memory and the controllers of a test over it, on virtual time."""

import asyncio
from contextlib import asynccontextmanager

from tests.simulation.memory_store import MemoryStore
from tests.simulation.virtual_time import VirtualClock
from volagent.api.admission import Admission
from volagent.api.inprocess import InProcessClient
from volagent.client.events import EventRecorder
from volagent.client.shared import SharedCopies

QUIET_S = 60.0


async def start_server(admission=None):
    """An API without any controller."""
    admission = admission or Admission()
    client = InProcessClient(MemoryStore(), admission, VirtualClock(), token_key=b"k" * 32)
    await client.housekeeping.bootstrap()
    return client


def recorder(client, component="test"):
    return EventRecorder(client, VirtualClock(), component=component, host="vm")


@asynccontextmanager
async def running(client, *makers, events=None):
    """Controllers at work: each of `makers` makes one from the copies and the event recorder."""
    copies = SharedCopies(client)
    events = events or recorder(client)
    controllers = [make(copies, events) for make in makers]
    tasks = [
        asyncio.ensure_future(each.run()) for each in (copies, events, *controllers)
    ]  # fmt: skip
    try:
        yield controllers
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def settle(seconds=QUIET_S):
    """Let everything happen that happens without being asked."""
    await asyncio.sleep(seconds)
