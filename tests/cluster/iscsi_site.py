"""A storage array and a node with its disks: what the scenarios of iSCSI share."""

from dataclasses import dataclass
from typing import Any

from tests.cluster.lab.iscsi_initiator import IscsiInitiator
from tests.cluster.lab.iscsi_target import IscsiTarget
from tests.cluster.lab.machine import Hardware, Lab
from tests.cluster.lab.node import Json, VolagentNode

NODE = Hardware(memory_mib=640, disks_mib=(256,))
_SWEEP = """
[ ! -e /usr/sbin/iscsiadm.real ] || mv /usr/sbin/iscsiadm.real /usr/sbin/iscsiadm
for at in $(findmnt -rno TARGET | grep -E '^/run/(stages|pods)/' | tac); do umount -l $at; done
multipath -F || true
iscsiadm -m session --logout || true
rm -rf /etc/iscsi/nodes /etc/iscsi/static /etc/iscsi/send_targets
rm -rf /run/iscsi-volumes.json /run/volagent-iscsi /run/stages /run/pods
"""


@dataclass(frozen=True)
class Site:
    target: IscsiTarget
    node: IscsiInitiator
    daemon: VolagentNode


def make_site(lab: Lab) -> Site:
    """An array with disks under the numbers 0 to 2 and one that is not shown, and a node."""
    array = lab.add_machine("array", Hardware(memory_mib=768))
    machine = lab.add_machine("one", NODE)
    lab.start_all()
    target, node = IscsiTarget(array), IscsiInitiator(machine)
    target.serve()
    for lun, name in enumerate(("zero", "first", "second")):
        target.make_disk(name, 64)
        target.show(lun, name)
    target.make_disk("other", 64)
    node.start()
    return Site(target, node, VolagentNode(machine))


def check_clean(site: Site) -> None:
    """That nothing is left on the node; what is goes, so that the next test is judged by itself."""
    site.target.allow_everybody()
    try:
        assert site.node.sessions() == []
        assert site.node.disks() == []
        assert site.node.records() == ""
        assert site.node.links() == []
    except AssertionError:
        site.node.machine.run(_SWEEP, check=False)
        raise


def step(what: str, name: str, body: Json, **more: Any) -> Json:
    """A step of a volume's life, for `IscsiInitiator.drive`."""
    return {"do": what, "name": name, "source": body, **more}
