"""A daemon on a throw-away root, and the cheapest client that can talk to it.

Everything lives in one temporary directory on disk (a durable store costs what it costs) and in the
bench's private mount namespace, so nothing is left on the machine.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

READY_TIMEOUT_S = 30.0
PROGRAM = str(Path(sys.executable).parent / "volagent")
SETTINGS = """
[log]
level = "warning"
[runtime]
cdi_dir = ""
[auth]
mount_service_account_token = false
"""
"""So that a pod has the volumes that are measured, and no other."""


class Daemon:
    """One volagent, started and stopped."""

    verb = "run"
    arguments: tuple[str, ...] = ("--node-name", "bench")
    ready_within_s = READY_TIMEOUT_S

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "kubelet"
        self.root_option: tuple[str, ...] = ("--root-dir", str(self.root))
        self.socket = base / "run" / "volagent.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it; seconds until `/readyz` answered 200."""
        for name in ("kubelet", "state", "run"):
            (self.base / name).mkdir(parents=True, exist_ok=True)
        # As on any machine: modules are compiled once, not at each start.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        with open(self.base / "log", "ab") as log:
            began = time.perf_counter()
            self.process = subprocess.Popen(
                [
                    PROGRAM, self.verb,
                    *self.root_option, "--state-dir", str(self.base / "state"),
                    "--run-dir", str(self.base / "run"), *self.arguments,
                    "--config", str(self.base / "volagent.toml"),
                ],
                stderr=log,
                env=environment,
            )  # fmt: skip
        while not self._is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"the daemon ended: {(self.base / 'log').read_text()[-2000:]}")
            if time.perf_counter() - began > self.ready_within_s:
                raise TimeoutError("the daemon does not become ready")
            time.sleep(0.002)
        return time.perf_counter() - began

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, then wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    @property
    def ps(self) -> psutil.Process:
        assert self.process is not None
        return psutil.Process(self.process.pid)

    def _is_ready(self) -> bool:
        try:
            return asyncio.run(self._ask_ready())
        except OSError:
            return False

    async def _ask_ready(self) -> bool:
        connection = await Connection.open(self.socket)
        try:
            status, _ = await connection.ask("GET", "/readyz")
        finally:
            connection.close()
        return status == 200


class Connection:
    """A keep-alive HTTP/1.1 connection; speaks only what the bench needs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, socket: Path) -> "Connection":
        return cls(*await asyncio.open_unix_connection(str(socket), limit=2**24))

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """One request; status and body."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: volagent\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        status, length = await self._head()
        return status, await self.reader.readexactly(length)

    async def _head(self) -> tuple[int, int]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return int(head.split(b" ", 2)[1]), length

    async def must(self, method: str, path: str, document: Any = None) -> Any:
        """One request that has to succeed; its JSON."""
        body = json.dumps(document).encode() if document is not None else b""
        status, answer = await self.ask(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer[:500]!r}")
        return json.loads(answer) if answer else None

    def close(self) -> None:
        self.writer.close()


def mount_ids(below: Path) -> set[tuple[str, str]]:
    """(mount id, mount point) of everything mounted below a directory."""
    found = set()
    with open("/proc/self/mountinfo") as table:
        for line in table:
            fields = line.split(" ", 5)
            if fields[4].startswith(f"{below}/"):
                found.add((fields[0], fields[4]))
    return found


def unmount_below(base: Path) -> None:
    """Take down what is mounted below a directory of ours, deepest first."""
    for _, point in sorted(mount_ids(base), key=lambda mount: -len(mount[1])):
        subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def is_mount(path: str) -> bool:
    """Whether something is mounted there, cheaply: another device than the directory above."""
    try:
        return os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev
    except FileNotFoundError:
        return False
