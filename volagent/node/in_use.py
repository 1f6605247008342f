"""Which volumes must not be detached from this node, as `status.volumesInUse` names them. Pure."""

from volagent.node.actual import Actual
from volagent.node.records import Held, VolumeRecord
from volagent.objects.attachments import unique_name


def volumes_in_use(actual: Actual) -> list[str]:
    """Unique names of what has a device or a mount here, or may have one."""
    names = []
    for key in actual.keys():  # noqa: SIM118  # a method, not a mapping
        record = actual.get(key)
        if record is not None and _is_held(record):
            body = record.source.body if record.source else {}
            names.append(unique_name(record.driver, body.get("volumeHandle", ""), record.name))
    return sorted(names)


def _is_held(record: VolumeRecord) -> bool:
    return record.attached is not Held.NO or record.staged is not Held.NO
