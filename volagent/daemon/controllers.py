"""Which controllers run beside the API, and what they are given: the composition of `control/`.

All follow the same copies and write through the same client, so that it makes no difference to them
which process they run in. Built before the copies run, so that nobody misses a change.
"""

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from volagent.aio.clock import Clock
from volagent.client.contract import Client
from volagent.client.events import EventRecorder
from volagent.client.shared import SharedCopies
from volagent.control.attach.run import AttachController
from volagent.control.attach.view import AttachmentView
from volagent.control.bind.run import Binder
from volagent.control.discover.decide import Rule
from volagent.control.discover.run import Discovery
from volagent.control.ephemeral.run import EphemeralController
from volagent.control.expand.run import ExpandController
from volagent.control.failover.lost import LostNodes
from volagent.control.failover.pods import PodMover
from volagent.control.failover.run import FailoverController
from volagent.control.failover.steady import SteadinessController
from volagent.control.fencing.run import ServerFencing
from volagent.control.nodes.off import OutOfService
from volagent.control.nodes.run import NodeLife
from volagent.control.protect.run import ProtectionController
from volagent.control.provision.run import ProvisionController
from volagent.control.schedule.run import Scheduler
from volagent.control.schedule.view import PlacementView
from volagent.control.show.room import Measure, RoomReporter
from volagent.control.show.run import ShowController
from volagent.control.snapshot.run import SnapshotController
from volagent.daemon.block_store import open_block_store
from volagent.daemon.fencers import make_fencers
from volagent.drivers.attaching.table import make_attachers
from volagent.drivers.fencing.hooks import FenceHooks
from volagent.drivers.image import IMAGE
from volagent.drivers.provisioning.contract import ProvisionerTable
from volagent.drivers.provisioning.directory import DIRECTORY
from volagent.drivers.showing.contract import ShowerTable
from volagent.host.contract import Host
from volagent.host.directory_watch import LocalWatches
from volagent.host.local_storage import LocalStorage
from volagent.host.process import Helpers
from volagent.objects.storage_nodes import STORAGE_PROVISIONERS
from volagent.settings import Settings

NODE_LOCAL = (str(IMAGE), str(DIRECTORY))
"""Provisioners that run where the volume will be, on whichever VM that is."""


class Controller(Protocol):
    """What runs for ever."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Do the work, for ever."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What controllers that touch this VM work on."""

    host: Host
    helpers: Helpers
    provisioners: ProvisionerTable
    showers: ShowerTable = field(default_factory=dict)
    """What shows this machine's volumes to other nodes, if it is a storage node."""
    measure_room: Measure | None = None


@dataclass(frozen=True, slots=True)
class Controllers:
    """Every controller by its name, and what they can be asked."""

    running: dict[str, Controller]
    placement: PlacementView
    attachments: AttachmentView


def make_server_controllers(
    settings: Settings,
    copies: SharedCopies,
    client: Client,
    events: EventRecorder,
    clock: Clock,
    machine: Machine,
    *,
    own_node: str = "",
) -> Controllers:
    """The controllers of a cluster, and those of what `machine` can provision.

    `own_node`: the one whose agent is in this process, if any.
    """
    scheduler = Scheduler(copies, client, events, clock)
    attachers = make_attachers(
        open_block_store(settings.aws, clock), lambda node: _provider_id_of(copies, node)
    )
    attaching = AttachController(copies, client, events, attachers, clock)
    share_max = settings.failover.lost_share_max
    lost = LostNodes(copies, clock, settings.lease, share_max=share_max, own_node=own_node)
    failover = FailoverController(
        copies, client, events, clock,
        lost=lost, settings=settings.failover, fencers=make_fencers(settings),
    )  # fmt: skip
    hooks = FenceHooks(machine.helpers, settings.hooks.directory, settings.hooks.timeout_s)
    known = frozenset({*machine.provisioners, *NODE_LOCAL, *STORAGE_PROVISIONERS})
    running: dict[str, Controller] = {
        "binder": Binder(copies, client, events, known),
        "scheduler": scheduler,
        "protection": ProtectionController(copies, client),
        "node life": NodeLife(
            copies, client, events, clock, settings.lease.timeout_s, own_node=own_node
        ),
        "attachments": attaching,
        "nodes that are off": OutOfService(copies, client, events),
        "fail-over": failover,
        "pods of lost nodes": PodMover(
            copies,
            client,
            events,
            lost,
            attachers=attachers,
            shared_after_s=settings.failover.shared_after_s,
        ),
        "unsteady nodes": SteadinessController(copies, client, events, clock, settings.failover),
        "fencings": ServerFencing(copies, client, clock, hooks),
        "ephemeral claims": EphemeralController(copies, client, events),
        **make_volume_controllers(settings, copies, client, events, clock, machine),
    }
    attachments = AttachmentView(copies, attaching, failover.explain)
    return Controllers(running, PlacementView(copies, scheduler), attachments)


def _provider_id_of(copies: SharedCopies, node: str) -> str:
    found = copies.nodes.get("", node)
    return found.spec.provider_id if found is not None else ""


def make_volume_controllers(
    settings: Settings,
    copies: SharedCopies,
    client: Client,
    events: EventRecorder,
    clock: Clock,
    machine: Machine,
) -> dict[str, Controller]:
    """What makes, grows and copies volumes, for the provisioners of this process."""
    provisioners = machine.provisioners
    return {
        "provisioning": ProvisionController(
            copies, client, events, provisioners, clock,
            default_keep_s=int(settings.trash.retention_s),
        ),
        "growth": ExpandController(copies, client, events, provisioners, clock),
        "snapshots": SnapshotController(copies, client, events, provisioners, clock),
    }  # fmt: skip


def make_node_controllers(
    settings: Settings,
    copies: SharedCopies,
    client: Client,
    events: EventRecorder,
    machine: Machine,
) -> dict[str, Controller]:
    """The controllers of this VM's own disks, and of what it shows to others."""
    rules = [
        Rule(
            rule.directory, rule.storage_class, rule.reclaim_policy, rule.labels,
            rule.plain_directories,
        )
        for rule in settings.discovery
    ]  # fmt: skip
    running: dict[str, Controller] = {}
    if rules:
        running["discovery"] = Discovery(
            copies, client, events,
            storage=LocalStorage(machine.host, machine.helpers),
            watches=LocalWatches(machine.host.mounts),
            node_name=settings.node_name,
            rules=rules,
        )  # fmt: skip
    if machine.showers:
        node = settings.node_name
        running["showing"] = ShowController(copies, client, machine.showers, node)
        if machine.measure_room is not None:
            running["storage room"] = RoomReporter(
                copies, client, events, machine.measure_room, node
            )
    return running
