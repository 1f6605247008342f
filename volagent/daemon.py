"""The composition root of `volagent run`: builds every concrete part, owns tasks and signals.

Life: locks → store → client → API (answering 503 on /readyz) → recovery → ready → until SIGTERM,
SIGINT or a part that cannot go on. SIGTERM leaves everything mounted and every container running,
unless `drain_on_exit` says otherwise. An error that is not understood ends the process: systemd
starts it again, and recovery is ordinary.
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volagent.aio.backoff import BackOff
from volagent.aio.clock import SystemClock
from volagent.aio.tasks import Supervisor
from volagent.api.admission import Admission
from volagent.api.auth import TokenFileError
from volagent.api.default_roles import ensure_default_roles
from volagent.api.inprocess import InProcessClient
from volagent.api.listen import ListenError
from volagent.api.surroundings import ObjectsAround
from volagent.api.surroundings_nodes import NodesAround
from volagent.api.tls import TlsError
from volagent.api.tokens import TokenKeyError, load_key
from volagent.block_store import describe_extras, open_block_store
from volagent.client.shared import SharedCopies
from volagent.control.provision.trash import TrashService
from volagent.controllers import Controller, Machine, make_controllers
from volagent.drivers import make_drivers
from volagent.drivers.ebs.store import BlockStore
from volagent.drivers.layout import Layout
from volagent.drivers.payload import NodeFacts
from volagent.drivers.provisioning.table import (
    NfsName,
    make_cloud_provisioners,
    make_local_provisioners,
    make_nfs_provisioners,
)
from volagent.host.contract import Host
from volagent.host.process import Helpers
from volagent.host.real import make_host
from volagent.host.uevents import watch_devices
from volagent.node.agent import AgentConfig, NodeAgent, Start
from volagent.node.hand_over import RuntimeHandOver
from volagent.node.records import RecordBook
from volagent.node.register import describe_node, read_boot_id
from volagent.node.stats import VolumeStats
from volagent.node.view import AgentView
from volagent.observe.logs import configure_logs, get_logger
from volagent.observe.metrics import recovery_seconds
from volagent.observe.systemd import feed_watchdog, notify, watchdog_interval_s
from volagent.runtime import contract as runtime_contract
from volagent.runtime.cdi import CdiDirectory
from volagent.runtime.none import NoRunner
from volagent.serving import Serving
from volagent.settings import Settings
from volagent.store.contract import AlreadyRunning, Corrupt, StoreError
from volagent.store.lock import DirectoryLock
from volagent.store.sqlite import SqliteStore, open_store

EXIT_OK, EXIT_FAILED = 0, 1
DRAIN_TIMEOUT_S = 120.0
STOP_GRACE_S = 5.0
"""Operations under way may end; one that hangs on a dead backend is cut off: its record says so."""
GIL_SWITCH_S = 0.0005
"""The store's writer thread waits this long for a busy event loop, not the default 5 ms: measured,
a commit under load takes 0.9 ms instead of 3.2."""
GC_THRESHOLDS = (10_000, 20, 50)
"""What recovery has read lives as long as the daemon, and the rest is short-lived: the collector
looks rarely, so that it never pauses the loop for long."""

_log = get_logger("daemon")


class StartError(Exception):
    """The daemon cannot start; the text is for a person, the hint says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def run(settings: Settings) -> int:
    """Run the daemon until it is told to stop; its exit status."""
    os.umask(0o022)
    sys.setswitchinterval(GIL_SWITCH_S)
    configure_logs(settings.log.level, settings.log.format)
    try:
        asyncio.run(_Daemon(settings).run())
    except (StartError, StoreError) as error:
        return _tell(error)
    except BaseExceptionGroup as group:
        cause = _first(group)
        if not isinstance(cause, StartError | StoreError):
            raise
        return _tell(cause)
    return EXIT_OK


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _tell(error: BaseException) -> int:
    hint = error.hint if isinstance(error, StartError) else ""
    print(f"volagent: cannot go on: {error}", file=sys.stderr)  # noqa: T201  # for a person
    if hint:
        print(f"hint: {hint}", file=sys.stderr)  # noqa: T201
    return EXIT_FAILED


@dataclass(slots=True)
class _Daemon:
    """Everything that runs in one process of the all-in-one form."""

    settings: Settings
    clock: SystemClock = field(default_factory=SystemClock)
    helpers: Helpers = field(default_factory=Helpers)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    began_s: float = field(default_factory=time.monotonic)
    recovery_s: float = 0.0
    admission: Admission = field(default_factory=Admission)
    copies: SharedCopies = field(init=False)
    block_store: BlockStore | None = None

    async def run(self) -> None:
        """Start, serve, stop."""
        self._make_directories()
        async with self._locked(), self._opened_store() as store:
            client = self._make_client(store)
            await client.housekeeping.bootstrap()
            await ensure_default_roles(client)
            async with Supervisor() as tasks:
                start_loop: Start = tasks.start_loop
                start_loop("store", store.wait_broken())
                start_loop("housekeeping", client.housekeeping.run())
                agent, hand_over = self._make_agent(client, tasks.start)
                self.copies = SharedCopies(client)
                self.admission.surroundings = ObjectsAround(
                    self.copies, mount_tokens=self.settings.auth.mount_service_account_token
                )
                client.leave_to_scheduler(NodesAround(self.copies).only_node)
                machine = self._make_machine(agent.host)
                controllers = make_controllers(
                    self.settings, self.copies, client, agent.events, self.clock, machine
                )
                stats = VolumeStats(agent, tasks.start)
                trash = TrashService(machine.provisioners, client)
                serving = self._make_serving(client, agent, hand_over, stats, trash)
                self._listen_to_signals(serving)
                try:
                    await self._serve(start_loop, client, agent, serving, controllers)
                finally:
                    await serving.server.close()
                    agent.stop()
                    tasks.stop_loops()
                    cut_off = await tasks.finish_operations(STOP_GRACE_S)
                    if cut_off:
                        _log.warning("operations cut off", count=cut_off, grace_s=STOP_GRACE_S)
                await hand_over.runner.close()
            agent.close()
        await self.helpers.close()

    async def _serve(
        self,
        start_loop: Start,
        client: InProcessClient,
        agent: NodeAgent,
        serving: Serving,
        controllers: Mapping[str, Controller],
    ) -> None:
        await agent.node.register()
        start_loop("agent", agent.run(start_loop))
        if serving.authority is not None:
            await client.housekeeping.publish_root(serving.authority.certificate.decode())
        try:
            await serving.open_listeners()
        except (ListenError, TlsError) as error:
            raise StartError(str(error)) from error
        await agent.recovered.wait()
        # Volumes that are mounted come first; what is to be bound or made can wait for them.
        start_loop("copies", self.copies.run())
        for name, controller in controllers.items():
            start_loop(name, controller.run())
        await self.copies.wait_synced()
        self.recovery_s = time.monotonic() - self.began_s
        recovery_seconds.set(self.recovery_s)
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        _log.info(
            "ready", node=self.settings.node_name, listen=self.settings.listen,
            root_dir=self.settings.root_dir, took_s=round(self.recovery_s, 3),
        )  # fmt: skip
        notify("READY=1")
        interval_s = watchdog_interval_s()
        if interval_s is not None:
            start_loop("watchdog", feed_watchdog(interval_s))
        await self.stopping.wait()
        notify("STOPPING=1")
        if self.settings.drain_on_exit:
            await self._drain(agent)
        _log.info("stopping", drained=self.settings.drain_on_exit)

    async def _drain(self, agent: NodeAgent) -> None:
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await agent.drain()
        except TimeoutError:
            _log.error("drain not finished", timeout_s=DRAIN_TIMEOUT_S,
                       remedy="`volagent doctor` lists what is left")  # fmt: skip

    # -- parts ------------------------------------------------------------------------------

    def _make_directories(self) -> None:
        settings = self.settings
        for path, mode in (
            (settings.root_dir, 0o755), (settings.run_dir, 0o755), (settings.image_dir, 0o700),
        ):  # fmt: skip
            try:
                Path(path).mkdir(mode=mode, parents=True, exist_ok=True)
            except OSError as error:
                raise StartError(f"{path}: {error.strerror}", "run as root, or name another"
                                 " directory") from error  # fmt: skip

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """One daemon per root directory: two would take each other's mounts down."""
        try:
            lock = DirectoryLock(Path(self.settings.root_dir))
        except AlreadyRunning as error:
            raise StartError(str(error), "one daemon serves one root directory") from error
        except OSError as error:
            raise StartError(f"{self.settings.root_dir}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    @contextlib.asynccontextmanager
    async def _opened_store(self) -> AsyncIterator[SqliteStore]:
        try:
            store = open_store(Path(self.settings.state_dir))
        except AlreadyRunning as error:
            raise StartError(str(error)) from error
        except Corrupt as error:
            raise StartError(str(error), "restore the state directory from a backup") from error
        except OSError as error:
            raise StartError(f"{self.settings.state_dir}: {error.strerror}") from error
        try:
            yield store
        finally:
            await store.close()

    def _make_client(self, store: SqliteStore) -> InProcessClient:
        try:
            key = load_key(Path(self.settings.state_dir))
        except TokenKeyError as error:
            raise StartError(str(error)) from error
        return InProcessClient(
            store, self.admission, self.clock,
            token_key=key, default_node_name=self.settings.node_name,
        )  # fmt: skip

    def _make_agent(
        self, client: InProcessClient, start: Start
    ) -> tuple[NodeAgent, RuntimeHandOver]:
        settings = self.settings
        layout = Layout(os.path.realpath(settings.root_dir))
        self.block_store = open_block_store(settings.aws, self.clock)
        host = make_host(helpers=self.helpers)
        drivers = make_drivers(
            host,
            layout,
            image_dir=settings.image_dir,
            nfs_mount_timeout_s=settings.nfs.mount_timeout_s,
            nfs_unmount_timeout_s=settings.nfs.unmount_timeout_s,
            block_store=self.block_store,
        )
        node = describe_node(settings.node_name, "")
        address = next((a["address"] for a in node["addresses"] if a["type"] == "InternalIP"), "")
        config = AgentConfig(
            node_name=settings.node_name,
            layout=layout,
            facts=NodeFacts(settings.node_name, address, node["allocatable"]),
            backoff=BackOff(settings.retry.first_s, settings.retry.max_s),
            resync_s=settings.resync_s,
            watch_devices=lambda on_event: watch_devices(self.helpers, on_event),
            extras=describe_extras(settings.aws, self.block_store),
        )
        hand_over = self._make_hand_over(layout, address, node["allocatable"])
        book = RecordBook(f"{settings.run_dir}/records", boot_id=read_boot_id())
        agent = NodeAgent(
            config, client=client, host=host, drivers=drivers, book=book, hand_over=hand_over,
            clock=self.clock, start=start,
        )  # fmt: skip
        return agent, hand_over

    def _make_machine(self, host: Host) -> Machine:
        settings = self.settings
        provisioners = make_local_provisioners(
            host, self.helpers, self.clock,
            node_name=settings.node_name,
            image_dir=settings.image_dir,
            directory_dir=settings.provision.directory_dir,
        )  # fmt: skip
        names = [
            NfsName(each.provisioner, each.server, each.path, each.mount_options)
            for each in settings.provision.nfs
        ]
        on_servers = make_nfs_provisioners(
            host, self.helpers, self.clock, names,
            work_dir=f"{settings.run_dir}/provision",
            mount_timeout_s=settings.nfs.mount_timeout_s,
        )  # fmt: skip
        return Machine(host, self.helpers, {
            **provisioners, **on_servers, **make_cloud_provisioners(self.block_store),
        })  # fmt: skip

    def _make_hand_over(
        self, layout: Layout, address: str, allocatable: dict[str, str]
    ) -> RuntimeHandOver:
        settings = self.settings.runtime
        facts = runtime_contract.NodeFacts(
            self.settings.node_name, address, allocatable["cpu"], allocatable["memory"]
        )
        runner: runtime_contract.Runner = NoRunner()
        recursive_read_only = False
        if settings.kind == "podman":
            # Imported here: without a runtime nothing of it is loaded.
            from volagent.runtime.podman import PodmanRuntime
            from volagent.runtime.pods import PodRunner

            podman = PodmanRuntime(settings.podman_socket, network=settings.network)
            runner = PodRunner(podman, self.clock)
            recursive_read_only = podman.recursive_read_only
        cdi = CdiDirectory(settings.cdi_dir) if settings.cdi_dir else None
        return RuntimeHandOver(
            runner, layout, facts,
            starts_containers=settings.kind != "none",
            recursive_read_only=recursive_read_only,
            cdi=cdi,
            clock=self.clock,
        )  # fmt: skip

    def _make_serving(
        self,
        client: InProcessClient,
        agent: NodeAgent,
        hand_over: RuntimeHandOver,
        stats: VolumeStats,
        trash: TrashService,
    ) -> Serving:
        view = AgentView(
            agent, hand_over.describe_containers, self._describe_backends,
            self.clock.wall(), lambda: self.recovery_s,
        )  # fmt: skip
        try:
            return Serving(
                self.settings, client, self.copies, self.clock,
                node_view=view,
                ready=lambda: self._find_obstacle(agent),
                metrics=stats.render,
                trash=trash,
            )  # fmt: skip
        except (TokenFileError, TlsError) as error:
            raise StartError(str(error)) from error

    def _find_obstacle(self, agent: NodeAgent) -> str | None:
        """Why the daemon is not ready, or None."""
        if not agent.recovered.is_set():
            return "recovery is not over"
        return None if self.copies.is_synced else "the controllers have not seen everything"

    def _describe_backends(self) -> list[dict[str, Any]]:
        return [
            {"name": state.name, "state": state.state, "detail": state.detail}
            for state in self.helpers.backends()
        ]

    def _listen_to_signals(self, serving: Serving) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, serving.reload)
