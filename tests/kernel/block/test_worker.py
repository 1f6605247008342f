"""Calls that one child answers one after the other."""

import asyncio
import contextlib
import os
import signal

import psutil
import pytest

from tests.kernel.block.conftest import until
from volagent.host import process, worker
from volagent.host.errors import HostError, TimedOut
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


def has_open(pid, path):
    with contextlib.suppress(OSError):  # it opens and closes while we look
        where = f"/proc/{pid}/fd"
        return any(os.readlink(f"{where}/{number}") == str(path) for number in os.listdir(where))
    return False


@pytest.fixture
def full_pipe(scratch):
    """A file that can be opened, and keeps whoever writes to it."""
    path = scratch / "full"
    os.mkfifo(path)
    end = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(end, bytes(4096))
    yield path
    os.close(end)


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
    # One that was only starting is killed, and has been given nothing: nobody waits for its end.
    await until(lambda: not workers())


async def test_child_that_was_killed_while_it_waited_costs_one_call(helpers, file):
    await write(helpers, file, "a")
    (worker,) = workers()
    os.kill(worker, signal.SIGKILL)
    await until(lambda: not workers())
    await write(helpers, file, "b")
    assert file.read_text() == "b"


async def test_call_whose_child_is_killed_over_it_is_told_and_not_made_again(helpers, full_pipe):
    call = asyncio.ensure_future(write(helpers, full_pipe, "x"))
    await until(workers)
    (worker,) = workers()
    await until(lambda: has_open(worker, full_pipe))
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(HostError, match="exit status -9"):
        await call
    assert workers() == []


async def test_only_one_child_stays_when_nobody_has_work(helpers, scratch, monkeypatch):
    monkeypatch.setattr(worker, "IDLE_S", 0.05)
    paths = [scratch / name for name in "abc"]
    for path in paths:
        path.touch()
    await asyncio.gather(*(write(helpers, path, "x") for path in paths))
    await until(lambda: len(workers()) == 1)
    (left,) = workers()
    await write(helpers, paths[0], "y")
    assert workers() == [left]


async def test_prepared_child_answers_the_first_call(helpers, file):
    await helpers.prepare()
    (prepared,) = workers()
    await write(helpers, file, "a")
    assert workers() == [prepared]
    await helpers.prepare()
    assert workers() == [prepared]


async def test_child_that_does_not_start_is_told_and_blames_no_backend(file, monkeypatch):
    monkeypatch.setattr(process, "_CHILD_CALLS", "/nowhere/child_calls.py")
    helpers = Helpers()
    with pytest.raises(HostError, match=r"start process \d+: .*No such file"):
        await write(helpers, file, "a")
    assert helpers.backends() == ()
    await helpers.close()


async def test_child_keeps_no_descriptor_of_what_it_was_asked(helpers, file):
    await helpers.prepare()
    (worker,) = workers()
    before = psutil.Process(worker).num_fds()
    await write(helpers, file, "a")
    with pytest.raises(HostError):
        await write(helpers, file.with_name("missing"), "a")
    assert psutil.Process(worker).num_fds() == before


async def test_daemon_keeps_no_descriptor_of_a_child_that_ended(helpers, file):
    await write(helpers, file, "a")
    before = psutil.Process().num_fds()
    (worker,) = workers()
    os.kill(worker, signal.SIGKILL)
    await until(lambda: not workers())
    await write(helpers, file, "b")
    assert psutil.Process().num_fds() == before


async def test_closing_ends_those_that_wait(file):
    helpers = Helpers()
    await write(helpers, file, "a")
    assert workers() != []
    await helpers.close()
    assert workers() == []


async def test_device_whose_node_comes_late_is_waited_for(helpers, loops, scratch):
    device = await loops.attach("a.img", 1 << 20)
    link = scratch / "late"
    asyncio.get_running_loop().call_later(0.3, link.symlink_to, device.path)
    request = {"path": str(link), "within_s": 5.0}
    await helpers.call("await_device", request, backend="disk", timeout_s=10)
    assert link.exists()


async def test_device_that_never_comes_is_told(helpers, scratch):
    request = {"path": str(scratch / "never"), "within_s": 0.1}
    with pytest.raises(HostError, match="ENOENT"):
        await helpers.call("await_device", request, backend="disk", timeout_s=10)
