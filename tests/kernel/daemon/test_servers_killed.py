"""Servers and etcd's members killed and frozen under load: no acknowledged write is lost.

Two seeds are the short form; `VOLAGENT_SEEDS=20` runs as many.
"""

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from tests import etcd_server
from tests.etcd_server import EtcdMember
from tests.kernel.daemon.harness import Daemon, until
from tests.kernel.daemon.several import Servers, SharedServer
from tests.kernel.daemon.write_load import Load

pytestmark = [
    pytest.mark.skipif(etcd_server.PROGRAM is None, reason=etcd_server.MISSING),
    pytest.mark.timeout(300),
]

SEEDS = range(int(os.environ.get("VOLAGENT_SEEDS", "2")))
FAULTS = 5
WRITERS = 4
FREEZE_S = 3.0
PAUSE_MAX_S = 8.0
"""Nobody's write was acknowledged: etcd's election, a frozen member's silence, a busy machine."""


@pytest.fixture
def servers(stopped: Daemon) -> Iterator[Servers]:
    started = Servers(stopped.base, servers=3, members=3)
    try:
        started.start()
        yield started
    finally:
        started.end()


def kill_server(server: SharedServer) -> None:
    server.kill()
    time.sleep(0.5)
    server.begin()


def freeze_server(server: SharedServer) -> None:
    assert server.process is not None
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(FREEZE_S)
    server.process.send_signal(signal.SIGCONT)


def kill_member(member: EtcdMember) -> None:
    member.kill()
    time.sleep(0.5)
    member.start()


def freeze_member(member: EtcdMember) -> None:
    member.send(signal.SIGSTOP)
    time.sleep(FREEZE_S)
    member.send(signal.SIGCONT)


def harm(servers: Servers, chance: random.Random) -> str:
    """Do one harm; what it was."""
    server = chance.choice([servers.wait_leader(), *servers.all])
    member = chance.choice([servers.etcd.leader(), *servers.etcd.members])
    match chance.randrange(5):
        case 0:
            kill_server(server)
            return f"killed {server.name}"
        case 1:
            freeze_server(server)
            return f"froze {server.name}"
        case 2:
            kill_member(member)
            return f"killed etcd {member.name}"
        case 3:
            freeze_member(member)
            return f"froze etcd {member.name}"
        case _:
            server.kill()
            kill_member(member)
            server.begin()
            return f"killed {server.name} and etcd {member.name}"


@pytest.mark.parametrize("seed", SEEDS)
def test_no_acknowledged_write_is_lost_when_servers_and_members_die(servers: Servers, seed: int):
    chance = random.Random(seed)
    load = Load(servers.all, WRITERS, seed)
    load.start()
    done: list[str] = []
    try:
        for _ in range(FAULTS):
            time.sleep(chance.uniform(0.5, 1.5))
            done.append(harm(servers, chance))
            for member in servers.etcd.members:
                member.wait_healthy()
            for each in servers.all:
                _wait_back(each)
    finally:
        load.stop()
    print(f"seed {seed}: {len(load.acknowledged_s)} writes acknowledged, longest pause"
          f" {load.longest_pause_s():.1f} s; {', '.join(done)}")  # fmt: skip
    lies = {each.name: list(load.find_lies(each)) for each in servers.all}
    assert lies == {each.name: [] for each in servers.all}, done
    assert len(load.acknowledged_s) > 100
    assert load.longest_pause_s() <= PAUSE_MAX_S, (done, load.longest_pause_s())


def _wait_back(server: SharedServer) -> None:
    """Wait until it serves; one that went down by itself, as a deposed leader does, is started
    again, as systemd would."""

    def look() -> bool:
        if not server.running:
            server.begin()
        return server.is_ready()

    until(look, within_s=60.0, told=server.read_log)
