"""The role of `volagent run`: store, API, controllers and node agent in one process.

Order: recovery of what is mounted comes first, then the controllers: what is to be bound or made
can wait. SIGTERM leaves everything mounted and every container running, unless `drain_on_exit`
says otherwise.
"""

import asyncio

from volagent.aio.tasks import Supervisor
from volagent.api.default_roles import ensure_default_roles
from volagent.api.inprocess import InProcessClient
from volagent.api.server import Beside
from volagent.client.shared import SharedCopies
from volagent.control.provision.trash import TrashService
from volagent.daemon.controllers import (
    Controllers,
    Machine,
    make_node_controllers,
    make_server_controllers,
)
from volagent.daemon.errors import StartError
from volagent.daemon.node_side import NodeSide, make_node_side
from volagent.daemon.process import Process, run_process
from volagent.daemon.server_side import (
    make_backups,
    make_server_side,
    make_shared_provisioners,
    opened_store,
)
from volagent.daemon.serving import Serving, make_serving, open_listeners
from volagent.node.agent import NodeAgent, Start
from volagent.observe.logs import get_logger
from volagent.settings import Settings

DRAIN_TIMEOUT_S = 120.0

_log = get_logger("daemon")


def run(settings: Settings) -> int:
    """Run everything until it is told to stop; the exit status."""
    return run_process(settings, _run)


async def _run(process: Process) -> None:
    settings = process.settings
    if settings.store.kind != "sqlite":
        raise StartError(
            f"volagent run keeps its objects in SQLite, not in {settings.store.kind}",
            "where several servers share a store, use `volagent server` and `volagent agent`",
        )
    process.make_directories(of_volumes=True)
    if settings.fence.self == "on":
        _log.warning("fence.self has no effect: this node is its own server", role="run")
    with process.locked():
        async with opened_store(settings) as store:
            server = make_server_side(settings, store, process.clock)
            client = server.client
            await client.housekeeping.bootstrap()
            await ensure_default_roles(client)
            async with Supervisor() as tasks:
                start_loop: Start = tasks.start_loop
                start_loop("store", store.wait_broken())
                start_loop("housekeeping", client.housekeeping.run())
                node = make_node_side(
                    settings, server.copies, process.helpers, process.clock, tasks.start,
                    by_name=False,
                )  # fmt: skip
                machine, controllers = _make_controllers(process, client, server.copies, node)
                beside = Beside(
                    TrashService(machine.provisioners, client),
                    placement=controllers.placement,
                    attachments=controllers.attachments,
                    backups=make_backups(settings, store),
                )
                serving = make_serving(
                    process, client, server.copies, node.metrics, beside,
                    node_view=node.make_view(process.clock, lambda: process.recovery_s),
                    recovered=node.agent.recovered,
                )  # fmt: skip
                process.listen_to_signals(serving.reload)
                try:
                    await _serve(process, start_loop, server.copies, node, serving,
                                 controllers)  # fmt: skip
                finally:
                    await serving.server.close()
                    node.agent.stop()
                    await process.end(tasks)
                await node.hand_over.runner.close()
            node.agent.close()
    await process.helpers.close()


def _make_controllers(
    process: Process, client: InProcessClient, copies: SharedCopies, node: NodeSide
) -> tuple[Machine, Controllers]:
    """All of them, over everything that can be provisioned here."""
    settings, clock = process.settings, process.clock
    host, helpers = node.machine.host, process.helpers
    shared = make_shared_provisioners(settings, host, helpers, clock)
    own = node.machine
    provisioners = {**own.provisioners, **shared}
    machine = Machine(host, helpers, provisioners, own.showers, own.measure_room)
    events = node.agent.events
    controllers = make_server_controllers(
        settings, copies, client, events, clock, machine, own_node=settings.node_name
    )
    local = make_node_controllers(settings, copies, client, events, machine)
    controllers.running.update(local)
    return machine, controllers


async def _serve(
    process: Process,
    start_loop: Start,
    copies: SharedCopies,
    node: NodeSide,
    serving: Serving,
    controllers: Controllers,
) -> None:
    agent = node.agent
    if node.storage is not None:
        await node.storage.restore()
    await node.register()
    start_loop("agent", agent.run(start_loop))
    for name, loop in node.loops().items():
        start_loop(name, loop)
    await open_listeners(serving)
    start_loop("certificate", serving.renew_certificate())
    await agent.recovered.wait()
    start_loop("copies", copies.run())
    for name, controller in controllers.running.items():
        start_loop(name, controller.run())
    await copies.wait_synced()
    await process.stay_ready(start_loop)
    if process.settings.drain_on_exit:
        await drain(agent)


async def drain(agent: NodeAgent) -> None:
    """Take all volumes down before the process ends."""
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            await agent.drain()
    except TimeoutError:
        _log.error("drain not finished", timeout_s=DRAIN_TIMEOUT_S,
                   remedy="`volagent doctor` lists what is left")  # fmt: skip
    else:
        _log.info("drained")
