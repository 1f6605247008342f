import asyncio

from volagent.drivers.contract import VolumeKey
from volagent.host.errors import Unsupported
from volagent.host.uevents import DeviceEvent
from volagent.node.devices import DeviceWaiter

KEY = VolumeKey("pv/disk")


class Kernel:
    def __init__(self, *, silent=False):
        self.silent = silent
        self.listener = None
        self.watches = 0

    async def watch(self, on_event):
        self.watches += 1
        if self.silent:
            raise Unsupported("bind", "uevents")
        self.listener = on_event
        return self

    def close(self):
        self.listener = None


async def waiting_for(kernel, marked):
    tasks = []
    waiter = DeviceWaiter(
        kernel.watch, lambda name, loop: tasks.append(asyncio.ensure_future(loop)), marked.append
    )
    waiter.expect(KEY)
    waiter.expect(KEY)
    await asyncio.gather(*tasks)
    return waiter


async def test_volume_is_looked_at_again_when_a_device_appears():
    kernel, marked = Kernel(), []
    await waiting_for(kernel, marked)
    assert kernel.watches == 1
    kernel.listener(DeviceEvent("remove", "/dev/sdb", "8:16"))
    assert marked == []
    kernel.listener(DeviceEvent("add", "/dev/sdb", "8:16"))
    kernel.listener(DeviceEvent("change", "/dev/sdb", "8:16"))
    assert marked == [KEY]


async def test_waiter_lets_go_of_the_kernel_when_closed():
    kernel = Kernel()
    waiter = await waiting_for(kernel, [])
    waiter.close()
    waiter.close()
    assert kernel.listener is None


async def test_waiting_goes_on_without_events_when_the_kernel_tells_none():
    marked = []
    await waiting_for(Kernel(silent=True), marked)
    assert marked == []
