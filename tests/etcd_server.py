"""A real etcd for tests: own directory, free loopback ports, ended by pid, dies with pytest."""

import asyncio
import ctypes
import http.client
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("etcd")
MISSING = "etcd is not installed: apt-get install etcd-server"
PATIENCE_S = 30.0
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True)["prctl"]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class EtcdMember:
    """One member; may be killed, frozen and started again."""

    def __init__(self, base: Path, name: str, ports: tuple[int, int], scheme: str = "http") -> None:
        self.base, self.name = base, name
        self.port, self.peer_port = ports
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.peer_url = f"http://127.0.0.1:{self.peer_port}"
        self.cluster: Sequence[EtcdMember] = (self,)
        self.options: tuple[str, ...] = ()
        self.health_url = self.url
        """Where it tells without a certificate how it is."""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it without waiting."""
        assert PROGRAM is not None, MISSING
        self.base.mkdir(parents=True, exist_ok=True)
        token = str(self.cluster[0].peer_port)
        members = ",".join(f"{each.name}={each.peer_url}" for each in self.cluster)
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    PROGRAM, "--name", self.name, "--data-dir", str(self.base / "data"),
                    "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
                    "--listen-peer-urls", self.peer_url,
                    "--initial-advertise-peer-urls", self.peer_url,
                    "--initial-cluster", members, "--initial-cluster-token", token,
                    "--logger", "zap", *self.options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=_die_with_pytest,
            )  # fmt: skip

    def is_healthy(self) -> bool:
        """Whether it answers and knows a leader."""
        address = self.health_url.rpartition("/")[2]
        connection = http.client.HTTPConnection(address, timeout=2)
        try:
            connection.request("GET", "/health")
            return b"true" in connection.getresponse().read()
        except OSError:
            return False
        finally:
            connection.close()

    def ask(self, path: str) -> dict[str, Any]:
        """A request without a body. Raises `OSError`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("POST", f"/v3/{path}", "{}")
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def send(self, number: signal.Signals) -> None:
        """A signal: SIGKILL, SIGSTOP, SIGCONT."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def wait_healthy(self) -> None:
        """Wait until it serves."""
        end_s = time.monotonic() + PATIENCE_S
        while not self.is_healthy():
            assert self.process is not None
            assert self.process.poll() is None, (self.base / "log").read_text()[-3000:]
            assert time.monotonic() < end_s, (self.base / "log").read_text()[-3000:]
            time.sleep(0.05)


class EtcdCluster:
    """Members that know each other."""

    def __init__(self, base: Path, count: int = 1) -> None:
        ports = free_ports(2 * count)
        pairs = list(zip(ports[::2], ports[1::2], strict=True))
        self.members = [EtcdMember(base / f"m{n}", f"m{n}", pair) for n, pair in enumerate(pairs)]
        for each in self.members:
            each.cluster = self.members

    @property
    def endpoints(self) -> list[str]:
        """Where clients go."""
        return [each.url for each in self.members]

    def start(self) -> None:
        """Start all and wait until they serve."""
        for each in self.members:
            each.start()
        for each in self.members:
            each.wait_healthy()

    def leader(self) -> EtcdMember:
        """The member that leads, as any of them says."""
        for each in self.members:
            try:
                told = each.ask("maintenance/status")
            except OSError:
                continue
            ids = {
                one.ask("maintenance/status")["header"]["member_id"]: one for one in self.members
            }
            return ids[told["leader"]]
        raise AssertionError("no member of etcd answers")

    def stop(self) -> None:
        """End all."""
        for each in self.members:
            each.kill()


async def put_behind_the_back(endpoint: str, requests: Sequence[dict]) -> None:
    """Transactions that no store knows of, as another server's."""
    import aiohttp

    async with aiohttp.ClientSession() as session:
        for request in requests:
            async with session.post(f"{endpoint}/v3/kv/txn", json=request) as answer:
                assert answer.status == 200, await answer.text()
            await asyncio.sleep(0)


def _die_with_pytest() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
