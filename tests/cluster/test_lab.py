"""The lab itself: what the scenarios rely on is true."""

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.lab.lab import UmlLab
from tests.cluster.lab.machine import (
    CommandFailed,
    CommandTimedOut,
    Hardware,
    Lab,
    Machine,
    MachineLost,
)
from tests.cluster.lab.nfs_server import NfsServer

_server_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def machines(lab: Lab) -> tuple[Machine, Machine]:
    pair = (
        lab.add_machine("one", Hardware(disks_mib=(64,))),
        lab.add_machine("two", Hardware(disks_mib=(64,))),
    )
    lab.start_all()
    return pair


def test_run_returns_status_and_both_outputs_when_the_script_fails(machines):
    outcome = machines[0].run("hostname; echo bad >&2; exit 7", check=False)
    assert (outcome.code, outcome.out, outcome.err) == (7, "one\n", "bad\n")
    with pytest.raises(CommandFailed, match="bad"):
        machines[0].run("echo bad >&2; exit 7")


def test_run_times_out_when_the_script_hangs(machines):
    with pytest.raises(CommandTimedOut, match="sleep"):
        machines[0].run("exec sleep 1000", timeout_s=0.5)
    machines[0].run("true")


def test_commands_of_one_machine_run_side_by_side(machines):
    machines[0].run("rm -f /run/here; (while [ ! -e /run/here ]; do sleep 0.05; done) &")
    machines[0].run("touch /run/here")


def test_files_of_a_machine_stay_its_own(machines):
    one, two = machines
    one.put_file("/srv/here/note", "x\n")
    assert one.run("cat /srv/here/note; stat -c %a /srv/here/note").out == "x\n644\n"
    assert two.run("ls -d /srv/here", check=False).code != 0


def test_partition_cuts_a_machine_off_until_healed(machines):
    one, two = machines
    two.run("cd /srv; (python3 -m http.server 8000 >/dev/null 2>&1 &)")
    probe = f"until : </dev/tcp/{two.address}/8000; do sleep 0.1; done"
    reach = f"timeout {2 * one.patience} bash -c '{probe}' 2>&1"
    one.run(reach)
    two.partition()
    assert one.run(reach, check=False).code != 0
    two.heal()
    one.run(reach)


def test_power_cut_keeps_synced_data_and_loses_the_rest(machines):
    one, _ = machines
    disk = one.disks[0]
    one.run(f"mkfs.ext4 -q {disk}; mkdir -p /data; mount {disk} /data")
    one.run("echo kept >/data/kept; sync -f /data; echo lost >/data/lost")
    one.power_cut()
    with pytest.raises(MachineLost):
        one.run("true")
    one.start()
    assert one.run(f"mkdir -p /data; mount {disk} /data; ls /data").out.split() == [
        "kept", "lost+found",
    ]  # fmt: skip


def test_halt_keeps_everything(machines):
    _, two = machines
    disk = two.disks[0]
    two.run(f"mkfs.ext4 -q {disk}; mkdir -p /data; mount {disk} /data; echo kept >/data/kept")
    two.halt()
    two.start()
    assert two.run(f"mkdir -p /data; mount {disk} /data; cat /data/kept").out == "kept\n"


def test_export_is_shared_by_clients_of_every_version(lab: Lab, machines):
    one, two = machines
    server = add_nfs_server(lab)
    server.make_directory("shared")
    one.run(f"mkdir -p /n; mount -t nfs -o vers=4.2 {server.address}:{server.path('shared')} /n")
    one.run("echo hello >/n/note")
    for version, options in (("3", "vers=3,nolock"), ("4.1", "vers=4.1"), ("4.2", "vers=4.2")):
        source = f"{server.address}:{server.path('shared', version=version)}"
        said = two.run(
            f"mkdir -p /n; mount -t nfs -o {options} {source} /n; cat /n/note; umount /n"
        )
        assert said.out == "hello\n"
    assert server.read("shared/note") == "hello\n"


def test_writer_waits_and_finishes_when_the_nfs_server_loses_power_and_returns(lab: Lab, machines):
    one, _ = machines
    server = add_nfs_server(lab)
    server.make_directory("hard")
    source = f"{server.address}:{server.path('hard')}"
    one.run(f"mkdir -p /h; mount -t nfs -o vers=4.2,hard,timeo=50 {source} /h")
    server.machine.power_cut()
    one.run("(echo late >/h/late; sync -f /h; touch /run/written) >/dev/null 2>&1 &")
    assert one.run("test -e /run/written", check=False).code != 0
    server.machine.start()
    server.serve()
    one.run("until [ -e /run/written ]; do sleep 0.2; done", timeout_s=90)
    assert server.read("hard/late") == "late\n"


@pytest.mark.only_on("uml", reason="the clock of a suspended guest stands still")
def test_frozen_machine_does_nothing_and_its_clock_goes_on(machines):
    one, _ = machines
    one.run("(while sleep 0.1; do date +%s%N; done) >/run/ticks 2>/dev/null & echo $! >/run/ticker")
    one.run("until [ -s /run/ticks ]; do sleep 0.1; done")
    one.freeze()
    time.sleep(3.0)
    one.thaw()
    one.run("n=$(wc -l </run/ticks); until [ $(wc -l </run/ticks) -gt $n ]; do sleep 0.1; done")
    ticks = [int(each) for each in one.run("kill $(cat /run/ticker); cat /run/ticks").out.split()]
    assert max(b - a for a, b in itertools.pairwise(ticks)) > 2e9


@pytest.mark.only_on("uml", reason="looks at the processes of User-Mode-Linux")
def test_killed_run_leaves_no_process_and_its_directory_to_the_next_lab(backend):
    program = (
        "from tests.cluster.lab.lab import UmlLab\n"
        "lab = UmlLab()\n"
        "machine = lab.add_machine('orphan')\n"
        "machine.start()\n"
        "print(machine.log.parent.parent, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        directory = Path(run.stdout.readline().strip())
        assert processes_naming(directory)
        run.kill()
    wait_until(lambda: not processes_naming(directory))
    assert directory.exists()
    with UmlLab():
        assert not directory.exists()


def add_nfs_server(lab: Lab) -> NfsServer:
    machine = lab.add_machine(f"nfs{next(_server_numbers)}", Hardware(disks_mib=(64,)))
    machine.start()
    server = NfsServer(machine, machine.disks[0])
    server.serve()
    return server


def processes_naming(directory: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(directory) in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def wait_until(holds: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "not within the time allowed"
        time.sleep(0.02)
