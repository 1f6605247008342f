"""The host that the daemon works on: every part of the contract, on this machine's kernel."""

from volagent.host.contract import Host
from volagent.host.devices import RealDevices
from volagent.host.gauges import RealGauges
from volagent.host.holders import RealHolders
from volagent.host.mounts import RealMounts
from volagent.host.mounttable import choose_reader
from volagent.host.payload import PayloadWriter, read_boot_mark
from volagent.host.process import Helpers
from volagent.host.trees import RealTrees


def make_host(*, helpers: Helpers) -> Host:
    """A host whose slow and hanging calls go by way of `helpers`, which the caller closes."""
    reader = choose_reader()
    return Host(
        mounts=RealMounts(helpers=helpers, reader=reader),
        trees=RealTrees(
            helpers=helpers, reader=reader, payloads=PayloadWriter(boot_mark=read_boot_mark())
        ),
        devices=RealDevices(helpers=helpers),
        holders=RealHolders(helpers=helpers, reader=reader),
        gauges=RealGauges(helpers=helpers, reader=reader),
    )
