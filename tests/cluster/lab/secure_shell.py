"""Commands on a machine by ssh, over one connection that is kept open."""

import contextlib
import subprocess
import time
from pathlib import Path

from tests.cluster.lab.processes import Keeper

_OPTIONS = (
    "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
    "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes",
)  # fmt: skip
# Output goes through files: a program that a script leaves behind would keep a pipe open.
_RUN = (
    "export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; cd /; "
    "d=$(mktemp -d /run/lab.XXXXXX); cat >$d/script; "
    "bash $d/script >$d/out 2>$d/err </dev/null; c=$?; "
    "cat $d/out; cat $d/err >&2; rm -r $d; exit $c"
)
_PUT_TIMEOUT_S = 1800.0
"""The package took 190 s to an emulated machine that others left 6 % of a processor."""
LOST = 255
"""The exit status of ssh itself, when the connection is gone."""


class SecureShell:
    """A machine's ssh; `connect` anew after each boot."""

    def __init__(self, address: str, key: Path, socket: Path, enter: list[str]) -> None:
        self._address, self._socket = address, socket
        self._ssh = [*enter, "ssh", *_OPTIONS, "-i", str(key), "-S", str(socket)]
        self._master: subprocess.Popen[bytes] | None = None

    def connect(self, keeper: Keeper, *, within_s: float) -> None:
        """Try until the machine answers. Raises `TimeoutError`."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            self.disconnect()
            self._master = keeper.start(
                [*self._ssh, "-o", "ConnectTimeout=60", "-o", "ServerAliveInterval=60",
                 "-M", "-N", f"root@{self._address}"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while self._master.poll() is None and time.monotonic() < deadline:
                if self._socket.exists() and self._call(["-O", "check"]).returncode == 0:
                    return
                time.sleep(0.1)
            time.sleep(0.5)
        self.disconnect()
        raise TimeoutError

    def disconnect(self) -> None:
        """Drop the connection; commands that run end with `LOST`."""
        if self._master is not None:
            self._master.kill()
            self._master.wait()
            self._master = None
        with contextlib.suppress(FileNotFoundError):
            self._socket.unlink()

    def run(self, script: str, *, timeout_s: float) -> "subprocess.CompletedProcess[bytes]":
        """Run a bash script. Raises `subprocess.TimeoutExpired`."""
        return self._call([_RUN], content=script.encode(), timeout_s=timeout_s)

    def put(self, content: bytes, path: str, mode: int) -> "subprocess.CompletedProcess[bytes]":
        """Write a file, making missing parent directories."""
        words = [f"install -D -m {mode:o} /dev/stdin {path}"]
        return self._call(words, content=content, timeout_s=_PUT_TIMEOUT_S)

    def _call(
        self, words: list[str], *, content: bytes = b"", timeout_s: float = 300.0
    ) -> "subprocess.CompletedProcess[bytes]":
        target = f"root@{self._address}"
        options, command = (words, []) if words[0] == "-O" else ([], words)
        return subprocess.run(
            [*self._ssh, "-o", "ControlMaster=no", "-o", "ProxyCommand=false", *options, target,
             *command],
            input=content, capture_output=True, timeout=timeout_s, check=False,
        )  # fmt: skip
