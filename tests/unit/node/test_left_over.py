"""What is given back although no volume has it, and what is left alone, on virtual time."""

import asyncio
from types import SimpleNamespace

import pytest

from tests.simulation.virtual_time import run_virtually
from volagent.drivers.contract import Done, DriverName, HeldDevice
from volagent.drivers.errors import Transient, Uncertain
from volagent.host.contract import Holder
from volagent.node.left_over import LOOK_S, LeftOverSweep

DISKS = DriverName("disks")


def held(path):
    return HeldDevice(path, "8:0", "wwid:1")


class FakeDriver:
    def __init__(self, *attached):
        self.attached = {name: held(f"/dev/{name}") for name in attached}
        self.in_use = set()
        self.silent = False
        self.given_back = []
        self.refused = 0

    def list_attached(self):
        if self.silent:
            raise Uncertain("what is attached cannot be read")
        return dict(self.attached)

    async def detach(self, name, device):
        if name in self.in_use:
            self.refused += 1
            raise Transient(f"{device.path} is held by pid 7", remedy="end it")
        self.given_back.append((name, device.path))
        del self.attached[name]
        return Done("given back")


class FakeHolders:
    def __init__(self):
        self.openers = ()

    async def find_openers(self, number):
        assert number == "8:0"
        return self.openers


class Things(dict):
    """Records or wishes by key, as the agent has them."""

    def wanted(self, key):
        return self[key]


def record(identity, driver=DISKS):
    return SimpleNamespace(driver=driver, identity=identity)


@pytest.fixture
def driver():
    return FakeDriver("stray")


@pytest.fixture
def agent(driver):
    recovered = asyncio.Event()
    recovered.set()
    return SimpleNamespace(
        drivers={DISKS: driver, DriverName("files"): object()}, actual=Things(), index=Things(),
        recovered=recovered, host=SimpleNamespace(holders=FakeHolders()),
    )  # fmt: skip


def sweep(agent, *, looks, meanwhile=lambda: None):
    """Let it look as often as that, with something happening after the first look."""

    async def main():
        task = asyncio.create_task(LeftOverSweep(agent).run())
        await asyncio.sleep(LOOK_S / 2)
        meanwhile()
        await asyncio.sleep(LOOK_S * (looks - 1))
        assert not task.done()
        task.cancel()

    run_virtually(main())


def test_stray_device_is_given_back_at_the_second_look(agent, driver):
    sweep(agent, looks=1)
    assert driver.given_back == []
    sweep(agent, looks=2)
    assert driver.given_back == [("stray", "/dev/stray")]


def test_what_is_recorded_or_wanted_stays(agent, driver):
    driver.attached |= {"recorded": held("/dev/r"), "wanted": held("/dev/w")}
    agent.actual["a"] = record("recorded")
    agent.index["b"] = SimpleNamespace(spec=record("wanted"))
    agent.index["c"] = None
    sweep(agent, looks=3)
    assert set(driver.attached) == {"recorded", "wanted"}


def test_device_of_another_driver_of_that_name_is_no_reason_to_stay(agent, driver):
    agent.actual["a"] = record("stray", DriverName("others"))
    sweep(agent, looks=2)
    assert driver.attached == {}


def test_nothing_goes_while_a_record_does_not_say_what_its_disk_is_called(agent, driver):
    agent.actual["a"] = record("")
    sweep(agent, looks=3)
    assert driver.given_back == []


def test_what_is_wanted_after_the_first_look_stays(agent, driver):
    sweep(agent, looks=3, meanwhile=lambda: agent.actual.update(a=record("stray")))
    assert driver.given_back == []


def test_what_is_in_use_stays_is_told_once_and_goes_later(agent, driver, capsys):
    driver.in_use.add("stray")
    sweep(agent, looks=5)
    assert driver.refused > 1
    assert driver.given_back == []
    assert capsys.readouterr().out.count("is in use, and stays") <= 1
    driver.in_use.clear()
    sweep(agent, looks=2)
    assert driver.attached == {}


def test_what_a_process_has_open_stays(agent, driver):
    agent.host.holders.openers = (Holder(7, "writer", "/dev/stray", "open device"),)
    sweep(agent, looks=3)
    assert (driver.given_back, driver.refused) == ([], 0)
    agent.host.holders.openers = ()
    sweep(agent, looks=2)
    assert driver.attached == {}


def test_nothing_goes_while_what_is_attached_cannot_be_read(agent, driver):
    def be_silent():
        driver.silent = True

    sweep(agent, looks=4, meanwhile=be_silent)
    assert driver.given_back == []
