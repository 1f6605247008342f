"""The node's half of a process: drivers, the agent, the hand-over, what this VM provisions.

Composition for `volagent run` and `volagent agent`: they differ in the client alone.
"""

import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from volagent.aio.backoff import BackOff
from volagent.aio.clock import Clock
from volagent.client.shared import SharedCopies
from volagent.daemon.block_store import describe_extras, open_block_store
from volagent.daemon.controllers import Machine
from volagent.daemon.storage_side import StorageSide, make_storage_side
from volagent.drivers import make_drivers
from volagent.drivers.contract import DriverTable
from volagent.drivers.ebs.store import BlockStore
from volagent.drivers.fencing.shown import join_fences
from volagent.drivers.fencing.table import make_node_fences
from volagent.drivers.layout import Layout
from volagent.drivers.payload import NodeFacts
from volagent.drivers.provisioning.contract import ProvisionerTable
from volagent.drivers.provisioning.table import make_local_provisioners
from volagent.host.contract import Host
from volagent.host.iscsi.assembly import make_initiator
from volagent.host.iscsi.excluding import Excluder
from volagent.host.iscsi.identity import read_initiator_name
from volagent.host.nbd import RealNbd
from volagent.host.process import Helpers
from volagent.host.real import make_host
from volagent.host.uevents import watch_devices
from volagent.node.agent import NodeAgent
from volagent.node.checkpoint import Checkpoint
from volagent.node.config import AgentConfig
from volagent.node.fencing import NodeFencing
from volagent.node.hand_over import RuntimeHandOver
from volagent.node.left_over import LeftOverSweep
from volagent.node.login_watch import watch_logins
from volagent.node.named import StartTask
from volagent.node.records import RecordBook
from volagent.node.register import NodeExtras, describe_node, read_boot_id
from volagent.node.stats import VolumeStats
from volagent.node.view import AgentView
from volagent.objects.attachments import limit_name
from volagent.objects.storage_nodes import INITIATOR, ISCSI_PROVISIONER
from volagent.runtime import contract as runtime_contract
from volagent.runtime.cdi import CdiDirectory
from volagent.runtime.none import NoRunner
from volagent.settings import Settings


@dataclass(frozen=True, slots=True)
class NodeSide:
    """What a process has to be a node."""

    agent: NodeAgent
    hand_over: RuntimeHandOver
    machine: Machine
    """With the provisioners of volumes on this VM."""
    metrics: Callable[[], Awaitable[bytes]]

    fencing: NodeFencing
    """Keeps lost nodes out of disks that this one reaches."""
    labels: Mapping[str, str]
    """What the settings label this VM's Node with."""
    storage: StorageSide | None = None

    async def register(self) -> None:
        """Make the Node. Raises `ApiError`."""
        initiator = read_initiator_name()
        await self.agent.node.register(self.labels, {INITIATOR: initiator} if initiator else {})

    def loops(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs beside the agent for its life."""
        loops = {
            "fencings of others": self.fencing.run(),
            "left over": LeftOverSweep(self.agent).run(),
        }
        if self.storage is not None and ISCSI_PROVISIONER in self.storage.showers:
            loops["logins"] = watch_logins(self.machine.helpers)
        return loops

    def make_view(self, clock: Clock, recovery_s: Callable[[], float]) -> AgentView:
        """What answers questions about this node's pods."""
        helpers = self.machine.helpers

        def describe_backends() -> list[dict[str, Any]]:
            return [
                {"name": state.name, "state": state.state, "detail": state.detail}
                for state in helpers.backends()
            ]

        return AgentView(
            self.agent, self.hand_over.describe_containers, describe_backends, clock.wall(),
            recovery_s,
        )  # fmt: skip


def make_node_side(
    settings: Settings,
    copies: SharedCopies,
    helpers: Helpers,
    clock: Clock,
    start: StartTask,
    *,
    by_name: bool,
) -> NodeSide:
    """Build the node's half. `by_name`: secrets may only be read one by one, not listed."""
    layout = Layout(os.path.realpath(settings.root_dir))
    host = make_host(helpers=helpers)
    block_store = open_block_store(settings.aws, clock)
    reserves = settings.iscsi.reservations
    initiator = make_initiator(helpers=helpers, run_dir=settings.run_dir, reserves=reserves)
    nbd = RealNbd(helpers=helpers, directory=f"{settings.run_dir}/nbd")
    drivers = make_drivers(
        host, layout,
        image_dir=settings.image_dir,
        nfs_mount_timeout_s=settings.nfs.mount_timeout_s,
        nfs_unmount_timeout_s=settings.nfs.unmount_timeout_s,
        block_store=block_store, initiator=initiator, nbd=nbd,
    )  # fmt: skip
    node = describe_node(settings.node_name, "", read_boot_id())
    address = next((a["address"] for a in node["addresses"] if a["type"] == "InternalIP"), "")
    config = AgentConfig(
        node_name=settings.node_name,
        layout=layout,
        facts=NodeFacts(settings.node_name, address, node["allocatable"]),
        backoff=BackOff(settings.retry.first_s, settings.retry.max_s),
        resync_s=settings.resync_s,
        watch_devices=lambda on_event: watch_devices(helpers, on_event),
        start_by_name=start if by_name else None,
        checkpoint=Checkpoint(f"{settings.state_dir}/node/remembered.json") if by_name else None,
        extras=_describe_node_extras(settings, drivers, block_store),
    )
    hand_over = _make_hand_over(settings, clock, layout, address, node["allocatable"])
    book = RecordBook(f"{settings.run_dir}/records", boot_id=read_boot_id())
    agent = NodeAgent(
        config, copies=copies, host=host, drivers=drivers, book=book,
        hand_over=hand_over, clock=clock, start=start,
    )  # fmt: skip
    provisioners = make_local_provisioners(
        host, helpers, clock,
        node_name=settings.node_name,
        image_dir=settings.image_dir,
        directory_dir=settings.provision.directory_dir,
    )  # fmt: skip
    storage = make_storage_side(settings, host, helpers, clock, address)
    fences = make_node_fences(Excluder(initiator), settings.node_name, block_store)
    if storage is not None:
        fences = join_fences(storage.fences, fences)
    fencing = NodeFencing(
        copies.client, clock, settings.node_name, drivers=drivers, fences=fences, start=start
    )
    return NodeSide(
        agent, hand_over, _make_machine(host, helpers, provisioners, storage),
        VolumeStats(agent, start).render, fencing,
        {**settings.node_labels, **(storage.labels if storage is not None else {})}, storage,
    )  # fmt: skip


def _make_machine(
    host: Host, helpers: Helpers, provisioners: ProvisionerTable, storage: StorageSide | None
) -> Machine:
    if storage is None:
        return Machine(host, helpers, provisioners)
    everything = {**provisioners, **storage.provisioners}
    return Machine(host, helpers, everything, storage.showers, storage.measure_room)


def _describe_node_extras(
    settings: Settings, drivers: DriverTable, block_store: BlockStore | None
) -> NodeExtras:
    """What the Node and the CSINode say of this machine's drivers."""
    found = describe_extras(settings.aws, block_store)
    limits = settings.attach_limits
    in_tree = {
        limit_name(driver): str(count)
        for driver, count in limits.items()
        if driver.startswith("kubernetes.io/")
    }
    csi = {str(name): limits.get(name) for name in drivers if "/" not in name}
    return NodeExtras(found.fetch_whereabouts, {**found.limits, **in_tree}, csi)


def _make_hand_over(
    settings: Settings, clock: Clock, layout: Layout, address: str, allocatable: dict[str, str]
) -> RuntimeHandOver:
    runtime = settings.runtime
    facts = runtime_contract.NodeFacts(
        settings.node_name, address, allocatable["cpu"], allocatable["memory"]
    )
    runner: runtime_contract.Runner = NoRunner()
    recursive_read_only = False
    if runtime.kind == "podman":
        # Imported here: without a runtime nothing of it is loaded.
        from volagent.runtime.podman import PodmanRuntime
        from volagent.runtime.pods import PodRunner

        podman = PodmanRuntime(runtime.podman_socket, network=runtime.network)
        runner = PodRunner(podman, clock)
        recursive_read_only = podman.recursive_read_only
    return RuntimeHandOver(
        runner, layout, facts,
        starts_containers=runtime.kind != "none",
        recursive_read_only=recursive_read_only,
        cdi=CdiDirectory(runtime.cdi_dir) if runtime.cdi_dir else None,
        clock=clock,
    )  # fmt: skip
