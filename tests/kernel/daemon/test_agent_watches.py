"""What a real agent watches, as its server is asked: each kind once, as the bench imitates it."""

import asyncio
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from bench.scale_agents import ACTED_UPON, OTHER_WATCHES
from tests.cluster.manifests import pod
from tests.kernel.daemon.harness import Daemon, until
from tests.kernel.daemon.test_agent import LEASES, NODE, Agent, Server, join
from volagent.aio.clock import SystemClock
from volagent.api.authority import Authority
from volagent.api.tls import make_server_context
from volagent.client.http import make_client_context

_REQUEST = re.compile(rb"GET (/\S*[?&]watch=\S*) HTTP/1.1\r\n")


class Listener:
    """Stands between an agent and its server, with certificates for both, and notes watches."""

    def __init__(self, directory: Path, server: Server) -> None:
        directory.mkdir()
        self.server = server
        self.watches: list[tuple[str, str]] = []
        authority = Authority(server.state / "pki", SystemClock())
        (directory / "ca.crt").write_bytes(authority.certificate)
        pair = authority.issue_client(f"system:node:{NODE}", ("system:nodes",))
        (directory / "client.pem").write_bytes(pair.certificate + pair.key)
        self._near = make_server_context(
            *authority.ensure_server(("127.0.0.1",)), client_ca=authority.path
        )
        self._tls: ssl.SSLContext = make_client_context(str(directory / "ca.crt"))
        self._tls.load_cert_chain(directory / "client.pem")
        self.port = 0
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def start(self) -> None:
        """Listen; `port` is known then."""
        self._thread.start()
        until(lambda: self.port)

    def stop(self) -> None:
        """End every connection."""
        assert self._loop is not None
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        listening = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._near)
        self.port = listening.sockets[0].getsockname()[1]
        await self._stopping.wait()
        listening.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=self._tls
        )
        with suppress(OSError, ssl.SSLError):
            await asyncio.gather(
                self._copy(reader, far_writer, noted=True), self._copy(far_reader, writer)
            )

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, noted: bool = False
    ) -> None:
        while data := await reader.read(65536):
            for found in _REQUEST.finditer(data) if noted else ():
                asked = urlsplit(found[1].decode())
                selector = parse_qs(asked.query).get("fieldSelector", [""])[0]
                self.watches.append((asked.path, selector))
            writer.write(data)
            await writer.drain()
        writer.close()


@pytest.fixture
def listener(stopped: Daemon, tmp_path: Path) -> Iterator[Listener]:
    server, agent = Server(stopped.base / "server"), Agent(stopped.base / "agent")
    server.serve()
    assert join(server, agent).returncode == 0
    listener = Listener(tmp_path / "between", server)
    listener.start()
    agent.start("--server", f"https://127.0.0.1:{listener.port}", settings=LEASES)
    yield listener
    agent.stop()
    listener.stop()
    server.stop()


def test_agent_watches_each_kind_once_and_what_the_bench_imitates(listener):
    imitated = {(path, selector.format(node=NODE)) for path, selector in OTHER_WATCHES + ACTED_UPON}
    until(lambda: imitated <= set(listener.watches), told=lambda: sorted(listener.watches))
    web = pod("web", [{"name": "cache", "emptyDir": {}}])
    listener.server.declare_ready(web)  # a watch that is too many would have begun by then
    listener.server.delete_gone(web)
    assert sorted(listener.watches) == sorted(imitated)
