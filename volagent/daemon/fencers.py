"""What a cluster has to prove with that a lost node cannot write, as its servers know it."""

import os
from typing import Final

from volagent.control.failover.means import Fencers
from volagent.drivers.iscsi.driver import ISCSI
from volagent.settings import Settings

FENCING_DRIVERS: Final = frozenset({str(ISCSI)})
"""Whose storages can keep a node out when an agent asks them (`drivers/fencing`)."""
HOOK_DIR: Final = "/etc/volagent/fence.d"
"""The operator's programs that switch machines off, on the servers."""


def make_fencers(settings: Settings) -> Fencers:
    """By the settings, and by what is installed."""
    failover = settings.failover
    return Fencers(
        drivers=FENCING_DRIVERS,
        has_hooks=_has_hooks,
        methods=failover.methods,
        watchdog_margin_s=failover.watchdog_margin_s,
    )


def _has_hooks() -> bool:
    try:
        with os.scandir(HOOK_DIR) as entries:
            return any(each.is_file() and os.access(each.path, os.X_OK) for each in entries)
    except OSError:
        return False
