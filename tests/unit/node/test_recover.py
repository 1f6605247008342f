import msgspec

from volagent.drivers.contract import DriverName, HeldDevice, HeldMount, VolumeKey
from volagent.host.contract import BlockDevice, MountEntry, MountId, MountTable
from volagent.node.records import Held, UseRecord, VolumeRecord
from volagent.node.recover import by_id, compare_record
from volagent.objects.meta import PodUid

POD = PodUid("u")
replace = msgspec.structs.replace


def a_mount(mount_id: int, path: str) -> MountEntry:
    return MountEntry(MountId(mount_id), MountId(1), "0:1", "/", path, "tmpfs", "tmpfs")


def a_record(use=None, **fields) -> VolumeRecord:
    uses = {POD: use} if use is not None else {}
    return VolumeRecord(VolumeKey("k"), DriverName("d"), "v", uses=uses, **fields)


TABLE = by_id(MountTable((a_mount(7, "/pods/u/v"), a_mount(9, "/global"))))


def compared(record, loops=(), missing=()):
    return compare_record(record, TABLE, dict(loops), missing)


def test_record_stays_the_same_object_when_the_kernel_bears_it_out():
    record = a_record(UseRecord(Held.YES, HeldMount("/pods/u/v", 7)))
    assert compared(record) is record


def test_use_becomes_no_when_its_mount_is_gone():
    record = a_record(UseRecord(Held.YES, HeldMount("/pods/u/v", 8)))
    assert compared(record).uses[POD] == UseRecord(Held.NO, HeldMount("/pods/u/v"))


def test_use_becomes_no_when_its_mount_id_stands_at_another_path():
    record = a_record(UseRecord(Held.YES, HeldMount("/pods/u/other", 7)))
    assert compared(record).uses[POD].held is Held.NO


def test_unknown_stays_unknown_when_a_mount_stands_there():
    record = a_record(UseRecord(Held.UNKNOWN, HeldMount("/pods/u/v")))
    assert compared(record) is record


def test_plain_directory_is_believed_unless_it_is_missing():
    record = a_record(UseRecord(Held.YES, HeldMount("/pods/u/dir")))
    assert compared(record) is record
    assert compared(record, missing={"/pods/u/dir"}).uses[POD].held is Held.NO


def test_stage_becomes_no_when_its_mount_is_gone():
    record = a_record(staged=Held.YES, stage=HeldMount("/global", 10))
    assert compared(record).staged is Held.NO


def test_device_becomes_unknown_when_the_loop_device_shows_another_file():
    device = HeldDevice("/dev/loop3", "7:3", "loop:1:22")
    record = a_record(attached=Held.YES, device=device)
    same = BlockDevice("/dev/loop3", "7:3", "loop:1:22", 1)
    other = BlockDevice("/dev/loop3", "7:3", "loop:1:23", 1)
    assert compared(record, loops={"/dev/loop3": same}.items()) is record
    assert compared(record, loops={"/dev/loop3": other}.items()).attached is Held.UNKNOWN
    assert compared(record).attached is Held.UNKNOWN
