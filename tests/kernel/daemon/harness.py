"""A real `volagent run` on this kernel, for tests that drive it from outside.

Everything of one daemon lies below one directory and in the test run's private mount namespace.
The daemon dies with pytest (`PR_SET_PDEATHSIG`), and every process that it ever started carries a
mark in its environment, so that `find_leftovers` finds mounts, loop devices and processes that
should be gone, whoever made them. Waiting is polling with a generous bound: no test measures.
"""

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from volagent.client.contract import RESOURCES
from volagent.host import libc
from volagent.host.mounttable import choose_reader

Json = dict[str, Any]
T = TypeVar("T")

PATIENCE_S = 20.0 * float(os.environ.get("VOLAGENT_TEST_PATIENCE", "1"))
"""Far beyond what anything here takes; only a failing test waits that long. The factor is for a
machine that is busy with other work."""
_LOOK_AGAIN_S = 0.004
_PR_SET_PDEATHSIG = 1
_MARK = "VOLAGENT_TEST_BASE"
_RESOURCES = {resource.kind: resource for resource in RESOURCES}
_prctl = ctypes.CDLL(None, use_errno=True)["prctl"]


class Refused(Exception):
    """The API answered with an error."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


def until(
    look: Callable[[], T], *, within_s: float = PATIENCE_S, told: Callable[[], object] = str
) -> T:
    """Look until there is something truthy, and answer with it; `told` explains a failure."""
    end_s = time.monotonic() + within_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end_s:
            raise AssertionError(f"not within {within_s} s; last seen {seen!r}; {told()}")
        time.sleep(_LOOK_AGAIN_S)


class Daemon:
    """One `volagent run` and its directories; may be killed and started again."""

    verb = "run"
    """`server` and `agent` are the halves of a cluster."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root, self.state, self.run = base / "root", base / "state", base / "run"
        self.pods = self.root / "pods"
        self.images = self.state / "images"
        self.log = base / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.source: Path | None = None
        """Where the package is, in another version than this one."""
        self.environment: dict[str, str] = {}
        """What it is told beyond what the test run has."""

    # -- life -------------------------------------------------------------------------------

    def launch(self, *arguments: str, settings: str = "", **directories: Path) -> None:
        """Start the process without waiting for it."""
        self.base.mkdir(parents=True, exist_ok=True)
        config = self.base / "volagent.toml"
        if "[auth]" not in settings:  # most tests count a pod's mounts
            settings += "\n[auth]\nmount_service_account_token = false\n"
        config.write_text(settings)
        used = {"root": self.root, "state": self.state, "run": self.run, **directories}
        if self.verb == "server":
            del used["root"]
        name = ("--node-name", "vm1") if self.verb == "run" else ()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(Path(sys.executable).parent / "volagent"), self.verb,
                    "--config", str(config), *name,
                    *(f"--{name}-dir={path}" for name, path in used.items()), *arguments,
                ],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env={**os.environ, _MARK: str(self.base), **self._find_source(),
                     **self.environment},
                preexec_fn=_die_with_pytest,  # pytest runs no other thread here
            )  # fmt: skip

    def _find_source(self) -> dict[str, str]:
        return {} if self.source is None else {"PYTHONPATH": str(self.source)}

    def start(self, *arguments: str, settings: str = "") -> None:
        """Start it and wait until it is ready."""
        self.launch(*arguments, settings=settings)
        until(self.is_ready, told=self.read_log)

    def is_ready(self) -> bool:
        """Whether `/readyz` says 200. Fails when the process has ended."""
        assert self.process is not None
        assert self.process.poll() is None, f"the daemon ended: {self.read_log()}"
        try:
            return self._ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def restart(self, *arguments: str) -> None:
        """`kill -9`, and start again."""
        self.kill()
        self.start(*arguments)

    @property
    def running(self) -> bool:
        """Whether there is a process."""
        return self.process is not None and self.process.poll() is None

    def read_log(self) -> str:
        """The end of what the daemon said."""
        return self.log.read_text()[-6000:]

    # -- the API ----------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Json | None = None, **headers: str) -> Any:
        """One request; the document of the answer. Raises `Refused`."""
        status, answer = self._ask(method, path, body, headers)
        if status >= 300:
            raise Refused(status, answer)
        return answer

    def declare(self, *objects: Json) -> list[Json]:
        """Create objects in this order."""
        return [self.call("POST", collection(each), each) for each in objects]

    def declare_ready(self, *pods: Json) -> list[Path]:
        """Create pods and wait for their volumes; the pods' directories."""
        made = self.declare(*pods)
        for pod in pods:
            self.wait_ready(pod)
        return [self.pods / pod["metadata"]["uid"] for pod in made]

    def get(self, document: Json) -> Json:
        """An object as it is now."""
        answer: Json = self.call("GET", path_of(document))
        return answer

    def patch(self, document: Json, change: Json) -> Json:
        """A merge patch."""
        answer: Json = self.call(
            "PATCH", path_of(document), change, **{"Content-Type": "application/merge-patch+json"}
        )
        return answer

    def delete(self, *documents: Json) -> None:
        """Ask for deletion."""
        for document in documents:
            self.call("DELETE", path_of(document))

    def delete_gone(self, *documents: Json) -> None:
        """Delete and wait until they are gone."""
        self.delete(*documents)
        for document in documents:
            until(lambda each=document: not self.exists(each), told=self.read_log)

    def exists(self, document: Json) -> bool:
        """Whether the API has an object."""
        return self._ask("GET", path_of(document))[0] == 200

    def condition(self, pod: Json) -> Json:
        """The pod's condition about its volumes, or an empty one."""
        conditions: list[Json] = self.get(pod).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "volagent.dev/VolumesReady"), {})

    def wait_ready(self, pod: Json) -> None:
        """Wait until the pod's volumes are there."""
        until(
            lambda: self.condition(pod).get("status") == "True",
            told=lambda: (self.condition(pod), self.read_log()),
        )

    def wait_blocked(self, pod: Json, *words: str) -> str:
        """Wait until the condition is False with these words in its message; the message."""

        def look() -> str:
            condition = self.condition(pod)
            message = str(condition.get("message", ""))
            good = condition.get("status") == "False" and all(word in message for word in words)
            return message if good else ""

        return until(look, told=lambda: (self.condition(pod), self.read_log()))

    def wait_bound(self, claim: Json) -> None:
        """Wait until a claim is Bound."""
        until(lambda: self.get(claim).get("status", {}).get("phase") == "Bound", told=self.read_log)

    def wait_event(self, pod: Json, reason: str, *words: str) -> str:
        """Wait for an event on a pod with these words; its message."""

        def look() -> str:
            return next((m for m in self.events(pod, reason) if all(w in m for w in words)), "")

        return until(look, told=lambda: self.events(pod))

    def events(self, pod: Json, reason: str = "") -> list[str]:
        """The messages of a pod's events."""
        found = self.call("GET", "/api/v1/namespaces/default/events")["items"]
        return [
            event["message"]
            for event in found
            if event["involvedObject"]["name"] == pod["metadata"]["name"]
            and reason in ("", event["reason"])
        ]

    def ask_node(self, question: str, pod: Json) -> Json:
        """`explain` or `mounts` of a pod."""
        name = pod["metadata"]["name"]
        answer: Json = self.call(
            "GET", f"/apis/node.volagent.dev/v1/{question}/namespaces/default/pods/{name}"
        )
        return answer

    def _ask(
        self, method: str, path: str, body: Json | None = None, headers: Json | None = None
    ) -> tuple[int, Any]:
        connection = _UnixConnection(str(self.run / "volagent.sock"))
        try:
            content = None if body is None else json.dumps(body)
            connection.request(
                method, path, content, {"Content-Type": "application/json", **(headers or {})}
            )
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        is_json = "json" in answer.headers.get("Content-Type", "")
        return answer.status, json.loads(text) if is_json and text else text.decode()

    # -- the world --------------------------------------------------------------------------

    def mounts(self) -> dict[str, tuple[int, str, str]]:
        """Mount point below the root → (id, file system, options); the topmost of each.

        Ids are unique for ever where the kernel has such.
        """
        return {
            entry.mount_point: (entry.mount_id, entry.fs_type, entry.options)
            for entry in choose_reader().read_table().entries
            if entry.mount_point.startswith(f"{self.root}/")
        }

    def find_leftovers(self) -> list[str]:
        """What should not be there once all pods are gone and the daemon has ended."""
        left = [f"mount {point}" for point in self.mounts()]
        if self.pods.exists():
            left += [f"file {path}" for path in sorted(self.pods.rglob("*"))]
        left += [f"loop device of {image}" for image in self.loop_files()]
        left += [f"process {pid} {command}" for pid, command in self.processes()]
        return left

    def loop_files(self) -> list[str]:
        """Files below the base that are attached as loop devices."""
        found = []
        for link in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                name = link.read_text().strip()
            except OSError:
                continue  # given back while we look
            if name.startswith(f"{self.base}/"):
                found.append(name)
        return found

    def processes(self) -> Iterator[tuple[int, str]]:
        """Every process that the daemon, or its like before it, has started, and itself."""
        mark = f"{_MARK}={self.base}".encode()
        for name in os.listdir("/proc"):
            try:
                if name.isdigit() and mark in Path(f"/proc/{name}/environ").read_bytes():
                    yield int(name), Path(f"/proc/{name}/cmdline").read_text().replace("\0", " ")
            except OSError:
                continue  # ended while we look

    def give_everything_back(self) -> None:
        """By force, after a failed test: processes, then mounts."""
        for pid, _ in self.processes():
            os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        entries = choose_reader().read_table().entries
        for entry in reversed(entries):
            if entry.mount_point.startswith(f"{self.base}/"):
                libc.umount2(os.fsencode(entry.mount_point), libc.MNT_DETACH)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("volagent", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)


def mount_tmpfs(path: Path, size: str = "1m") -> None:
    """Mount a tmpfs, as somebody does by hand."""
    context = libc.fsopen(b"tmpfs")
    try:
        libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"size", size.encode())
        libc.fsconfig(context, libc.FSCONFIG_SET_STRING, b"mode", b"755")
        libc.fsconfig(context, libc.FSCONFIG_CMD_CREATE, None, None)
        mount = libc.fsmount(context, 0)
        libc.move_mount(mount, libc.AT_FDCWD, os.fsencode(path))
        os.close(mount)
    finally:
        os.close(context)


def unmount(path: Path) -> None:
    """Unmount, as somebody does by hand."""
    libc.umount2(os.fsencode(path), 0)


def _die_with_pytest() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def collection(document: Json) -> str:
    """Where objects of a document's kind live."""
    resource = _RESOURCES[document["kind"]]
    root = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    if not resource.namespaced:
        return f"{root}/{resource.plural}"
    namespace = document["metadata"].get("namespace", "default")
    return f"{root}/namespaces/{namespace}/{resource.plural}"


def path_of(document: Json) -> str:
    """Where an object lives."""
    return f"{collection(document)}/{document['metadata']['name']}"
