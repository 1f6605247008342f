"""What a cluster has to prove with that a lost node cannot write, as its servers know it."""

from typing import Final

from volagent.control.failover.means import Fencers
from volagent.drivers.fencing.hooks import find_programs
from volagent.drivers.iscsi.driver import ISCSI
from volagent.settings import Settings

FENCING_DRIVERS: Final = frozenset({str(ISCSI)})
"""Whose storages can keep a node out when an agent asks them (`drivers/fencing`)."""


def make_fencers(settings: Settings) -> Fencers:
    """By the settings, and by what is installed."""
    failover = settings.failover
    return Fencers(
        drivers=FENCING_DRIVERS,
        has_hooks=lambda: bool(find_programs(settings.hooks.directory)[0]),
        methods=failover.methods,
        watchdog_margin_s=failover.watchdog_margin_s,
    )
