"""Three `volagent server`s over three members of etcd, as processes of one machine.

They have the machine's address, each with its own port, so that a node which is cut off from the
machine is cut off from all. Only where machines see the host's files: see `CheckoutInstallation`.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

from tests.cluster.lab.cluster import SETTINGS, Server
from tests.cluster.lab.daemon import ApiFailed, Awaited, Json
from tests.cluster.lab.etcd_members import EtcdMember, EtcdMembers
from tests.cluster.lab.installation import SupervisedInstallation
from tests.cluster.lab.machine import Hardware, Installation, Lab, Machine

COUNT = 3
_HARDWARE = Hardware(memory_mib=1024, disks_mib=(2048,))
"""Each member of etcd sets 64 MiB aside for each file of its log."""
_FIRST_PORT = 6443
_LEADER = "/volagent/leader"
_LEADING_WITHIN_S = 60.0
_ANSWER_WITHIN_S = 40.0
"""So long an administrator asks again: while etcd elects, servers answer with 503 and 504."""
_KILL = """
groups="{groups}"
kill -KILL -- $groups
for group in $groups; do while kill -0 -- $group 2>/dev/null; do sleep 0.05; done; done
"""


class OneServer(Server):
    """One of several on a machine."""

    def __init__(
        self, machine: Machine, number: int, endpoints: Sequence[str], *, settings: str
    ) -> None:
        store = f'[store]\nkind = "etcd"\nendpoints = {json.dumps(list(endpoints))}\n'
        super().__init__(machine, settings=f"{settings}\n{store}")
        self.name = f"server{number}"
        self._installation = SupervisedInstallation(self.name)
        run_dir = f"/run/volagent-{self.name}"
        self.url = f"https://{machine.address}:{_FIRST_PORT + number}"
        self.options |= {
            "node_name": self.name,
            "state_dir": f"{self.data}/{self.name}",
            "run_dir": run_dir,
            "listen": [f"unix://{run_dir}/volagent.sock", self.url],
        }

    @property
    def installation(self) -> Installation:
        """One for each."""
        return self._installation

    @property
    def pid_file(self) -> str:
        """Of its supervisor."""
        return self._installation.pid_file

    def has_led_last(self) -> bool:
        """Whether it led when it said something about that for the last time."""
        lines = f'grep -oE \'"event": ?"leading( no more)?"\' {self._installation.log} || true'
        return self.machine.run(lines).out.rstrip().endswith('leading"')


class SharedServers(Server):
    """All of them as one: who is asked is the first that was not killed, or the next."""

    def __init__(self, machine: Machine, *, settings: str = "") -> None:
        super().__init__(machine, settings=settings)
        self.etcd = EtcdMembers(machine, self.data)
        self.all = tuple(
            OneServer(machine, number, self.etcd.endpoints, settings=settings)
            for number in range(COUNT)
        )
        self._asked: list[OneServer] = []
        """Those that were not killed, who has been there for longest first."""
        self._down: set[EtcdMember] = set(self.etcd.all)

    @property
    def installation(self) -> Installation:
        """Of the server that is asked."""
        return self._first.installation

    @property
    def pid_file(self) -> str:
        """Of the server that is asked."""
        return self._first.pid_file

    @property
    def run_dir(self) -> str:
        """Of the server that is asked."""
        return self._first.run_dir

    def start(self) -> Awaited:
        """Start whatever is down, and wait until everything is ready."""
        began = time.monotonic()
        self.mount_data()
        self._begin_members()
        self.etcd.wait_healthy()
        self.begin()
        for server in self.all:
            server.wait_serving()
        self.leader()
        return Awaited((time.monotonic() - began) * 1000, None)

    def begin(self) -> None:
        """Start whatever is down, and wait for nothing."""
        self._begin_members()
        for server in self.all:
            if server not in self._asked:
                server.begin()
                self._asked.append(server)

    def kill(self) -> None:
        """`kill -9` of every server; etcd goes on."""
        self.kill_at_once(*self._asked)

    def stop(self) -> None:
        """SIGTERM to every server; etcd goes on."""
        while self._asked:
            self._asked[0].stop()
            del self._asked[0]

    def kill_at_once(self, *killed: OneServer | EtcdMember) -> None:
        """`kill -9` of servers and members in one moment; they stay away until `start`."""
        groups = " ".join(f"-$(cat {each.pid_file})" for each in killed)
        self.machine.run(_KILL.format(groups=groups))
        self._asked = [each for each in self._asked if each not in killed]
        self._down.update(each for each in killed if isinstance(each, EtcdMember))

    def leader(self) -> OneServer:
        """The server whose controllers run, as etcd has it; of a killed one for some seconds."""
        ends_s = time.monotonic() + _LEADING_WITHIN_S
        while True:
            held = self.etcd.read(_LEADER)
            if held is not None:
                name = held.partition(b"\n")[2].decode()
                return next(each for each in self.all if each.name == name)
            assert time.monotonic() < ends_s, self.log()
            time.sleep(0.2)

    def wait_led_by_others(self, *gone: OneServer | EtcdMember) -> None:
        """Until neither the servers nor etcd are led by one of these."""
        ends_s = time.monotonic() + _LEADING_WITHIN_S
        while not {self.leader(), self.etcd.leader()}.isdisjoint(gone):
            assert time.monotonic() < ends_s, self.log()
            time.sleep(0.2)

    def make_join_command(self) -> str:
        """With all servers."""
        first, *others = self.all
        more = "".join(f" --server {each.url}" for each in others)
        return first.make_join_command() + more

    def log(self) -> str:
        """The ends of all."""
        logs = [f"--- {each.name}\n{each.log()}" for each in self.all]
        return "\n".join([*logs, self.etcd.log()])

    @property
    def _first(self) -> OneServer:
        assert self._asked, "every server was killed"
        return self._asked[0]

    def _begin_members(self) -> None:
        for member in self.etcd.all:
            if member in self._down:
                self.etcd.begin(member)
        self._down.clear()

    def _ask(self, requests: "Sequence[Json] | Any", within_s: float = 0.0) -> list[Json]:
        asked = list(requests)
        only_reads = all(each.get("method", "GET") == "GET" for each in asked)
        ends_s = time.monotonic() + _ANSWER_WITHIN_S
        while True:
            patient = only_reads and time.monotonic() < ends_s
            assert self._asked, "every server was killed"
            for server in self._asked:
                try:
                    answers = server._ask(asked, within_s)
                except ApiFailed:  # it ended by itself, or does not answer
                    if not patient:
                        raise
                    continue
                if not patient or not any(each.get("code") in (503, 504) for each in answers):
                    return answers
            time.sleep(0.2)


def add_shared_servers(lab: Lab) -> SharedServers:
    """For `Cluster.build`."""
    return SharedServers(lab.add_machine("server", _HARDWARE), settings=SETTINGS)
