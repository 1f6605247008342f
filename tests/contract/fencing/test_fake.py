"""The contract of fencing on the fake disk: this is what the simulations and unit tests rely on."""

import asyncio

import pytest

from tests.contract.fencing.suite import FenceContract
from tests.simulation.fake_reservations import FakeDisk, FakeReservations, make_path
from volagent.drivers.contract import VolumeSource
from volagent.drivers.fencing.contract import FenceOrder
from volagent.drivers.fencing.iscsi import IscsiFence
from volagent.host.iscsi.claims import Claims
from volagent.host.iscsi.contract import Claim, LunHandle
from volagent.host.iscsi.excluding import Excluder
from volagent.host.iscsi.known import KnownClaims
from volagent.objects.reservation_keys import attachment_key, guard_key, show_key

HANDLE = LunHandle("iqn.2026-01.lab:a", 1, "naa.1")
SOURCE = VolumeSource("iscsi", {"targetPortal": "10.0.0.5", "iqn": HANDLE.iqn, "lun": 1})


class FakeNode:
    """A machine with sessions to the disk; stands where `RealInitiator` does, too."""

    def __init__(self, disk, directory, name):
        self.name = name
        self.disk = disk
        self.persistent = FakeReservations(disk, f"iqn.lab:{name}")
        self.claims = Claims(self.persistent, KnownClaims(f"{directory}/{name}"))
        self.handle = HANDLE
        self.sessions = 0

    def is_kept(self, _wish):
        return False

    async def reach(self, _wish):
        self.sessions += 1
        return HANDLE, [make_path(session=f"fence{self.sessions}")]

    async def leave(self, _handle, paths):
        self.disk.end_session(self.persistent.nexus(paths[0]))


class FakeStorage:
    def __init__(self, directory):
        self.disk = FakeDisk()
        names = ("node01", "node02")
        self.nodes = {name: FakeNode(self.disk, directory, name) for name in names}

    def attach(self, node, uid):
        here = self.nodes[node]
        claim = Claim(attachment_key(uid, node), guard_key(node))
        here.handle, text = asyncio.run(here.claims.take(claim, HANDLE, [make_path()]))
        return text

    def attach_unknown(self, node):
        self.nodes[node].handle = HANDLE

    def fence(self, node, uid):
        other = next(each for name, each in self.nodes.items() if name != node)
        fence = IscsiFence(Excluder(other), other.name)
        return asyncio.run(fence.fence(FenceOrder(SOURCE, "disk", node, uid)))

    def give_back(self, node):
        here = self.nodes[node]
        if asyncio.run(here.claims.is_fenced(here.handle, [make_path()])):
            text = "taken away unwritten"
        else:
            text = asyncio.run(here.claims.give_back(here.handle, [make_path()]))
        here.claims.known.forget(here.handle)
        return text

    def writes(self, node):
        return self.disk.may_write(self.nodes[node].persistent.nexus(make_path()))

    def reads(self, node):
        return self.disk.kind in (0, 5) or self.writes(node)

    def registered(self):
        return [show_key(key) for key in self.disk.keys.values()]

    def cut_power(self):
        self.disk.cut_power()


class TestFakeDisk(FenceContract):
    @pytest.fixture
    def storage(self, tmp_path):
        return FakeStorage(tmp_path)
