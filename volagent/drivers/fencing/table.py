"""Who can keep nodes out of disks, by the driver of the disks."""

from typing import Final

from volagent.drivers.contract import DriverName
from volagent.drivers.ebs.provisioner import EBS
from volagent.drivers.ebs.store import BlockStore
from volagent.drivers.fencing.contract import Fences, FenceTable
from volagent.drivers.fencing.ebs import EbsFence
from volagent.drivers.fencing.iscsi import IscsiFence
from volagent.drivers.fencing.unable import Unable
from volagent.drivers.iscsi.driver import ISCSI
from volagent.drivers.nbd.options import NBD
from volagent.host.iscsi.contract import Excludes

BY_NODES: Final = frozenset({ISCSI})
"""Kinds of disk out of which another node can keep a lost one (`executor` of a Fencing)."""


def make_node_fences(
    excludes: Excludes | None, node: str, block_store: BlockStore | None = None
) -> FenceTable:
    """What a node's agent can be asked for. `excludes`: its initiator, if it has one."""
    table: dict[DriverName, Fences] = {NBD: Unable(NBD)}
    if excludes is not None:
        table[ISCSI] = IscsiFence(excludes, node)
    if block_store is not None:
        table[EBS] = EbsFence(block_store.volumes)
    return table
