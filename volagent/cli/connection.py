"""HTTP to the daemon, over its unix socket or TLS, with the standard library only.

One connection is kept for requests; each watch has its own, read by a thread so that the caller
can wait for the next change with a timeout. Answers that are a `Status` of failure are raised as
`Refused`; whatever keeps an answer from coming is `Unreachable`. Not thread-safe otherwise.
"""

import errno
import http.client
import queue
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from volagent import __version__
from volagent.cli.errors import CommandError, Refused, Unreachable, UsageError
from volagent.client.contract import Resource
from volagent.settings import Settings

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
ANSWER_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where the daemon is, and how to be somebody there."""

    socket_path: str = f"{Settings().run_dir}/volagent.sock"
    server: str = ""
    """`https://address:port`; empty: the socket."""
    ca_file: str = ""
    token_file: str = ""
    certificate: str = ""
    key: str = ""
    token: str = field(default="", repr=False)

    def describe(self) -> str:
        """For messages."""
        return self.server or self.socket_path


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A non-blocking connect fails at once while the daemon's queue of callers is full; a
        # blocking one waits for its turn, as long as the send timeout allows.
        timeval = struct.pack("ll", int(ANSWER_TIMEOUT_S), 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        self.sock.connect(self._path)
        self.sock.settimeout(self.timeout)


class Api:
    """The daemon's API, synchronously."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._kept: http.client.HTTPConnection | None = None
        self._headers = {"User-Agent": f"volagent/{__version__}"}
        token = target.token or (target.token_file and _read_token(target.token_file))
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str, query: Mapping[str, str] | None = None, *, accept: str = JSON) -> Any:
        """The decoded answer of a GET."""
        return self.request("GET", path, query=query, accept=accept)

    def read(self, path: str) -> bytes:
        """The answer of a GET as it is. Raises `Refused`, `Unreachable`."""
        try:
            status, answer = self._exchange("GET", path, None, self._headers)
        except (http.client.HTTPException, OSError) as error:
            raise self._unreachable(error) from error
        if status != 200:
            _decode(status, answer)
        return answer

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Any:
        """The decoded answer. Raises `Refused`, `Unreachable`."""
        headers = {**self._headers, "Accept": accept}
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            headers["Content-Type"] = content_type
        reused = self._kept is not None
        try:
            status, answer = self._exchange(method, _url(path, query), data, headers)
        except (http.client.HTTPException, ConnectionError) as error:
            # A kept connection may have been closed by a daemon that restarted; only what reads is
            # asked again, because a write may have been done.
            if not (reused and method == "GET"):
                raise self._unreachable(error) from error
            try:
                status, answer = self._exchange(method, _url(path, query), data, headers)
            except (http.client.HTTPException, OSError) as again:
                raise self._unreachable(again) from again
        except OSError as error:
            raise self._unreachable(error) from error
        return _decode(status, answer)

    def watch(self, path: str, query: Mapping[str, str], *, accept: str = JSON) -> "Watch":
        """Follow changes. Raises `Refused`, `Unreachable`."""
        connection = self._connect(timeout_s=ANSWER_TIMEOUT_S)
        headers = {**self._headers, "Accept": accept}
        try:
            connection.request("GET", _url(path, {**query, "watch": "true"}), headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                _decode(response.status, response.read())
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            raise self._unreachable(error) from error
        except CommandError:
            connection.close()
            raise
        return Watch(connection, response)

    def close(self) -> None:
        """Drop the kept connection."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _exchange(
        self, method: str, url: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        connection = self._kept or self._connect(timeout_s=ANSWER_TIMEOUT_S)
        self._kept = connection
        try:
            connection.request(method, url, body=data, headers=headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (http.client.HTTPException, OSError):
            self.close()
            raise

    def _connect(self, *, timeout_s: float) -> http.client.HTTPConnection:
        if not self.target.server:
            return _UnixConnection(self.target.socket_path, timeout_s)
        parts = urlsplit(self.target.server)
        if parts.scheme != "https" or not parts.hostname:
            raise UsageError(f"--server {self.target.server}: expected https://ADDRESS:PORT")
        return http.client.HTTPSConnection(
            parts.hostname,
            parts.port or 443,
            timeout=timeout_s,
            context=_tls_context(self.target),
        )

    def _unreachable(self, error: Exception) -> Unreachable:
        where = self.target.describe()
        if isinstance(error, TimeoutError):
            return Unreachable(
                f"cannot reach the daemon at {where}: no answer within {ANSWER_TIMEOUT_S:.0f} s",
                hint="see what it does: journalctl -u volagent",
            )
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        code = error.errno if isinstance(error, OSError) else None
        hint = "is it running? systemctl status volagent, or start one with: volagent run"
        if self.target.server:  # first: OpenSSL's error numbers are no errno
            hint = "check the address, and the authority given with --ca-file"
        elif code in (errno.EACCES, errno.EPERM):
            hint = "root and members of the group volagent may call: try sudo"
        return Unreachable(f"cannot reach the daemon at {where}: {reason}", hint=hint)


class Watch:
    """Changes as they come: a thread reads them, `next` hands them out."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        self._connection = connection
        self._response = response
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.ended = False
        if connection.sock is not None:
            connection.sock.settimeout(None)  # a quiet watch is a good watch
        self._thread = threading.Thread(target=self._read, daemon=True, name="watch")
        self._thread.start()

    def next(self, timeout_s: float | None = None) -> tuple[str, dict[str, Any]] | None:
        """The next change as (type, object); None at the timeout, or when the watch `ended`."""
        if self.ended:
            return None
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if not line:
            self.ended = True
            return None
        event = msgspec.json.decode(line)
        if event.get("type") == "ERROR":
            self.ended = True
            return None
        return str(event.get("type")), event.get("object") or {}

    def close(self) -> None:
        """Stop; wakes the reading thread."""
        self.ended = True
        if self._connection.sock is not None:
            try:
                self._connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join(timeout=1.0)
        self._connection.close()

    def _read(self) -> None:
        try:
            while line := self._response.readline():
                if line.strip():
                    self._lines.put(line)
        except (http.client.HTTPException, OSError, ValueError):
            pass  # the connection broke or was closed: the end either way
        self._lines.put(b"")


def object_path(resource: Resource, namespace: str = "", name: str = "") -> str:
    """Where a resource, or one object of it, is served."""
    parts = ["api", resource.version] if not resource.group else []
    parts = parts or ["apis", resource.group, resource.version]
    if resource.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts.append(resource.plural)
    if name:
        parts.append(name)
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _url(path: str, query: Mapping[str, str] | None) -> str:
    given = {key: value for key, value in (query or {}).items() if value != ""}
    return f"{path}?{urlencode(given)}" if given else path


def _decode(status: int, answer: bytes) -> Any:
    try:
        document = msgspec.json.decode(answer) if answer else {}
    except msgspec.DecodeError:
        document = {"message": answer.decode(errors="replace").strip()[:500]}
    if status >= 400:
        raise Refused(document if isinstance(document, dict) else {}, status)
    return document


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise UsageError(f"cannot read --token-file {path}: {error.strerror}") from error


def _tls_context(target: Target) -> Any:
    import ssl  # only for https: the socket needs none of it

    try:
        context = ssl.create_default_context(cafile=target.ca_file or None)
        if target.certificate:
            context.load_cert_chain(target.certificate, target.key or None)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"cannot use the TLS files: {error}") from error
    return context
