"""What the node agent is told at start."""

from dataclasses import dataclass, field

from volagent.aio.backoff import BackOff
from volagent.drivers.layout import Layout
from volagent.drivers.payload import NodeFacts
from volagent.node.checkpoint import Checkpoint
from volagent.node.devices import WatchDevices
from volagent.node.named import StartTask
from volagent.node.register import NodeExtras


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What the agent is told at start."""

    node_name: str
    layout: Layout
    facts: NodeFacts
    backoff: BackOff
    resync_s: float
    """The safety net: how often everything is compared again although no event asked for it."""
    watch_devices: WatchDevices | None = None
    """How to hear of block devices that come and go; None: nothing tells."""
    start_by_name: StartTask | None = None
    """Follows secrets and configMaps by the names that pods give; None: they can be listed."""
    checkpoint: Checkpoint | None = None
    """What is remembered for a start without a server; None: the server is in this process."""
    extras: NodeExtras = field(default_factory=NodeExtras)
