"""A volagent process on a machine, in any of its roles, and the API that it serves.

The root and state directories lie on the machine's first disk, as on a real VM, so they outlive a
power cut; the run directory lies in memory. The daemon runs as it would under systemd, in the
machine's own mount namespace; how it is started and ended is the machine's `Installation`.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.cluster.lab.machine import PID_FILE, Installation, Machine
from volagent.client.contract import RESOURCES

Json = dict[str, Any]

_DATA = "/data"
_RUN = "/run/volagent"
_START_TIMEOUT_S = 60.0
_RESOURCES = {resource.kind: resource for resource in RESOURCES}

_MOUNT_DATA = """
mkdir -p {data}
mountpoint -q {data} || {{
  blkid {disk} >/dev/null || mkfs.ext4 -q {disk}
  mount {disk} {data}
}}
"""


class ApiFailed(Exception):
    """The API answered with an error, or not in time; the message has the answer and the log."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """A wait that ended well."""

    took_ms: float
    body: Any


class Daemon:
    """volagent on a machine; `start` may be called again after `kill`, `stop` or a new boot."""

    verb = "run"

    def __init__(self, machine: Machine, *, settings: str = "") -> None:
        self.machine = machine
        if "[auth]" not in settings:  # scenarios count a pod's mounts
            settings += "\n[auth]\nmount_service_account_token = false\n"
        self._settings = settings
        self.data = _DATA
        self.options: dict[str, str | list[str]] = {
            "state_dir": f"{_DATA}/volagent",
            "run_dir": _RUN,
        }
        self._requests = itertools.count()

    @property
    def installation(self) -> Installation:
        """Who starts and ends it."""
        return self.machine.installation

    @property
    def pid_file(self) -> str:
        """On the machine."""
        return PID_FILE

    @property
    def run_dir(self) -> str:
        """On the machine."""
        return str(self.options["run_dir"])

    def start(self) -> Awaited:
        """Start the daemon with its settings and wait until `/readyz` says 200."""
        self.begin()
        return self.wait_serving()

    def begin(self) -> None:
        """Start it, and wait for nothing."""
        self.mount_data()
        top = "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.options.items())
        self.installation.start(self.machine, self.verb, top + self._settings)

    def wait_serving(self) -> Awaited:
        """Wait until `/readyz` says 200."""
        return self._until("/readyz", "serving", _START_TIMEOUT_S)

    def mount_data(self) -> None:
        """Have the machine's first disk in its place."""
        self.machine.run(_MOUNT_DATA.format(data=_DATA, disk=self.machine.disks[0]))

    def kill(self) -> None:
        """`kill -9`, and wait until it is gone."""
        self.installation.kill(self.machine, self.verb)

    def stop(self) -> None:
        """SIGTERM, and wait until it has ended."""
        self.installation.stop(self.machine, self.verb)

    def is_running(self) -> bool:
        """Whether there is a daemon."""
        alive = f"pid=$(cat {self.pid_file}) && kill -0 $pid"
        return self.machine.run(alive, check=False).code == 0

    def call(self, method: str, path: str, body: Json | None = None) -> Any:
        """One request; the answer's document. Raises `ApiFailed` for a status of 300 or above."""
        (answer,) = self._ask([{"do": "call", "method": method, "path": path, "body": body}])
        return self._good(answer, f"{method} {path}")

    def call_all(self, requests: Sequence[tuple[str, str]]) -> list[Any]:
        """Several requests without a body, at the price of one."""
        answers = self._ask(
            {"do": "call", "method": method, "path": path, "body": None}
            for method, path in requests
        )
        return [
            self._good(answer, f"{method} {path}")
            for answer, (method, path) in zip(answers, requests, strict=True)
        ]

    def declare(self, *objects: Json) -> list[Json]:
        """Create objects in this order; returns them as the API answered."""
        answers = self._ask(
            {"do": "call", "method": "POST", "path": _collection(each), "body": each}
            for each in objects
        )
        return [
            self._good(answer, f"create {each['kind']} {each['metadata']['name']}")
            for each, answer in zip(objects, answers, strict=True)
        ]

    def declare_ready(self, pod: Json, *, within_s: float = 30.0) -> Awaited:
        """Create a pod and wait until its volumes are ready; the time is of both together."""
        created, ready = self._ask(
            [
                {"do": "call", "method": "POST", "path": _collection(pod), "body": pod},
                self._wait(_path(pod), "ready", within_s),
            ],
            within_s,
        )
        self._good(created, "create pod")
        awaited = self._held(ready, "pod ready", _path(pod))
        return Awaited(created["took_ms"] + awaited.took_ms, awaited.body)

    def is_ready(self, pod: Json) -> bool:
        """What the node says at this moment about a pod's volumes."""
        return bool(self._ask([self._wait(_path(pod), "ready", 0.0)])[0]["held"])

    def wait_ready(self, pod: Json, *, within_s: float = 30.0) -> Awaited:
        """Wait until a pod's volumes are ready."""
        return self._until(_path(pod), "ready", within_s)

    def wait_unready(self, pod: Json, *, within_s: float = 30.0) -> Awaited:
        """Wait until the node says that a pod's volumes are not ready."""
        return self._until(_path(pod), "unready", within_s)

    def wait_gone(self, document: Json, *, within_s: float = 30.0) -> Awaited:
        """Wait until an object does not exist any more."""
        return self._until(_path(document), "gone", within_s)

    def delete(self, document: Json) -> None:
        """Ask for an object's deletion."""
        self.call("DELETE", _path(document))

    def delete_gone(self, *documents: Json, within_s: float = 30.0) -> Awaited:
        """Delete objects and wait until the last of them is gone."""
        requests: list[Json] = [
            {"do": "call", "method": "DELETE", "path": _path(each)} for each in documents
        ]
        requests += [self._wait(_path(each), "gone", within_s) for each in documents]
        answers = self._ask(requests, within_s * len(documents))
        for each, answer in zip(documents, answers[len(documents) :], strict=True):
            self._held(answer, "object gone", _path(each))
        return Awaited(sum(answer["took_ms"] for answer in answers), None)

    def replace_ready(self, old: Json, new: Json, *, within_s: float = 30.0) -> Awaited:
        """Delete a pod and wait until another one's volumes are ready; the time of both."""
        deleted, ready = self._ask(
            [
                {"do": "call", "method": "DELETE", "path": _path(old)},
                self._wait(_path(new), "ready", within_s),
            ],
            within_s,
        )
        self._good(deleted, "delete pod")
        awaited = self._held(ready, "pod ready", _path(new))
        return Awaited(deleted["took_ms"] + awaited.took_ms, awaited.body)

    def explain(self, pod: Json) -> Json:
        """What `volagent explain` shows for a pod."""
        namespace, name = _namespace(pod), pod["metadata"]["name"]
        answer: Json = self.call(
            "GET", f"/apis/node.volagent.dev/v1/explain/namespaces/{namespace}/pods/{name}"
        )
        return answer

    def metrics(self) -> str:
        """What `/metrics` says."""
        return str(self.call("GET", "/metrics"))

    def uid(self, pod: Json) -> str:
        """The pod's uid."""
        return str(self.call("GET", _path(pod))["metadata"]["uid"])

    def log(self) -> str:
        """The daemon's log, its end."""
        return self.machine.run(self.installation.show_log, check=False).out

    def _until(self, path: str, wish: str, within_s: float) -> Awaited:
        (answer,) = self._ask([self._wait(path, wish, within_s)], within_s)
        return self._held(answer, wish, path)

    def _wait(self, path: str, wish: str, within_s: float) -> Json:
        within_s *= self.machine.patience
        return {
            "do": "until", "path": path, "is": wish, "within_s": within_s,
            "pid_file": self.pid_file,
        }  # fmt: skip

    @property
    def _socket(self) -> str:
        return f"{self.run_dir}/volagent.sock"

    def _ask(self, requests: "Sequence[Json] | Any", within_s: float = 0.0) -> list[Json]:
        file = f"{self.run_dir}-request-{next(self._requests)}.json"
        self.machine.put_file(file, json.dumps(list(requests)))
        said = self.machine.run(
            f"python3 -I -S {self.installation.guest_files}/api.py {self._socket} {file}",
            timeout_s=60.0 + within_s,
            check=False,
        )
        if said.code != 0:
            raise ApiFailed(f"{said.err}\n--- daemon\n{self.log()}")
        answers: list[Json] = json.loads(said.out)
        return answers

    def _good(self, answer: Json, what: str) -> Json:
        if answer["code"] >= 300:
            raise ApiFailed(f"{self.machine.name}: {what}: {answer['code']} {answer['body']}")
        body: Json = answer["body"]
        return body

    def _held(self, answer: Json, wish: str, path: str) -> Awaited:
        if not answer["held"]:
            body = answer["body"]
            shown = body.get("status", body) if isinstance(body, dict) else body
            raise ApiFailed(
                f"{self.machine.name}: {path} is not {wish}: {shown}\n--- daemon\n{self.log()}"
            )
        return Awaited(answer["took_ms"], answer["body"])


def _namespace(document: Json) -> str:
    return str(document["metadata"].get("namespace", "default"))


def _collection(document: Json) -> str:
    resource = _RESOURCES[document["kind"]]
    root = f"/apis/{resource.api_version}" if resource.group else f"/api/{resource.version}"
    if not resource.namespaced:
        return f"{root}/{resource.plural}"
    return f"{root}/namespaces/{_namespace(document)}/{resource.plural}"


def _path(document: Json) -> str:
    return f"{_collection(document)}/{document['metadata']['name']}"
