"""The attachers of a server."""

from volagent.drivers.attaching.contract import AttacherTable


def make_attachers() -> AttacherTable:
    """Every attacher, by the driver of its disks."""
    return {}
