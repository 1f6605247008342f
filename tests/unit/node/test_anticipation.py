"""What a node does for a disk before it is its own."""

import pytest

from volagent.drivers.contract import (
    Attached,
    Done,
    DriverName,
    HeldDevice,
    Options,
    Phase,
    VolumeKey,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Waiting
from volagent.drivers.layout import Layout
from volagent.node.actual import Actual
from volagent.node.attachment import AttachmentGate, attachment_of
from volagent.node.execute import make_executor
from volagent.node.plan import Attach, Detach, Wanted
from volagent.node.records import Held, RecordBook
from volagent.objects.meta import ObjectMeta
from volagent.objects.storage import AttachedVolume, Node, NodeStatus

DRIVER = DriverName("disk.test")
SPEC = VolumeSpec(VolumeKey("pv/a"), DRIVER, "a", Options(), identity="disk-a")
DISK = attachment_of(SPEC)
GRANTED = Node(
    metadata=ObjectMeta(name="n", resource_version="7"),
    status=NodeStatus(volumes_attached=[AttachedVolume(DISK)], volumes_in_use=[DISK]),
)


class Disks:
    """A driver that notes what it is asked; `meanwhile` happens while it gets ready."""

    name = DRIVER

    def __init__(self):
        self.asked = []
        self.meanwhile = lambda: None

    async def anticipate(self, volume):
        self.asked.append("anticipate")
        self.meanwhile()

    async def detach(self, name, device):
        self.asked.append("detach")
        return Done("")

    async def attach(self, volume):
        self.asked.append("attach")
        return Attached("", HeldDevice("/dev/sdx", "8:0", "wwid:x"))


@pytest.fixture
def gate():
    return AttachmentGate()


@pytest.fixture
def attaching(gate, tmp_path):
    book = RecordBook(str(tmp_path / "records"), boot_id="boot-1")
    book.open()
    actual = Actual(book)
    wanted = Wanted(SPEC, VolumeSource("disk", {}), (Phase.ATTACH,), {})

    async def find_attachment(_spec):
        return "uid-1"

    async def fetch_permission(_spec):
        raise AssertionError("this driver reserves nothing")

    async def do(disks, step=Attach):
        executor = make_executor(
            {DRIVER: disks}, actual, Layout(str(tmp_path)), None,
            gate=gate, find_attachment=find_attachment, fetch_permission=fetch_permission,
        )  # fmt: skip
        await executor.run(step(SPEC.key), wanted)
        return actual.get(SPEC.key)

    do.record = lambda: actual.get(SPEC.key)
    yield do
    book.close()


async def test_disk_of_another_node_is_anticipated_and_not_touched(attaching, gate):
    disks = Disks()
    with pytest.raises(Waiting):
        await attaching(disks)
    assert disks.asked == ["anticipate"]
    assert attaching.record() is None
    assert gate.observe(GRANTED) == {SPEC.key}


async def test_disk_that_becomes_ours_meanwhile_is_attached_at_once(attaching, gate):
    disks = Disks()
    disks.meanwhile = lambda: gate.observe(GRANTED)
    assert (await attaching(disks)).attached is Held.YES
    assert disks.asked == ["anticipate", "attach"]


async def test_disk_that_is_ours_is_attached_without_more(attaching, gate):
    disks = Disks()
    gate.observe(GRANTED)
    await attaching(disks)
    assert disks.asked == ["attach"]


async def test_disk_that_is_taken_away_is_given_back(attaching, gate):
    disks = Disks()
    gate.observe(GRANTED)
    await attaching(disks)
    assert not gate.was_given_back(SPEC.key)
    assert await attaching(disks, Detach) is None
    assert gate.was_given_back(SPEC.key)
