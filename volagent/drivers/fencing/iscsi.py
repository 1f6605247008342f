"""LUNs of iSCSI targets: nodes are kept out by persistent reservations (docs/adr/0009).

Run by a node that can reach the target, under that node's guard key. What the lost node may have
registered is derived from its attachment; a node that registered nothing is kept out all the same,
since a reservation stands afterwards.
"""

from dataclasses import dataclass

from volagent.drivers.errors import DriverError, Transient, Uncertain
from volagent.drivers.fencing.contract import FenceOrder, NoProof
from volagent.drivers.fencing.unable import SWITCH_OFF
from volagent.drivers.iscsi.driver import make_wish
from volagent.drivers.iscsi.options import read_iscsi_options
from volagent.host.errors import Busy, HostError, Unsupported
from volagent.host.iscsi.contract import (
    Excludes,
    Exclusion,
    LunMissing,
    LunNameless,
    NoSession,
    Reserved,
    Withdrawn,
)
from volagent.objects.reservation_keys import attachment_key, guard_key, guarded


@dataclass(frozen=True, slots=True)
class IscsiFence:
    """`Fences` by the node that it runs on."""

    initiator: Excludes
    node: str
    """Who runs it."""

    async def fence(self, order: FenceOrder) -> str:
        """Take the node's registration away, leave a reservation, read both back."""
        options = read_iscsi_options(order.source)
        wish = make_wish(options, order.credentials, read_only=False)
        if order.node == self.node:
            raise NoProof(f"{order.node} cannot fence itself", remedy="ask another node")
        key = attachment_key(order.attachment_uid, order.node)
        keys = (key, guarded(key), guard_key(order.node))
        try:
            exclusion = Exclusion(keys, guard_key(self.node), order.confirm)
            return await self.initiator.keep_out(wish, exclusion)
        except HostError as error:
            raise _explain(error, f"LUN {options.lun} of {options.iqn}") from error


def _explain(error: HostError, lun: str) -> DriverError:
    if isinstance(error, Unsupported):
        return NoProof(f"{lun} cannot keep a node out: {error}", remedy=SWITCH_OFF)
    if isinstance(error, Reserved):
        return NoProof(
            f"{lun} is reserved by somebody who is not volagent: {error.detail}", remedy=SWITCH_OFF
        )
    if isinstance(error, Withdrawn):
        return Transient(f"{lun} was not fenced: {error.detail}")
    if isinstance(error, NoSession | LunMissing | LunNameless | Busy):
        return Transient(
            f"{lun} was not fenced: {error}",
            remedy="see whether this node reaches the target; another node may be asked",
        )
    return Uncertain(f"{lun} may be fenced or not: {error}", remedy="it is tried again")
