"""A small daemon for the command line's tests: objects in a dict behind HTTP on a unix socket.

It keeps the API's conventions that the command line relies on (revisions, merge patches, watches,
`Status` answers) and nothing else; `tests/contract/` judges the real API.
"""

import contextlib
import http.server
import itertools
import json
import queue
import socket
import socketserver
import threading
from urllib.parse import parse_qsl, urlsplit

from volagent.api.tables import table_of
from volagent.client.contract import RESOURCES, Listing

PLURALS = {resource.plural for resource in RESOURCES}


class FakeDaemon:
    """Objects by path, canned answers by (method, path), and a log of requests."""

    def __init__(self, socket_path):
        self.socket_path = str(socket_path)
        self.objects = {}
        self.canned = {}
        self.requests = []
        self.keep_deleted = False
        """A DELETE only sets the deletion timestamp, as with pods on a node."""
        self._revision = itertools.count(1)
        self._watches = []
        self._lock = threading.Lock()
        self._server = _Server(self.socket_path, _Handler)
        self._server.daemon_state = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        for watch in self._watches:
            watch.put(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, path, document):
        """Store an object and tell the watches."""
        with self._lock:
            change = "MODIFIED" if path in self.objects else "ADDED"
            revision = str(next(self._revision))
            metadata = {"uid": f"uid-{revision}", **document.get("metadata", {})}
            document = {**document, "metadata": {**metadata, "resourceVersion": revision}}
            self.objects[path] = document
            self._tell(change, document)
        return document

    def drop(self, path):
        with self._lock:
            document = self.objects.pop(path)
            self._tell("DELETED", document)
        return document

    def sent(self, method):
        """(path, query, body) of the requests of a method."""
        return [request[1:] for request in self.requests if request[0] == method]

    def answer(self, method, path, query, body):
        """(status, document) of a request that is no watch."""
        self.requests.append((method, path, query, body))
        if (method, path) in self.canned:
            canned = self.canned[(method, path)]
            return canned(query, body) if callable(canned) else canned
        match method:
            case "GET" if path in self.objects:
                return 200, self.objects[path]
            case "GET" if path.rsplit("/", 1)[1] in PLURALS:
                return 200, self._list(path, query)
            case "POST":
                return self._create(path, query, body)
            case "PATCH" if path in self.objects:
                return 200, self._patch(path, query, body)
            case "DELETE" if path in self.objects:
                return 200, self._delete(path)
        return 404, fail(404, "NotFound", f"{path} not found")

    def watch(self, path):
        """A queue of this collection's events; None ends it."""
        events = queue.Queue()
        events.path = path
        with self._lock:
            self._watches.append(events)
        return events

    def _tell(self, change, document):
        for watch in self._watches:
            watch.put({"type": change, "object": document})

    def _list(self, path, query):
        plural = path.rsplit("/", 1)[1]
        prefix = path if "/namespaces/" in path else path.removesuffix(plural)
        items = [
            document
            for key, document in sorted(self.objects.items())
            if key.startswith(prefix) and key.rsplit("/", 2)[1] == plural
        ]
        return {"kind": "List", "metadata": {"resourceVersion": "100"}, "items": items}

    def _create(self, path, query, body):
        key = f"{path}/{body['metadata']['name']}"
        if key in self.objects:
            return 409, fail(409, "AlreadyExists", "it exists")
        return 201, body if query.get("dryRun") else self.put(key, body)

    def _patch(self, path, query, body):
        stored = self.objects[path]
        patched = merge(stored, body)
        if patched == stored or query.get("dryRun"):
            return patched
        return self.put(path, patched)

    def _delete(self, path):
        if self.keep_deleted:
            metadata = {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}
            return self.put(path, merge(self.objects[path], metadata))
        return self.drop(path)


def fail(code, reason, message, causes=()):
    """A `Status` of failure."""
    return {
        "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": message, "details": {"causes": list(causes)},
    }  # fmt: skip


def merge(target, patch):
    """RFC 7386; `resourceVersion` is only a precondition."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif key != "resourceVersion":
            result[key] = merge(result.get(key), value)
    return result


def table(path, document):
    """The server-side table of a list or of one object."""
    parts = path.split("/")
    plural = parts[-1] if parts[-1] in PLURALS else parts[-2]
    resource = next(one for one in RESOURCES if one.plural == plural)
    items = document.get("items", [document])
    return table_of(resource, Listing(items, document["metadata"]["resourceVersion"]), "Object")


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self):
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        state = self.server.daemon_state
        if query.get("watch") == "true":
            self._serve_watch(state, parts.path)
            return
        status, document = state.answer(self.command, parts.path, query, body)
        if "as=Table" in self.headers.get("Accept", "") and status == 200:
            document = table(parts.path, document)
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve

    def _serve_watch(self, state, path):
        as_table = "as=Table" in self.headers.get("Accept", "")
        events = state.watch(path)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(ConnectionError):  # the client has seen enough
            while (event := events.get()) is not None:
                if as_table:
                    event = {**event, "object": table(f"{path}/x", event["object"])}
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    def address_string(self):
        return socket.gethostname()

    def log_message(self, *arguments):
        return
