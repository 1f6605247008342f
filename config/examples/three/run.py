"""`make try-three`: three servers over three members of etcd on this machine, for trying out.

Everything lies in one temporary directory and on loopback ports chosen free; it ends, and is
removed, with Ctrl-C. With `--check` it ends by itself after it has killed the leading server and
one of etcd's members, and seen a write acknowledged each time. As root; etcd is Debian's
package `etcd-server`.
"""

import argparse
import ctypes
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COUNT = 3
START_S = 90.0
VOLAGENT = Path(sys.executable).parent / "volagent"
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True)["prctl"]


class Failed(Exception):
    """Something is not as it should be; the text is for a person."""


class Three:
    """The processes and where they live."""

    def __init__(self, base: Path) -> None:
        self.base = base
        ports = _free_ports(3 * COUNT)
        self.clients, self.peers, self.apis = (ports[n * COUNT :][:COUNT] for n in range(3))
        self.members: list[subprocess.Popen[bytes]] = []
        self.servers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """etcd first, then the servers. Raises `Failed`."""
        self.members = [self._start_member(number) for number in range(COUNT)]
        for port in self.clients:
            _until(lambda port=port: _is_healthy(port), "etcd is not healthy", self.base)
        self.servers = [self._start_server(number) for number in range(COUNT)]
        for number in range(COUNT):
            _until(lambda n=number: self.is_ready(n), "a server is not ready", self.base)

    def stop(self) -> None:
        """End everything."""
        for process in self.servers:
            process.terminate()
        for process in self.servers:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for process in self.members:
            process.kill()
            process.wait()

    def run_dir(self, number: int) -> Path:
        """Where a server has its socket."""
        return self.base / f"server{number}" / "run"

    def ask(self, number: int, *arguments: str, content: str = "") -> str:
        """The command line, with one of the servers. Raises `Failed`."""
        done = subprocess.run(
            [VOLAGENT, *arguments, "--run-dir", str(self.run_dir(number))],
            input=content, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise Failed(done.stderr.strip())
        return done.stdout

    def is_ready(self, number: int) -> bool:
        """Whether a server answers."""
        if self.servers[number].poll() is not None:
            raise Failed(f"a server has ended; its log is {self.base}/server{number}/log")
        try:
            self.ask(number, "get", "namespaces")
        except Failed:
            return False
        return True

    def leader(self) -> int:
        """Which server leads."""
        for number, process in enumerate(self.servers):
            log = self.base / f"server{number}" / "log"
            if process.poll() is None and b'"event":"leading"' in log.read_bytes():
                return number
        raise Failed("no server leads")

    def _start_member(self, number: int) -> subprocess.Popen[bytes]:
        directory = self.base / f"etcd{number}"
        directory.mkdir()
        url = f"http://127.0.0.1:{self.clients[number]}"
        peer = f"http://127.0.0.1:{self.peers[number]}"
        members = ",".join(f"etcd{n}=http://127.0.0.1:{port}" for n, port in enumerate(self.peers))
        return _start(directory, [
            "etcd", "--name", f"etcd{number}", "--data-dir", f"{directory}/data",
            "--listen-client-urls", url, "--advertise-client-urls", url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--initial-cluster", members, "--logger", "zap",
        ])  # fmt: skip

    def _start_server(self, number: int) -> subprocess.Popen[bytes]:
        directory = self.base / f"server{number}"
        directory.mkdir()
        endpoints = [f"http://127.0.0.1:{port}" for port in self.clients]
        (directory / "volagent.toml").write_text(
            f'node_name = "server{number}"\n'
            f'[store]\nkind = "etcd"\nendpoints = {json.dumps(endpoints)}\n'
        )
        return _start(directory, [
            str(VOLAGENT), "server", "--config", f"{directory}/volagent.toml",
            "--state-dir", f"{directory}/state", "--run-dir", str(self.run_dir(number)),
            "--listen", f"unix://{self.run_dir(number)}/volagent.sock",
            "--listen", f"https://127.0.0.1:{self.apis[number]}",
        ])  # fmt: skip


def main() -> int:
    """Start, explain, wait; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="kill some of it, look, and end")
    arguments = parser.parse_args()
    if shutil.which("etcd") is None:
        print("try-three: there is no etcd here: apt-get install etcd-server", file=sys.stderr)
        return 1
    base = Path(tempfile.mkdtemp(prefix="volagent-three-"))
    three = Three(base)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        three.start()
        _explain(three)
        if arguments.check:
            _check(three)
        else:
            signal.pause()
    except KeyboardInterrupt:
        print()
    except Failed as failure:
        print(f"try-three: {failure}", file=sys.stderr)
        return 1
    finally:
        three.stop()
        shutil.rmtree(base)
    return 0


def _explain(three: Three) -> None:
    print("Three servers, any of which answers:")
    for number, port in enumerate(three.apis):
        pid = three.servers[number].pid
        print(f"  volagent get namespaces --run-dir {three.run_dir(number)}"
              f"   # pid {pid}, https://127.0.0.1:{port}")  # fmt: skip
    pids = ", ".join(str(process.pid) for process in three.members)
    print(f"over three members of etcd (pid {pids}). Kill any of them and ask another server.")
    print("Ctrl-C ends everything and removes it.", flush=True)


def _check(three: Three) -> None:
    _until(lambda: _leads(three), "no server leads", three.base)
    leader = three.leader()
    others = [number for number in range(COUNT) if number != leader]
    three.servers[leader].kill()
    print(f"server{leader}, which led, is killed: {_write(three, others, 'one'):.1f} s to a write")
    three.members[0].kill()
    print(f"etcd0 is killed: {_write(three, others, 'two'):.1f} s to a write")
    shown = three.ask(others[1], "get", "configmaps", "-o", "json")
    if '"one"' not in shown or '"two"' not in shown:
        raise Failed("a write that was acknowledged is not there")
    print("both writes are there")


def _leads(three: Three) -> bool:
    try:
        three.leader()
    except Failed:
        return False
    return True


def _write(three: Three, servers: list[int], name: str) -> float:
    """Seconds until a write was acknowledged by one of these servers."""
    began_s = time.monotonic()
    document = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}}
    while time.monotonic() - began_s < START_S:
        for number in servers:
            try:
                three.ask(number, "apply", "-f", "-", content=json.dumps(document))
            except Failed:
                continue
            return time.monotonic() - began_s
    raise Failed("no server takes a write")


def _start(directory: Path, command: list[str]) -> subprocess.Popen[bytes]:
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )  # fmt: skip


def _until(look: Callable[[], bool], complaint: str, base: Path) -> None:
    end_s = time.monotonic() + START_S
    while not look():
        if time.monotonic() > end_s:
            raise Failed(f"{complaint} after {START_S:.0f} s; the logs were below {base}")
        time.sleep(0.1)


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return b"true" in connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


if __name__ == "__main__":
    sys.exit(main())
