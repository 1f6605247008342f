"""A small client of volagent's API that runs on a machine: standard library only, quick to start.

    python3 -I -S api.py SOCKET REQUESTS

REQUESTS is a file with a JSON list; the answers are printed as a JSON list. Each request is one of

    {"do": "call", "method": M, "path": P, "body": B}    -> {"code", "body", "took_ms"}
    {"do": "until", "path": P, "is": "serving" | "ready" | "unready" | "gone", "within_s": S,
     "pid_file": F}                                      -> {"held", "took_ms", "body"}

`until` asks again and again for as long as allowed and as the daemon lives; `body` is the last
answer.
"""

import http.client
import json
import os
import socket
import sys
import time
from typing import Any

CONDITION = "volagent.dev/VolumesReady"
CALL_TIMEOUT_S = 20
POLL_S = 0.02


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CALL_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(connection: UnixConnection, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    headers = {}
    if body is not None:
        patch = method == "PATCH"
        headers["Content-Type"] = "application/merge-patch+json" if patch else "application/json"
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read().decode()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text


def holds(wish: str, code: int, body: Any) -> bool:
    if wish == "serving":
        return code == 200
    if wish == "gone":
        return code == 404
    conditions = body.get("status", {}).get("conditions", []) if code == 200 else []
    states = [each["status"] for each in conditions if each["type"] == CONDITION]
    return bool(states == ["True"] if wish == "ready" else states == ["False"])


def is_alive(pid_file: str) -> bool:
    with open(pid_file) as file:
        return os.path.exists(f"/proc/{file.read().strip()}")


def until(connection: UnixConnection, request: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + request["within_s"]
    while True:
        try:
            code, body = call(connection, "GET", request["path"])
            held = holds(request["is"], code, body)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            held, body = False, repr(error)
        if held or time.monotonic() > deadline or not is_alive(request["pid_file"]):
            return {"held": held, "body": body}
        time.sleep(POLL_S)


def main(socket_path: str, requests_path: str) -> None:
    connection = UnixConnection(socket_path)
    with open(requests_path) as file:
        requests = json.load(file)
    answers = []
    for request in requests:
        started = time.monotonic()
        if request["do"] == "until":
            answer = until(connection, request)
        else:
            code, body = call(connection, request["method"], request["path"], request.get("body"))
            answer = {"code": code, "body": body}
        answer["took_ms"] = (time.monotonic() - started) * 1000
        answers.append(answer)
    json.dump(answers, sys.stdout)


main(*sys.argv[1:])
