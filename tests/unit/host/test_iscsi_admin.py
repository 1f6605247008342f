"""iscsiadm as it is called, and what its exit status means, by a scripted one that keeps records.

What no call may ever contain is a password.
"""

import itertools
import stat
from pathlib import Path

import pytest

from volagent.host.errors import HostError, TimedOut
from volagent.host.iscsi.admin import IscsiAdmin, Refused, explain_error, interface_of
from volagent.host.iscsi.contract import Chap, LunWish, Refusal
from volagent.host.iscsi.node_records import NodeRecords
from volagent.host.iscsi.records import Records
from volagent.host.iscsi.sysfs import Session
from volagent.host.process import Outcome

IQN = "iqn.2026-01.lab:array"
PORTAL = "10.0.0.5:3260"
CHAP = Chap("me", "word-of-mine")
WISH = LunWish(IQN, 1, (PORTAL,), session_chap=CHAP, discovery_chap=CHAP)
PLAIN = LunWish(IQN, 1, (PORTAL,))
OFFERS = f"{PORTAL},7 {IQN}\n10.0.0.6:3260,8 {IQN}\n{PORTAL},7 iqn.2026-01.LAB:Other\n"


class ScriptedIscsiadm:
    """Stands where `Helpers` does. `answers` is what `--login` and the like end with."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.answers: dict[str, Outcome | HostError] = {}
        self.calls: list[tuple[str, ...]] = []
        self.at_login = ""
        self.mode_at_login = 0

    async def run(self, argv, *, backend, timeout_s):
        self.calls.append(argv)
        words = dict(itertools.pairwise(argv))
        file = self._file(words)
        if words.get("-o") == "new":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("# BEGIN RECORD\nnode.session.scan = auto\n# END RECORD\n")
        elif words.get("-o") == "delete":
            file.unlink(missing_ok=True)
        for verb in ("--login", "--logout", "--discover", "discovery"):
            if verb in argv:
                if file.exists():
                    self.at_login = file.read_text()
                    self.mode_at_login = stat.S_IMODE(file.stat().st_mode)
                answer = self.answers.get(verb, Outcome(0, OFFERS.encode(), b""))
                if isinstance(answer, HostError):
                    raise answer
                return answer
        return Outcome(0, b"", b"")

    def _file(self, words):
        if words["-m"] == "iface":
            return self.directory / "ifaces" / words["-I"]
        address, _, rest = words["-p"].partition(":")
        if words["-m"] == "node":
            portal = f"{address},{rest}" if "," in rest else f"{address},{rest},7"
            return self.directory / "nodes" / words["-T"] / portal / words["-I"]
        return self.directory / "send_targets" / f"{address},{rest}" / "st_config"

    async def run_in_pool(self, function, *arguments):
        return function(*arguments)


@pytest.fixture
def helpers(tmp_path):
    scripted = ScriptedIscsiadm(tmp_path)
    yield scripted
    assert not any("word-of" in word for argv in scripted.calls for word in argv)


@pytest.fixture
def admin(helpers, tmp_path):
    records = Records((str(tmp_path),))
    return IscsiAdmin(helpers, records, NodeRecords(records))


def left(tmp_path):
    return [path for path in tmp_path.rglob("*") if path.is_file()]


def log_in(admin, wish=WISH, tag="7"):
    return admin.log_in(wish, PORTAL, "default", tag, several_paths=False)


async def test_login_is_made_with_a_record_that_only_root_can_read(admin, helpers, tmp_path):
    await log_in(admin)
    assert "node.session.auth.password = word-of-mine" in helpers.at_login
    assert "node.session.scan = manual" in helpers.at_login
    assert helpers.mode_at_login == 0o600
    session = Session("session1", IQN, PORTAL, "default", "LOGGED_IN", "host0", "0", "")
    await admin.log_out(session)
    assert left(tmp_path) == []


async def test_session_that_is_there_already_is_a_success(admin, helpers):
    helpers.answers["--login"] = Outcome(15, b"", b"session exists")
    await log_in(admin)


@pytest.mark.parametrize(
    ("status", "refusal"),
    [
        (24, Refusal.CREDENTIALS),
        (20, Refusal.NO_DAEMON),
        (18, Refusal.NO_DAEMON),
        (8, Refusal.SILENT),
        (19, Refusal.FAILED),
        (1, Refusal.FAILED),
    ],
)
async def test_refused_login_leaves_no_record_of_its_password(
    admin, helpers, tmp_path, status, refusal
):
    helpers.answers["--login"] = Outcome(status, b"", b"no")
    with pytest.raises(Refused) as caught:
        await log_in(admin)
    assert caught.value.failure.refusal is refusal
    assert caught.value.failure.portal == PORTAL
    assert left(tmp_path) == []


async def test_record_tells_whose_session_it_is_when_a_login_may_go_on(admin, helpers, tmp_path):
    helpers.answers["--login"] = TimedOut("iscsiadm", "--login")
    with pytest.raises(TimedOut):
        await log_in(admin)
    assert admin.records.is_ours(IQN, PORTAL, "default")


async def test_targets_are_told_with_the_tag_of_this_portal(admin):
    assert await admin.find_targets(PLAIN, PORTAL, "default") == {
        IQN: "7",
        "iqn.2026-01.lab:other": "7",
    }


async def test_credentials_for_asking_are_gone_after_it(admin, helpers, tmp_path):
    assert IQN in await admin.find_targets(WISH, PORTAL, "default")
    assert "discovery.sendtargets.auth.password = word-of-mine" in helpers.at_login
    assert left(tmp_path) == []
    helpers.answers["--discover"] = Outcome(24, b"", b"no")
    with pytest.raises(Refused, match="does not accept the credentials"):
        await admin.find_targets(WISH, PORTAL, "default")
    assert left(tmp_path) == []


async def test_portal_that_offers_nothing_offers_nothing(admin, helpers):
    helpers.answers["discovery"] = Outcome(21, b"", b"No portals found")
    assert await admin.find_targets(PLAIN, PORTAL, "default") == {}


async def test_initiator_name_gets_an_interface_of_its_own_that_goes_again(admin, tmp_path):
    named = LunWish(IQN, 1, (PORTAL,), initiator_name="iqn.2026-01.lab:me")
    name = await admin.ensure_interface(named)
    assert name == interface_of(named) != "default"
    (file,) = left(tmp_path)
    assert "iface.initiatorname = iqn.2026-01.lab:me" in file.read_text()
    assert await admin.ensure_interface(named) == name
    await admin.forget_interface(name)
    assert left(tmp_path) == []
    assert await admin.ensure_interface(PLAIN) == "default"
    await admin.forget_interface("default")


async def test_logout_that_fails_is_told(admin, helpers):
    helpers.answers["--logout"] = Outcome(10, b"", b"busy")
    session = Session("session1", IQN, PORTAL, "default", "LOGGED_IN", "host0", "0", "")
    with pytest.raises(HostError, match="busy"):
        await admin.log_out(session)


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (TimedOut("reach", PORTAL, 110, "no answer within 4 s"), Refusal.SILENT),
        (HostError("reach", PORTAL, 111), Refusal.UNREACHABLE),
    ],
)
def test_silence_and_refusal_of_a_connection_are_told_apart(error, refusal):
    assert explain_error(PORTAL, error).refusal is refusal
