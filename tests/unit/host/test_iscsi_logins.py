"""Which portals are asked at the same time, by an array that minds."""

import asyncio

import pytest

from volagent.host.iscsi.contract import LunWish, NoSession
from volagent.host.iscsi.logins import Logins


class Helpers:
    async def call(self, *_args, **_options):
        return {}


class Sysfs:
    def sessions(self, _iqn):
        return ()


class Admin:
    """Stands where `IscsiAdmin` does; knows no target."""

    def __init__(self):
        self.now: list[tuple[str, str]] = []
        self.together: set[frozenset] = set()

    async def find_targets(self, wish, portal, _interface):
        self.now.append((wish.iqn, portal))
        self.together |= {frozenset(self.now)}
        await asyncio.sleep(0.01)
        self.now.remove((wish.iqn, portal))
        return {}


@pytest.fixture
def admin():
    return Admin()


@pytest.fixture
def logins(admin):
    return Logins(Helpers(), Sysfs(), None, admin)


async def connect(logins, *wishes):
    found = await asyncio.gather(
        *(logins.connect(wish, "default") for wish in wishes), return_exceptions=True
    )
    assert all(isinstance(each, NoSession) for each in found), found


async def test_portals_of_a_target_are_asked_one_after_the_other(logins, admin):
    await connect(logins, LunWish("iqn:a", 1, ("10.0.0.1:3260", "10.0.1.1:3260")))
    assert admin.together == {
        frozenset({("iqn:a", "10.0.0.1:3260")}),
        frozenset({("iqn:a", "10.0.1.1:3260")}),
    }


async def test_portal_is_asked_for_one_target_at_a_time(logins, admin):
    await connect(
        logins, LunWish("iqn:a", 1, ("10.0.0.1:3260",)), LunWish("iqn:b", 1, ("10.0.0.1:3260",))
    )
    assert all(len(each) == 1 for each in admin.together)


async def test_arrays_that_have_nothing_in_common_are_asked_side_by_side(logins, admin):
    await connect(
        logins, LunWish("iqn:a", 1, ("10.0.0.1:3260",)), LunWish("iqn:b", 1, ("10.0.0.2:3260",))
    )
    assert max(map(len, admin.together)) == 2
