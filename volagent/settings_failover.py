"""What servers do about lost nodes: the settings under `[failover]`."""

from typing import Annotated, Literal

import msgspec


class FailoverSettings(msgspec.Struct, frozen=True):
    """What is done about nodes that are lost."""

    enabled: bool = True
    """Have their exclusive disks proved free; else only a person's word frees one."""
    methods: tuple[Literal["Storage", "Hook", "Watchdog"], ...] = ("Storage", "Hook", "Watchdog")
    """What is trusted as a proof."""
    lost_share_max: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.34
    """When a larger share of the nodes is silent at once, nothing is begun; one node always may."""
    watchdog_margin_s: Annotated[float, msgspec.Meta(gt=0)] = 5.0
    """Waited beyond what a node promises of its watchdog."""
    shared_after_s: Annotated[float, msgspec.Meta(gt=0)] = 300.0
    """Pods without an exclusive disk are placed anew after so long, unless they say how long."""
    unsteady_losses: Annotated[int, msgspec.Meta(ge=2)] = 3
    """A node that is lost so often within an hour gets no new pods for a while."""
    unsteady_hold_s: Annotated[float, msgspec.Meta(gt=0)] = 600.0
    """The first such while; it doubles with each further loss, up to an hour."""
