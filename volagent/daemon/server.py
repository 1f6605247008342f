"""The role of `volagent server`: store, API and controllers; the nodes are elsewhere.

With SQLite it is the only server; over etcd there may be several, each of which serves the API, and
one of which runs the controllers (`daemon/leading.py`).
"""

import gc

from volagent.aio.tasks import Supervisor
from volagent.api.default_roles import ensure_default_roles
from volagent.api.server import Beside
from volagent.client.events import EventRecorder
from volagent.control.provision.trash import TrashService
from volagent.daemon.controllers import Machine, make_server_controllers
from volagent.daemon.leading import make_leading
from volagent.daemon.process import Process, run_process
from volagent.daemon.server_side import (
    make_backups,
    make_server_side,
    make_shared_provisioners,
    opened_store,
)
from volagent.daemon.serving import make_serving, open_listeners
from volagent.host.real import make_host
from volagent.node.agent import Start
from volagent.observe.metrics import render_metrics
from volagent.settings import Settings


def run(settings: Settings) -> int:
    """Run a server until it is told to stop; the exit status."""
    return run_process(settings, _run)


async def _metrics() -> bytes:
    return render_metrics()


async def _run(process: Process) -> None:
    settings, clock, helpers = process.settings, process.clock, process.helpers
    process.make_directories(of_volumes=False)
    async with opened_store(settings) as store:
        side = make_server_side(settings, store, clock)
        client, copies = side.client, side.copies
        await client.housekeeping.bootstrap()
        await ensure_default_roles(client)
        leading = make_leading(settings, store, side, clock)
        async with Supervisor() as tasks:
            start_loop: Start = tasks.start_loop
            start_loop("store", store.wait_broken())
            host = make_host(helpers=helpers)
            machine = Machine(
                host, helpers, make_shared_provisioners(settings, host, helpers, clock)
            )
            events = EventRecorder(
                leading.client, clock, component="volagent-server", host=settings.node_name
            )
            controllers = make_server_controllers(
                settings, copies, leading.client, events, clock, machine
            )
            beside = Beside(
                TrashService(machine.provisioners, client),
                placement=controllers.placement,
                attachments=controllers.attachments,
                backups=make_backups(settings, store),
            )
            serving = make_serving(
                process, client, copies, _metrics, beside, node_view=None, recovered=None
            )
            process.listen_to_signals(serving.reload)
            try:
                await open_listeners(serving)
                start_loop("certificate", serving.renew_certificate())
                start_loop("copies", copies.run())
                loops = {name: each.run for name, each in controllers.running.items()}
                # Who reads everything first may stand still for longer than a leader is allowed to.
                await copies.wait_synced()
                gc.collect()
                gc.freeze()  # what was read stays: looking for garbage in it again takes seconds
                start_loop("leading", leading.run(start_loop, {"events": events.run, **loops}))
                await process.stay_ready(start_loop)
            finally:
                await serving.server.close()
                await process.end(tasks)
        await leading.resign()
    await helpers.close()
