"""Puts the initiator of a machine together."""

from typing import TYPE_CHECKING

from volagent.host.iscsi.claims import Claims
from volagent.host.iscsi.initiator import RealInitiator
from volagent.host.iscsi.known import KnownClaims, KnownDisks
from volagent.host.iscsi.persistent import RealPersistent
from volagent.host.iscsi.records import Records
from volagent.host.iscsi.sysfs import Sysfs

if TYPE_CHECKING:
    from volagent.host.process import Helpers


def make_initiator(*, helpers: "Helpers", run_dir: str, reserves: bool = False) -> RealInitiator:
    """The initiator of this machine; what it notes lies in the daemon's run directory."""
    return RealInitiator(
        helpers=helpers,
        known=KnownDisks(f"{run_dir}/iscsi"),
        claims=Claims(RealPersistent(helpers), KnownClaims(f"{run_dir}/iscsi")),
        sysfs=Sysfs(),
        records=Records(),
        reserves=reserves,
    )
