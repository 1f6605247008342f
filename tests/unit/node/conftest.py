"""Drivers that may be asked about declarations, and about nothing else."""

import dataclasses

import pytest

from tests.contract.drivers.worlds import drivers_on
from volagent.drivers.contract import DriverTable
from volagent.host.contract import Host


class Untouchable:
    """A part of the host of which no call may be made."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the host was touched: {name}")


@pytest.fixture
def untouchable_drivers() -> DriverTable:
    return drivers_on(Host(**{part.name: Untouchable() for part in dataclasses.fields(Host)}))
