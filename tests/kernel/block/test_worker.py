"""Calls that one child answers one after the other."""

import asyncio
import contextlib
import os
import signal

import psutil
import pytest

from tests.kernel.block.conftest import until
from volagent.host import process
from volagent.host.errors import HostError, NotTried, TimedOut
from volagent.host.process import Helpers


async def write(helpers, path, value, *, timeout_s=10.0):
    arguments = {"path": str(path), "value": value}
    await helpers.call("write_attribute", arguments, backend="disk", timeout_s=timeout_s)


def workers():
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):  # it goes while we look
            if any("child_calls" in word for word in child.cmdline()):
                found.append(child.pid)
    return found


@pytest.fixture
def file(scratch):
    path = scratch / "attribute"
    path.touch()
    return path


async def test_one_child_answers_call_after_call(helpers, file):
    seen = set()
    for number in range(3):
        await write(helpers, file, str(number))
        assert file.read_text() == str(number)
        seen.update(workers())
    assert len(seen) == 1
    assert helpers.backends() == ()


async def test_calls_at_once_have_a_child_each(helpers, scratch):
    paths = [scratch / name for name in "ab"]
    for path in paths:
        path.touch()
    await asyncio.gather(*(write(helpers, path, "x") for path in paths))
    assert [path.read_text() for path in paths] == ["x", "x"]
    assert len(workers()) == 2


async def test_failed_call_is_told_and_the_child_goes_on(helpers, file):
    with pytest.raises(HostError, match="ENOENT"):
        await write(helpers, file.with_name("missing"), "x")
    (worker,) = workers()
    await write(helpers, file, "y")
    assert workers() == [worker]


async def test_call_that_hangs_is_killed_and_the_next_has_a_new_child(helpers, file, scratch):
    os.mkfifo(scratch / "nobody-reads")
    with pytest.raises(TimedOut, match=r"no answer within 0\.3 s, killed"):
        await write(helpers, scratch / "nobody-reads", "x", timeout_s=0.3)
    assert workers() == []
    await write(helpers, file, "z")
    assert file.read_text() == "z"


async def test_nothing_runs_on_when_the_caller_is_cancelled(helpers, scratch):
    os.mkfifo(scratch / "nobody-reads")
    call = asyncio.ensure_future(write(helpers, scratch / "nobody-reads", "x"))
    await until(workers)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert workers() == []


async def test_child_that_was_killed_while_it_waited_costs_one_call(helpers, file):
    await write(helpers, file, "a")
    (worker,) = workers()
    os.kill(worker, signal.SIGKILL)
    await until(lambda: not workers())
    await write(helpers, file, "b")
    assert file.read_text() == "b"


async def test_child_goes_when_nobody_has_work_for_it(helpers, file, monkeypatch):
    monkeypatch.setattr(process, "WORKER_IDLE_S", 0.05)
    await write(helpers, file, "a")
    await until(lambda: not workers())


SLOW_START = """
import os, sys, time
time.sleep({start_s})
os.write(3, b".")
os.read(3, 65536)
os.write(3, b"{{}}")
"""


async def test_start_of_a_child_is_not_counted_as_silence(helpers, file, monkeypatch):
    program = file.with_name("slow.py")
    program.write_text(SLOW_START.format(start_s=1.0))
    monkeypatch.setattr(process, "_CHILD_CALLS", str(program))
    await write(helpers, file, "a", timeout_s=0.9)


async def test_child_that_does_not_start_is_told_and_held_against_nobody(
    helpers, file, monkeypatch
):
    program = file.with_name("stuck.py")
    program.write_text(SLOW_START.format(start_s=60.0))
    monkeypatch.setattr(process, "_CHILD_CALLS", str(program))
    monkeypatch.setattr(process, "WORKER_START_TIMEOUT_S", 0.2)
    for _ in range(5):
        with pytest.raises(NotTried, match=r"no helper started .* the machine is too busy"):
            await write(helpers, file, "a")
    assert workers() == []
    assert helpers.backends() == ()


async def test_closing_ends_those_that_wait(file):
    helpers = Helpers()
    await write(helpers, file, "a")
    assert workers() != []
    await helpers.close()
    assert workers() == []
