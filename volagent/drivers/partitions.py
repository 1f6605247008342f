"""The partition of a disk that a volume names, for every driver with disks of several parts."""

from volagent.drivers.errors import Rejected, Transient
from volagent.host.contract import BlockDevice, Host
from volagent.host.errors import Absent, HostError, Unsupported
from volagent.objects.storage import PARTITION_MAX


async def choose_part(host: Host, disk: BlockDevice, number: int, subject: str) -> BlockDevice:
    """The disk itself for 0, else its partition. Raises `Transient`: the disk stays attached.

    `subject` is what people call the disk.
    """
    if not number:
        return disk
    try:
        return await host.devices.find_partition(disk, number)
    except Absent as error:
        raise Transient(
            f"{subject} ({disk.path}) has no partition {number}",
            remedy="leave partition out, or partition the volume",
        ) from error
    except Unsupported as error:
        raise Transient(str(error), remedy=error.detail) from error
    except HostError as error:
        raise Transient(
            f"{subject} ({disk.path}) cannot be asked for its partitions: {error}",
            remedy="see the kernel's log",
        ) from error


def check_number(number: int, field: str) -> int:
    """Raises `Rejected`, naming the field."""
    if not 0 <= number <= PARTITION_MAX:
        raise Rejected(f"{field}: {number} is not within 0 to {PARTITION_MAX}")
    return number


def read_number(text: str, field: str) -> int:
    """Of a number written as text; "" is 0. Raises `Rejected`, naming the field."""
    if text and not (text.isascii() and text.isdigit()):
        raise Rejected(
            f"{field}: {text!r} is no number",
            remedy=f'1 to {PARTITION_MAX}, such as "1"; leave it out for the whole disk',
        )
    return check_number(int(text[:6] or 0), field)
