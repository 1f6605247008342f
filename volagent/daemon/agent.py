"""The role of `volagent agent`: the node's half alone, over HTTPS to a server.

A server that cannot be reached stops nothing that runs: what is mounted stays, and is mounted again
when somebody unmounts it. A start without a server goes by what is remembered of the last one. What
is declared meanwhile comes when a server answers.
"""

import asyncio
import random
import ssl
import zlib
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec

from volagent import __version__
from volagent.aio.backoff import BackOff
from volagent.aio.tasks import Supervisor
from volagent.api.remote import RemoteClient
from volagent.api.server import ApiServer, Beside
from volagent.client.contract import ApiError
from volagent.client.credentials import Credentials, CredentialsError
from volagent.client.http import HttpClient
from volagent.client.shared import SharedCopies
from volagent.control.provision.trash import TrashService
from volagent.daemon.all_in_one import drain
from volagent.daemon.controllers import make_node_controllers, make_volume_controllers
from volagent.daemon.errors import StartError
from volagent.daemon.fence import make_fence
from volagent.daemon.node_side import NodeSide, make_node_side
from volagent.daemon.process import Process, run_process
from volagent.daemon.renewal import renew_certificate
from volagent.daemon.serving import Serving, open_listeners
from volagent.node.agent import Start
from volagent.observe.logs import get_logger
from volagent.settings import Settings

REGISTER_RETRY = BackOff(first_s=0.2, max_s=10.0)

_log = get_logger("agent")


def run(settings: Settings) -> int:
    """Run an agent until it is told to stop; the exit status."""
    return run_process(settings, _run)


async def _run(process: Process) -> None:
    credentials = Credentials(process.settings.state_dir)
    settings = process.settings = _complete(process.settings, credentials)
    process.make_directories(of_volumes=True)
    context = _open(process, credentials)
    with process.locked():
        async with (
            Supervisor() as tasks,
            RemoteClient(_order(settings), settings.node_name, context) as client,
        ):
            # What is made on this VM is made for it; only a storage node knows the others.
            only_node = "" if settings.storage.enabled else settings.node_name
            copies = SharedCopies(client, pods_of_node=settings.node_name, only_node=only_node)
            node = make_node_side(
                settings, copies, process.helpers, process.clock, tasks.start, by_name=True
            )
            fence = make_fence(settings, client, node.agent, process.clock, tasks.start)
            serving = _make_serving(process, client, copies, node)
            process.listen_to_signals(serving.reload)
            renewal = renew_certificate(
                settings.node_name, credentials, client, context, process.clock
            )
            registering = tasks.start("registering", _register(node))
            try:
                loops = {
                    "certificate": renewal, **node.loops(), **fence.loops(),
                }  # fmt: skip
                await _serve(process, tasks.start_loop, client, copies, node, serving, loops)
            finally:
                registering.cancel()
                await fence.leave()
                await serving.server.close()
                node.agent.stop()
                await process.end(tasks)
            await node.hand_over.runner.close()
        node.agent.close()
    await process.helpers.close()


async def _serve(
    process: Process, start_loop: Start, client: HttpClient, copies: SharedCopies,
    node: NodeSide, serving: Serving, loops: Mapping[str, Coroutine[Any, Any, None]],
) -> None:  # fmt: skip
    settings, agent, events = process.settings, node.agent, node.agent.events
    controllers = {
        **make_volume_controllers(settings, copies, client, events, process.clock, node.machine),
        **make_node_controllers(settings, copies, client, events, node.machine),
    }
    if node.storage is not None:
        await node.storage.restore()
    await open_listeners(serving)
    start_loop("agent", agent.run(start_loop))  # its records are open before the fence looks
    for name, loop in loops.items():
        start_loop(name, loop)
    await agent.recovered.wait()
    start_loop("copies", copies.run())
    for name, controller in controllers.items():
        start_loop(name, controller.run())
    await process.stay_ready(start_loop)
    if settings.drain_on_exit:
        await drain(agent)


def _make_serving(
    process: Process, client: RemoteClient, copies: SharedCopies, node: NodeSide
) -> Serving:
    def find_obstacle() -> str | None:
        if not node.agent.recovered.is_set():
            return "recovery is not over, or no server was reached yet"
        return None if copies.is_synced else "the server has not told everything yet"

    server = ApiServer(
        client,
        node_view=node.make_view(process.clock, lambda: process.recovery_s),
        ready=find_obstacle,
        metrics=node.metrics,
        version=__version__,
        beside=Beside(TrashService(node.machine.provisioners, client)),
    )
    return Serving(process.settings, server)


def _complete(settings: Settings, credentials: Credentials) -> Settings:
    """With the node's name and the servers that it has joined. Raises `StartError`."""
    if not credentials.exist:
        raise StartError(
            f"this machine has not joined a cluster (nothing in {settings.state_dir}/node)",
            "run `volagent token create` on a server, and here the `volagent join` that it prints",
        )
    try:
        servers = settings.servers or credentials.read_servers()
        name = credentials.read_node()
    except CredentialsError as error:
        raise StartError(str(error), "join again: `volagent join`") from error
    if not servers:
        raise StartError("no server is known", "give one with --server https://ADDRESS:PORT")
    return msgspec.structs.replace(settings, servers=servers, node_name=name)


def _order(settings: Settings) -> tuple[str, ...]:
    """The servers, beginning with this node's: so that not all agents ask the first one."""
    first = zlib.crc32(settings.node_name.encode()) % len(settings.servers)
    return (*settings.servers[first:], *settings.servers[:first])


def _open(process: Process, credentials: Credentials) -> ssl.SSLContext:
    try:
        expired = credentials.explain_expiry(process.clock.wall())
        if expired:
            raise StartError(expired, "is the clock right? If so, join again: `volagent join`")
        return credentials.make_context()
    except CredentialsError as error:
        raise StartError(str(error), "join again: `volagent join`") from error


async def _register(node: NodeSide) -> None:
    """Make the Node; a server that does not answer is waited for."""
    failures = 0
    while True:
        try:
            return await node.register()
        except ApiError as error:
            failures += 1
            if failures == 1:
                _log.warning("not registered yet", error=error.message)
            await asyncio.sleep(REGISTER_RETRY.delay_s(failures, random.random()))
