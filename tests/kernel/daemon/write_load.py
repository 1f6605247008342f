"""Writers that remember every acknowledgement, and what may be there in the end because of them.

Each writer owns its objects, and asks whichever server answers. Of a write without an answer both
outcomes are possible, until a later answer about the same object tells. One counter is shared by
all: it is incremented by compare-and-swap, so a lost or a doubled write shows.
"""

import http.client
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.kernel.daemon.several import SharedServer

ANSWER_S = 3.0
PATH = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
COUNTER = "counter"

Value = str | None
"""What an object holds; None: it is not there."""


class NoAnswer(Exception):
    """The write may have happened."""


@dataclass
class Kept:
    """One object: what it may hold, by the acknowledgements."""

    possible: set[Value] = field(default_factory=lambda: {None})


class Load:
    """Writers in threads, from `start` to `stop`."""

    def __init__(self, servers: list[SharedServer], writers: int, seed: int) -> None:
        self._servers = servers
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self.acknowledged_s: list[float] = []
        """When each write was acknowledged."""
        self.counted = 0
        self.perhaps_counted = 0
        self.kept: dict[str, Kept] = {}
        self.failures: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._run, args=(n, random.Random(f"{seed}-{n}")))
            for n in range(writers)
        ]

    def start(self) -> None:
        """Begin to write."""
        ask(self._servers[0], "POST", PATH, config(COUNTER, "0"))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, once every writer has its last answer."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def wait_acknowledged(self, after_s: float, within_s: float) -> float:
        """When the first write after a moment was acknowledged."""
        end_s = time.monotonic() + within_s
        while time.monotonic() < end_s:
            with self._lock:
                found = next((at for at in reversed(self.acknowledged_s) if at > after_s), None)
                if found is not None:
                    return min(at for at in self.acknowledged_s if at > after_s)
            time.sleep(0.005)
        raise AssertionError(f"no write was acknowledged within {within_s} s")

    def longest_pause_s(self) -> float:
        """The longest time in which nobody's write was acknowledged."""
        at = sorted(self.acknowledged_s)
        return max(later - earlier for earlier, later in itertools.pairwise(at))

    def find_lies(self, server: SharedServer) -> Iterator[str]:
        """What a server shows that contradicts an acknowledgement."""
        _, listing = ask(server, "GET", PATH)
        held: dict[str, Value] = {
            each["metadata"]["name"]: each["data"]["v"]
            for each in listing["items"]
            if "v" in each["data"]
        }
        for name, kept in self.kept.items():
            if held.get(name) not in kept.possible:
                yield f"{name} holds {held.get(name)!r}, possible is {kept.possible}"
        count = int(held[COUNTER] or 0)
        if not self.counted <= count <= self.counted + self.perhaps_counted:
            yield (
                f"counter is {count}: {self.counted} steps acknowledged,"
                f" {self.perhaps_counted} open"
            )

    # -- one writer -------------------------------------------------------------------------

    def _run(self, number: int, chance: random.Random) -> None:
        try:
            step = 0
            while not self._stopping.is_set():
                step += 1
                if chance.random() < 0.25:
                    self._count(number + step)
                else:
                    self._write_one(f"w{number}-{chance.randrange(30)}", f"{number}.{step}", chance)
        except Exception as error:  # noqa: BLE001  # told by `stop`
            self.failures.append(error)

    def _write_one(self, name: str, value: str, chance: random.Random) -> None:
        kept = self.kept.setdefault(name, Kept())
        present = kept.possible - {None}
        if present and chance.random() < 0.2:
            self._settle(kept, None, "DELETE", f"{PATH}/{name}", None, chance)
        elif present:
            self._settle(kept, value, "PATCH", f"{PATH}/{name}", {"data": {"v": value}}, chance)
        else:
            self._settle(kept, value, "POST", PATH, config(name, value), chance)

    def _settle(
        self, kept: Kept, value: Value, method: str, path: str, body: Any, chance: random.Random
    ) -> None:
        server = chance.choice(self._servers)
        try:
            status, answer = ask(server, method, path, body)
        except NoAnswer:
            kept.possible |= {value}
            return
        if status in (200, 201):
            kept.possible = {value}
            self._note()
        elif status == 404:
            assert None in kept.possible, f"{path} is gone, possible was {kept.possible}"
            kept.possible = {None}
        elif status == 409:
            assert method == "POST", answer
            assert kept.possible - {None}, f"{path} {body} exists, and nobody made it"
            kept.possible -= {None}
        elif status == 504:
            kept.possible |= {value}
        else:
            assert status == 503, (status, answer)  # nothing was written

    def _count(self, number: int) -> None:
        server = self._servers[number % len(self._servers)]
        try:
            status, found = ask(server, "GET", f"{PATH}/{COUNTER}")
        except NoAnswer:
            return
        if status != 200:
            assert status in (503, 504), (status, found)
            return
        found["data"]["v"] = str(int(found["data"]["v"]) + 1)
        try:
            status, answer = ask(server, "PUT", f"{PATH}/{COUNTER}", found)
        except NoAnswer:
            status, answer = 504, {}
        with self._lock:
            if status == 200:
                self.counted += 1
            elif status == 504:
                self.perhaps_counted += 1
            else:
                assert status in (409, 503), (status, answer)
        if status == 200:
            self._note()

    def _note(self) -> None:
        with self._lock:
            self.acknowledged_s.append(time.monotonic())


def config(name: str, value: str) -> dict[str, Any]:
    """A ConfigMap that holds a value."""
    return {
        "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"v": value},
    }  # fmt: skip


def ask(server: SharedServer, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """A request; 503 when it cannot have been sent. Raises `NoAnswer`."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(ANSWER_S)
    try:
        connection.connect(str(server.run / "volagent.sock"))
    except OSError:
        connection.close()
        time.sleep(0.02)  # a server that is away is asked no faster than one that works
        return 503, {}
    http_connection = http.client.HTTPConnection("volagent")
    http_connection.sock = connection
    kind = MERGE if method == "PATCH" else "application/json"
    try:
        content = None if body is None else json.dumps(body)
        http_connection.request(method, path, content, {"Content-Type": kind})
        answer = http_connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(str(error)) from error
    finally:
        http_connection.close()
