"""What a starting agent looks at before it does anything; nothing here changes a mount.

`recover.py` has the pure comparison; here are the looks at the kernel and at the runtime.
"""

from collections.abc import Collection, Sequence

from volagent.drivers.contract import HeldMount, Phase
from volagent.drivers.layout import Layout
from volagent.host.contract import BlockDevice, Host
from volagent.node.actual import Actual
from volagent.node.index import DesiredIndex
from volagent.node.records import Held, VolumeRecord
from volagent.node.recover import by_id, compare_record
from volagent.objects.meta import PodUid
from volagent.objects.pod import Pod
from volagent.observe.logs import get_logger
from volagent.runtime.contract import Runner, RuntimeUnavailable

THIS_MACHINE = "local"
"""The backend of devices that are gone when the kernel is."""

_log = get_logger("node")


async def find_outlived(runner: Runner, declared: Collection[PodUid]) -> Sequence[Pod] | None:
    """Pods with containers but without an object; None while the runtime does not answer."""
    try:
        return await runner.find_orphans(declared)
    except RuntimeUnavailable as error:
        _log.warning("runtime not asked for containers of unknown pods", error=str(error))
        return None


def compare_with_kernel(host: Host, layout: Layout, actual: Actual) -> None:
    """Make every record say what the mount table and the loop devices bear out."""
    records = [record for record in map(actual.get, actual.keys()) if record is not None]
    if not records:
        return
    mounts = by_id(host.mounts.read_table())
    loops: dict[str, BlockDevice] = {}
    if any(record.device is not None for record in records):
        loops = host.devices.find_loops()
    for record in records:
        plain = _plain_directories(layout, record)
        missing = {mount.path for mount in plain if _is_missing(host, mount)}
        compared = compare_record(record, mounts, loops, missing)
        if compared is not record:
            actual.put(compared)


def suspect_everything(
    host: Host, layout: Layout, index: DesiredIndex, actual: Actual, uid: PodUid
) -> None:
    """A pod that was deleted while nobody looked: all it may have counts as unknown.

    After a reboot there are no records, but what was on disk (an emptyDir) is still there, and what
    a server keeps: a disk that it has attached to this machine.
    """
    resolved = index.pod(uid)
    if resolved is None or not host.trees.list_dir(layout.pod(uid)):
        return
    for volume in resolved.volumes.values():
        wanted = index.wanted(volume.spec.key)
        record = actual.get(volume.spec.key)
        if wanted is not None and (record is None or uid not in record.uses):
            mount = HeldMount(volume.use.target)
            actual.set_use(wanted, uid, Held.UNKNOWN, mount, volume.use.pod_name)
        elsewhere = Phase.ATTACH in volume.phases and volume.spec.backend != THIS_MACHINE
        if wanted is not None and record is None and elsewhere:
            actual.set_attached(wanted, Held.UNKNOWN)


def _plain_directories(layout: Layout, record: VolumeRecord) -> list[HeldMount]:
    below = f"{layout.pods}/"
    return [
        use.mount
        for use in record.uses.values()
        if not use.mount.mount_id and use.held is Held.YES and use.mount.path.startswith(below)
    ]


def _is_missing(host: Host, mount: HeldMount) -> bool:
    parent, _, name = mount.path.rpartition("/")
    return name not in host.trees.list_dir(parent)
