"""What happens to a node while its pod writes, and how that ends."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.cluster.lab.cluster import Agent
from tests.cluster.lab.iscsi_initiator import IscsiInitiator
from tests.cluster.lab.machine import PID_FILE
from tests.cluster.writer_site import Site, machine_of

ASKED = os.environ.get("VOLAGENT_TORTURE_SEEDS", "")
SEEDS = range(*map(int, ASKED.split(":"))) if ASKED else range(1)
"""As many as asked for, or from the first to before the last."""
LONG = bool(ASKED)
"""`make test` has time for some of the failures."""
long = pytest.mark.skipif(not LONG, reason="takes hours: `make torture`")

FROZEN_LONG_S = 50.0
"""After its disks have moved, which takes more than 10 s."""


@dataclass(frozen=True)
class Failure:
    """What happens to a node, and how it ends."""

    name: str
    begin: Callable[[Site, Agent], None]
    end: Callable[[Site, Agent], None]


def _start_again(_: Site, node: Agent) -> None:
    node.machine.start()
    IscsiInitiator(node.machine).start(patience_s=120)
    node.start()


def _cut_off(*roles: str) -> Failure:
    def addresses(site: Site) -> list[str]:
        machines = {"server": site.server.machine, "storage": site.cluster.storage}
        return [machines[role].address for role in roles]

    def change(verb: str) -> Callable[[Site, Agent], None]:
        def do(site: Site, node: Agent) -> None:
            lines = [f"ip route {verb} blackhole {each}/32" for each in addresses(site)]
            node.machine.run("\n".join(lines))

        return do

    return Failure(f"cut off from the {' and the '.join(roles)}", change("add"), change("del"))


def _signal(name: str) -> Callable[[Site, Agent], None]:
    return lambda _, node: node.machine.run(f"kill -{name} $(cat {PID_FILE})") and None


POWER = Failure("power cut", lambda _, node: node.machine.power_cut(), _start_again)
NETWORK = Failure(
    "cable pulled", lambda _, node: node.machine.partition(), lambda _, node: node.machine.heal()
)
FROZEN = Failure(
    "frozen", lambda _, node: machine_of(node).freeze(), lambda _, node: machine_of(node).thaw()
)


def _thaw_late(_: Site, node: Agent) -> None:
    time.sleep(FROZEN_LONG_S)
    machine_of(node).thaw()


FROZEN_LONG = Failure("frozen for more than 60 s", FROZEN.begin, _thaw_late)
KILLED = Failure("agent killed", lambda _, node: node.kill(), lambda _, node: node.start() and None)
STOPPED = Failure("agent stopped", _signal("STOP"), _signal("CONT"))
SERVER = _cut_off("server")
STORAGE = _cut_off("storage")


def _lose_with_the_server(site: Site, node: Agent) -> None:
    node.machine.power_cut()
    site.server.kill()
    site.server.start()


WITH_SERVER = Failure("power cut, and the server killed", _lose_with_the_server, _start_again)


# -- of whoever leads or does a fence; the node is the one that was asked for it -------------------

EXECUTOR_KILLED = Failure("executor's agent killed", KILLED.begin, KILLED.end)
EXECUTOR_OFF = Failure("executor powered off", POWER.begin, POWER.end)


def _start_server(site: Site, _: Agent) -> None:
    site.server.start()


SERVER_KILLED = Failure("server killed", lambda site, _: site.server.kill(), _start_server)
