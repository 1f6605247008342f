"""Several real `volagent server`s over a real etcd cluster, for tests that kill some of them."""

import json
from pathlib import Path

from tests.etcd_server import EtcdCluster, free_ports
from tests.kernel.daemon.harness import Daemon, until
from tests.kernel.daemon.test_agent import LEASES

LEAD_WITHIN_S = 30.0
"""A leader's lease, and patience."""


class SharedServer(Daemon):
    """One `volagent server` of several."""

    verb = "server"

    def __init__(self, base: Path, name: str, endpoints: list[str], port: int) -> None:
        super().__init__(base)
        self.name, self.port = name, port
        self.url = f"https://127.0.0.1:{port}"
        self._began_at = 0
        self.store = f'[store]\nkind = "etcd"\nendpoints = {json.dumps(endpoints)}\n'

    def begin(self) -> None:
        """Start it without waiting."""
        self._began_at = self.log.stat().st_size if self.log.exists() else 0
        listen = ("--listen", f"unix://{self.run}/volagent.sock", "--listen", self.url)
        settings = f'node_name = "{self.name}"\n{self.store}\n{LEASES}'
        self.launch(*listen, settings=settings)

    def serve(self) -> None:
        """Start it and wait until it is ready."""
        self.begin()
        until(self.is_ready, within_s=60.0, told=self.read_log)

    @property
    def leads(self) -> bool:
        """Whether this process says that it leads."""
        if not self.running:
            return False
        return b'"event":"leading"' in self.log.read_bytes()[self._began_at :].replace(b" ", b"")


class Servers:
    """The servers and their etcd."""

    def __init__(self, base: Path, *, servers: int, members: int) -> None:
        self.etcd = EtcdCluster(base / "etcd", members)
        ports = free_ports(servers)
        self.all = [
            SharedServer(base / f"s{n}", f"s{n}", self.etcd.endpoints, port)
            for n, port in enumerate(ports)
        ]

    def start(self) -> None:
        """Start etcd, then all servers at once."""
        self.etcd.start()
        for each in self.all:
            each.begin()
        for each in self.all:
            until(each.is_ready, within_s=60.0, told=each.read_log)

    def wait_leader(self) -> SharedServer:
        """The one server that leads."""
        return until(
            lambda: next((each for each in self.all if each.leads), None),
            within_s=LEAD_WITHIN_S, told=lambda: [each.read_log() for each in self.all],
        )  # fmt: skip

    def end(self) -> None:
        """End everything, by force where needed."""
        for each in self.all:
            if each.running:
                each.kill()
        self.etcd.stop()
