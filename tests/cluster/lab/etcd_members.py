"""Three members of an etcd as processes of one machine.

They listen on its loopback, where volagent wants no certificates of them. What they hold lies on
the machine's first disk, which has to be mounted.
"""

import base64
import json
import time
from typing import Any

from tests.cluster.lab.machine import Machine

COUNT = 3
_FIRST_PORT = 2379
_PATIENCE_S = 60.0
_START = """
mkdir -p {home}
cd {home}
setsid etcd --name {name} --data-dir {home}/data \\
  --listen-client-urls {url} --advertise-client-urls {url} \\
  --listen-peer-urls {peer_url} --initial-advertise-peer-urls {peer_url} \\
  --initial-cluster {members} --logger zap </dev/null >>/run/{name}.log 2>&1 &
echo $! >{pid_file}
"""


class EtcdMember:
    """One of them."""

    def __init__(self, number: int, data: str) -> None:
        self.name = f"etcd{number}"
        self.home = f"{data}/{self.name}"
        self.pid_file = f"/run/{self.name}.pid"
        port = _FIRST_PORT + 10 * number
        self.url = f"http://127.0.0.1:{port}"
        self.peer_url = f"http://127.0.0.1:{port + 1}"


class EtcdMembers:
    """All of them, by what they answer to HTTP."""

    def __init__(self, machine: Machine, data: str) -> None:
        self._machine = machine
        self.all = tuple(EtcdMember(number, data) for number in range(COUNT))

    @property
    def endpoints(self) -> list[str]:
        """Where clients go."""
        return [each.url for each in self.all]

    def begin(self, member: EtcdMember) -> None:
        """Start one, and wait for nothing."""
        members = ",".join(f"{each.name}={each.peer_url}" for each in self.all)
        self._machine.run(
            _START.format(
                name=member.name, home=member.home, url=member.url, peer_url=member.peer_url,
                members=members, pid_file=member.pid_file,
            )
        )  # fmt: skip

    def wait_healthy(self) -> None:
        """Until each answers and knows who leads."""
        ends_s = time.monotonic() + _PATIENCE_S
        while not all(each and int(each["leader"]) for each in self._statuses()):
            assert time.monotonic() < ends_s, self.log()
            time.sleep(0.2)

    def leader(self) -> EtcdMember:
        """The member that says that it leads."""
        ends_s = time.monotonic() + _PATIENCE_S
        while True:
            for member, status in zip(self.all, self._statuses(), strict=True):
                if status and status["leader"] == status["header"]["member_id"]:
                    return member
            assert time.monotonic() < ends_s, self.log()
            time.sleep(0.2)

    def read(self, key: str) -> bytes | None:
        """A key's value."""
        wanted = {"key": base64.b64encode(key.encode()).decode()}
        for found in self._ask("kv/range", wanted):
            if found:
                return next((base64.b64decode(kv["value"]) for kv in found.get("kvs", ())), None)
        raise AssertionError(f"no member of etcd answers:\n{self.log()}")

    def log(self) -> str:
        """What they said last."""
        names = " ".join(f"/run/{each.name}.log" for each in self.all)
        return self._machine.run(f"tail -n 15 {names}", check=False).out

    def _statuses(self) -> list[Any]:
        """Of each member; without an answer, or with `leader` 0, it is of no use."""
        return [
            each and {**each, "leader": each.get("leader", "0")}
            for each in self._ask("maintenance/status", {})
        ]

    def _ask(self, path: str, body: dict[str, str]) -> list[Any]:
        """What each answers; None when it does not."""
        ask = f"curl -sf --max-time 3 -d '{json.dumps(body)}'"
        lines = [f'echo "$({ask} {each.url}/v3/{path})"' for each in self.all]
        said = self._machine.run("\n".join(lines)).out
        return [json.loads(line) if line else None for line in said.split("\n")[: len(self.all)]]
