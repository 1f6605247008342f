"""When a storage node's target is said to take no logins any more; and how that is found out."""

import asyncio

import pytest

from tests.simulation.virtual_time import run_virtually
from volagent.host.lio.login_thread import WaitingLogin, find_waiting_login
from volagent.node import login_watch
from volagent.node.login_watch import LOOK_S, watch_logins

STUCK = WaitingLogin(7, 100)


class Pool:
    async def run_in_pool(self, call, *arguments):
        return call(*arguments)


class Log:
    def __init__(self):
        self.told = []

    def error(self, text, **_):
        self.told.append(text.split(":")[0])

    info = error


def watch(monkeypatch, looks):
    """What is told while these are seen, one after the other."""
    log = Log()
    monkeypatch.setattr(login_watch, "_log", log)
    seen = iter(looks)

    async def main():
        task = asyncio.create_task(watch_logins(Pool(), lambda: next(seen)))
        await asyncio.sleep(LOOK_S * (len(looks) - 0.5))
        task.cancel()

    run_virtually(main())
    return log.told


@pytest.mark.parametrize(
    "looks",
    [
        [None] * 6,
        [STUCK] * 3 + [None] * 3,
        [WaitingLogin(7, number) for number in range(8)],
        [STUCK, None] * 6,
    ],
)
def test_a_login_that_waits_for_a_while_is_none_to_tell(monkeypatch, looks):
    assert watch(monkeypatch, looks) == []


def test_one_that_does_not_end_is_told_once_and_its_end_too(monkeypatch):
    told = watch(monkeypatch, [None] + [STUCK] * 8 + [None])
    assert told == [
        "the kernel's iSCSI target takes no logins",
        "the kernel's iSCSI target takes logins again",
    ]


def test_waiting_thread_is_recognised_by_its_stack(tmp_path):
    stack = "[<0>] iscsit_cause_connection_reinstatement+0x9a/0xf0 [iscsi_target_mod]\n"
    for pid, comm, text in ((5, "bash", stack), (6, "iscsi_np", "[<0>] inet_csk_accept"),
                            (7, "iscsi_np", stack)):  # fmt: skip
        place = tmp_path / str(pid)
        place.mkdir()
        (place / "comm").write_text(f"{comm}\n")
        (place / "stack").write_text(text)
        (place / "status").write_text(
            "Name:\tx\nvoluntary_ctxt_switches:\t90\nnonvoluntary_ctxt_switches:\t10\n"
        )
    assert find_waiting_login(str(tmp_path)) == STUCK
    (tmp_path / "7" / "stack").write_text("")
    assert find_waiting_login(str(tmp_path)) is None
