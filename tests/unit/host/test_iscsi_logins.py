"""Which portals are asked at the same time, by an array that minds; and which not again."""

import asyncio

import pytest

from volagent.host.iscsi import logins as logins_module
from volagent.host.iscsi.admin import Refused
from volagent.host.iscsi.contract import LunWish, NoSession, PortalFailure, Refusal
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


class Portal:
    """Stands where `IscsiAdmin` does: offers targets, and lets in who comes by the right tag."""

    def __init__(self):
        self.tags = {"iqn:a": "1"}
        self.refusal = Refusal.SILENT
        self.said = []
        self.open = True

    async def find_targets(self, _wish, _portal, _interface):
        self.said.append("asked")
        return dict(self.tags)

    async def log_in(self, wish, portal, _interface, tag, **_options):
        self.said.append(f"login {tag}")
        if not self.open or self.tags.get(wish.iqn) != tag:
            raise Refused(PortalFailure(portal, self.refusal))


WISH = LunWish("iqn:a", 1, ("10.0.0.1:3260",))


@pytest.fixture
def portal():
    return Portal()


@pytest.fixture
def visits(portal):
    return Logins(Helpers(), Sysfs(), None, portal)


async def visit(visits):
    """Log in; no session is ever seen here, so that each login is like the first."""
    with pytest.raises(NoSession) as caught:
        await visits.connect(WISH, "default")
    return [failure.refusal for failure in caught.value.failures]


async def test_portal_that_was_looked_up_is_not_asked_again_at_login(visits, portal):
    await visits.look_up(WISH, "default")
    await visits.look_up(WISH, "default")
    assert portal.said == ["asked"]
    assert await visit(visits) == []
    assert portal.said == ["asked", "login 1"]


async def test_portal_is_asked_again_when_a_login_by_what_it_offered_is_refused(visits, portal):
    await visits.look_up(WISH, "default")
    portal.tags = {"iqn:a": "2"}
    assert await visit(visits) == []
    assert portal.said == ["asked", "login 1", "asked", "login 2"]


async def test_target_that_is_not_offered_any_more_is_told(visits, portal):
    await visits.look_up(WISH, "default")
    portal.tags = {}
    assert await visit(visits) == [Refusal.UNKNOWN_TARGET]


async def test_refused_login_is_not_made_twice_with_the_same_tag(visits, portal):
    await visits.look_up(WISH, "default")
    portal.open = False
    assert await visit(visits) == [Refusal.SILENT]
    assert portal.said == ["asked", "login 1", "asked"]


async def test_wrong_credentials_are_not_tried_twice(visits, portal):
    await visits.look_up(WISH, "default")
    portal.open, portal.refusal = False, Refusal.CREDENTIALS
    assert await visit(visits) == [Refusal.CREDENTIALS]
    assert portal.said == ["asked", "login 1"]


async def test_what_was_offered_long_ago_is_not_believed(visits, portal, monkeypatch):
    await visits.look_up(WISH, "default")
    monkeypatch.setattr(logins_module, "BELIEVED_S", -1.0)
    assert await visit(visits) == []
    assert portal.said == ["asked", "asked", "login 1"]


async def test_lookup_that_fails_is_quiet(visits, portal):
    async def refuse(*_arguments):
        raise Refused(PortalFailure("10.0.0.1:3260", Refusal.SILENT))

    portal.find_targets = refuse
    await visits.look_up(WISH, "default")
    assert await visit(visits) == [Refusal.SILENT]
