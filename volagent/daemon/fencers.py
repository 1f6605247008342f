"""What a cluster has to prove with that a lost node cannot write, as its servers know it."""

from volagent.control.failover.means import Fencers
from volagent.drivers.fencing.hooks import find_programs
from volagent.drivers.fencing.table import BY_NODES
from volagent.settings import Settings


def make_fencers(settings: Settings) -> Fencers:
    """By the settings, and by the operator's programs on this server."""
    failover, hooks = settings.failover, settings.hooks
    return Fencers(
        drivers=frozenset(map(str, BY_NODES)),
        has_hooks=lambda: bool(find_programs(hooks.directory)[0]),
        methods=failover.methods,
        watchdog_margin_s=failover.watchdog_margin_s,
    )
