"""Children that hang, that do not die, that say too much; and threads."""

import asyncio
import os
import re
import threading
import time
from datetime import UTC, datetime

import pytest

from tests.kernel.block.conftest import until
from tests.kernel.block.dead_server import DeadServer
from volagent.host.breaker import FORGET_AFTER_S, OPEN_AFTER_TIMEOUTS, OPEN_FOR_S
from volagent.host.child import OUTPUT_MAX_BYTES
from volagent.host.errors import Absent, HostError, NotTried, TimedOut, Unsupported
from volagent.host.gauges import RealGauges
from volagent.host.process import CHILDREN_PER_BACKEND_MAX, Helpers
from volagent.observe.metrics import REGISTRY

# Prints its pid and that of its own child, then hangs.
HANGS = ("sh", "-c", 'sleep 1000 & echo "$$ $!" > "$0"; wait')


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids_in(path):
    return [int(word) for word in path.read_text().split()] if path.exists() else []


@pytest.fixture
def dead(scratch):
    path = scratch / "dead"
    path.mkdir()
    server = DeadServer(path)
    yield server
    server.answer()


async def test_program_answers_with_its_status_and_output(helpers):
    argv = ("sh", "-c", "echo out; echo err >&2; exit 3")
    outcome = await helpers.run(argv, backend="local", timeout_s=10)
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (3, b"out\n", b"err\n")
    assert outcome.complaint == "err"
    assert "out" not in repr(outcome)
    assert helpers.backends() == ()


async def test_program_gets_its_input_and_nothing_of_our_environment(helpers):
    os.environ["SECRET_OF_OURS"] = "x"
    try:
        outcome = await helpers.run(
            ("sh", "-c", "cat; env"), backend="local", timeout_s=10, stdin=b"in\n", env={"A": "1"}
        )
    finally:
        del os.environ["SECRET_OF_OURS"]
    lines = outcome.stdout.decode().splitlines()
    assert lines[0] == "in"
    assert "A=1" in lines
    assert "LC_ALL=C" in lines
    assert not any("SECRET_OF_OURS" in line for line in lines)


async def test_program_without_input_reads_nothing(helpers):
    assert (await helpers.run(("cat",), backend="local", timeout_s=10)).stdout == b""


async def test_input_that_does_not_fit_is_refused(helpers):
    with pytest.raises(HostError, match="E2BIG"):
        await helpers.run(("cat",), backend="local", timeout_s=10, stdin=bytes(1 << 20))


async def test_program_inherits_only_what_it_is_given(helpers, scratch):
    fd = os.open(scratch, os.O_RDONLY)
    try:
        argv = ("sh", "-c", "readlink /proc/$$/fd/3; ls /proc/$$/fd")
        given = await helpers.run(argv, backend="local", timeout_s=10, inherit=fd)
        plain = await helpers.run(argv, backend="local", timeout_s=10)
    finally:
        os.close(fd)
    link, *more = given.stdout.decode().split()
    assert link == str(scratch)
    assert set(more) - set(plain.stdout.decode().split()) == {"3"}
    assert str(fd) not in plain.stdout.decode().split()


async def test_output_is_bounded_and_nobody_blocks_on_it(helpers):
    argv = ("sh", "-c", "head -c 5000000 /dev/zero; echo end >&2")
    outcome = await helpers.run(argv, backend="local", timeout_s=30)
    assert outcome.returncode == 0
    assert len(outcome.stdout) == OUTPUT_MAX_BYTES
    assert outcome.stderr == b"end\n"


async def test_what_a_program_leaves_behind_is_not_waited_for(helpers, scratch):
    # It keeps the pipes open, as a daemon that mount.nfs starts may do.
    note = scratch / "pid"
    argv = ("sh", "-c", 'setsid sleep 1000 & echo $! > "$0"; echo started', str(note))
    outcome = await helpers.run(argv, backend="local", timeout_s=10)
    (pid,) = pids_in(note)
    os.kill(pid, 9)
    assert outcome.stdout == b"started\n"


async def test_missing_program_is_unsupported(helpers):
    with pytest.raises(Unsupported, match="no-such-program is not installed"):
        await helpers.run(("no-such-program",), backend="nfs:x", timeout_s=10)
    assert helpers.backends() == ()


async def test_hanging_program_is_killed_with_its_children(helpers, scratch):
    note = scratch / "pids"
    call = helpers.run((*HANGS, str(note)), backend="nfs:x", timeout_s=0.5)
    with pytest.raises(TimedOut, match=r"no answer within 0.5 s, killed"):
        await call
    pids = pids_in(note)
    assert len(pids) == 2
    await until(lambda: not any(map(alive, pids)))


async def test_nothing_runs_on_when_the_caller_is_cancelled(helpers, scratch):
    note = scratch / "pids"
    argv = (*HANGS, str(note))
    task = asyncio.get_running_loop().create_task(
        helpers.run(argv, backend="nfs:x", timeout_s=1000)
    )
    await until(lambda: len(pids_in(note)) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not alive(pids_in(note)[0])
    await until(lambda: not any(map(alive, pids_in(note))))
    assert helpers.backends() == ()


async def test_child_that_does_not_die_is_abandoned_and_reaped_when_it_can_be(
    helpers, reader, dead
):
    call = asyncio.get_running_loop().create_task(
        RealGauges(helpers=helpers, reader=reader).measure(
            str(dead.path), backend="nfs:x", timeout_s=0.5
        )
    )
    await until(dead.has_request)
    with pytest.raises(TimedOut, match=r"process \d+ does not die and was abandoned"):
        await call
    (state,) = helpers.backends()
    assert state.abandoned == 1
    assert state.running == 0
    assert "1 calls are stuck in the kernel" in state.detail
    dead.answer()
    await until(lambda: not any(state.abandoned for state in helpers.backends()))


async def test_closing_does_not_wait_for_an_abandoned_child(dead):
    helpers = Helpers()
    call = asyncio.get_running_loop().create_task(
        helpers.call("probe_path", {"path": str(dead.path)}, backend="nfs:x", timeout_s=0.5)
    )
    await until(dead.has_request)
    with pytest.raises(TimedOut) as told:
        await call
    began = time.monotonic()
    await helpers.close()
    assert time.monotonic() - began < 1.0
    dead.answer()
    abandoned = re.search(r"process (\d+)", str(told.value))
    assert abandoned is not None
    os.waitpid(int(abandoned[1]), 0)  # `close` leaves it to init; we are its parent still


async def test_backend_runs_few_children_at_once(helpers, scratch):
    gate = scratch / "gate"
    os.mkfifo(gate)
    wait = ("cat", str(gate))
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(helpers.run(wait, backend="nfs:x", timeout_s=30)) for _ in range(5)]
    await until(lambda: [s.running for s in helpers.backends()] == [CHILDREN_PER_BACKEND_MAX])
    assert helpers.backends()[0].waiting == 5 - CHILDREN_PER_BACKEND_MAX
    # Another backend is not held back.
    await helpers.run(("true",), backend="nfs:y", timeout_s=10)
    done = asyncio.gather(*tasks)
    while not done.done():
        try:
            fd = os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            await asyncio.sleep(0.005)
            continue
        os.write(fd, b"\n")
        os.close(fd)
        await asyncio.sleep(0.005)
    assert [outcome.returncode for outcome in await done] == [0] * 5
    assert helpers.backends() == ()


class HandClock:
    now = 0.0

    def monotonic(self):
        return self.now

    def wall(self):
        return datetime.fromtimestamp(self.now, UTC)


async def test_silent_backend_is_refused_at_once_until_it_answers():
    clock = HandClock()
    helpers = Helpers(clock)
    for _ in range(OPEN_AFTER_TIMEOUTS):
        with pytest.raises(TimedOut):
            await helpers.run(("sleep", "1000"), backend="nfs:10.0.0.5", timeout_s=0.01)
    with pytest.raises(NotTried, match=r"nfs:10.0.0.5 has not answered since .*, next try in 15 s"):
        await helpers.run(("true",), backend="nfs:10.0.0.5", timeout_s=10)
    assert helpers.backends()[0].state == "open"
    clock.now += OPEN_FOR_S
    with pytest.raises(TimedOut):
        await helpers.run(("sleep", "1000"), backend="nfs:10.0.0.5", timeout_s=0.01)
    clock.now += OPEN_FOR_S
    await helpers.run(("false",), backend="nfs:10.0.0.5", timeout_s=10)
    assert helpers.backends() == ()
    await helpers.close()


async def test_silent_backend_is_forgotten_when_nobody_calls_it_any_more():
    clock = HandClock()
    helpers = Helpers(clock)
    with pytest.raises(TimedOut):
        await helpers.run(("sleep", "1000"), backend="nfs:10.0.0.5", timeout_s=0.01)
    assert [state.name for state in helpers.backends()] == ["nfs:10.0.0.5"]
    clock.now += FORGET_AFTER_S + 1
    assert helpers.backends() == ()
    await helpers.close()


async def test_call_raises_what_the_child_raised(helpers, scratch):
    arguments = {"path": f"{scratch}/missing", "flags": 8}
    with pytest.raises(HostError) as caught:
        await helpers.call("umount2", arguments, backend="local", timeout_s=10)
    assert str(caught.value) == (f"umount2 {scratch}/missing: No such file or directory (ENOENT)")


async def test_call_of_an_unknown_operation_fails_with_the_last_word_of_the_traceback(helpers):
    with pytest.raises(HostError, match="KeyError: 'nonsense'"):
        await helpers.call("nonsense", {"path": "/"}, backend="local", timeout_s=10)


async def test_programs_are_counted_apart_from_our_own_children(helpers, scratch):
    def count(program):
        return (
            REGISTRY.get_sample_value("volagent_program_seconds_count", {"program": program}) or 0
        )

    programs, ours = count("true"), count("volagent")
    await helpers.run(("true",), backend="local", timeout_s=10)
    (scratch / "file").write_bytes(b"x")
    arguments = {"path": str(scratch / "file"), "target": str(scratch / "copy")}
    await helpers.call("copy_file", arguments, backend="local", timeout_s=10)
    assert (count("true"), count("volagent")) == (programs + 1, ours + 1)


async def test_usage_is_the_same_when_asked_from_a_child(helpers, reader, scratch):
    gauges = RealGauges(helpers=helpers, reader=reader)
    direct = await gauges.measure(str(scratch), backend="local", timeout_s=10)
    asked = await gauges.measure(str(scratch), backend="nfs:x", timeout_s=10)
    assert direct.capacity_bytes == asked.capacity_bytes > 0
    assert direct.inodes == asked.inodes
    assert direct.used_bytes <= direct.capacity_bytes


async def test_usage_of_a_dead_server_is_asked_from_a_child_also_when_it_is_called_local(
    helpers, reader, dead
):
    gauges = RealGauges(helpers=helpers, reader=reader)
    call = asyncio.get_running_loop().create_task(
        gauges.measure(str(dead.path), backend="local", timeout_s=0.5)
    )
    await until(dead.has_request)
    with pytest.raises(TimedOut):
        await call
    dead.answer()
    await until(lambda: not any(state.abandoned for state in helpers.backends()))


async def test_usage_of_what_is_missing_is_absent(helpers, reader, scratch):
    gauges = RealGauges(helpers=helpers, reader=reader)
    with pytest.raises(Absent):
        await gauges.measure(f"{scratch}/missing", backend="local", timeout_s=10)


async def test_pool_runs_off_the_loop_and_closing_waits_for_it(helpers):
    began, go = threading.Event(), threading.Event()
    seen = []

    def work():
        began.set()
        go.wait(10)
        seen.append(threading.current_thread())

    own = Helpers()
    task = asyncio.get_running_loop().create_task(own.run_in_pool(work))
    await until(began.is_set)
    go.set()
    await own.close()
    await task
    assert seen
    assert seen[0] is not threading.main_thread()
