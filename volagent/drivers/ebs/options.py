"""`awsElasticBlockStore` of a pod's volume or a PersistentVolume, decoded and checked. Pure."""

import msgspec

from volagent.drivers.contract import Options, VolumeSource
from volagent.drivers.ebs.names import parse_volume_name
from volagent.drivers.ebs.parameters import DEFAULT_FS_TYPE
from volagent.drivers.options import decode_options
from volagent.drivers.partitions import check_number


class _Source(Options, frozen=True, rename="camel"):
    volume_id: str = msgspec.field(name="volumeID")
    fs_type: str | None = None
    partition: int | None = None
    read_only: bool | None = None


class EbsOptions(Options, frozen=True):
    """Which disk, which part of it, and what is on it."""

    volume_id: str
    fs_type: str = DEFAULT_FS_TYPE
    partition: int = 0
    """0: the whole disk."""


def read_ebs_options(source: VolumeSource) -> EbsOptions:
    """Raises `Rejected` naming the field."""
    declared = decode_options(source, _Source)
    partition = check_number(declared.partition or 0, "awsElasticBlockStore.partition")
    volume_id = parse_volume_name(declared.volume_id).id
    return EbsOptions(volume_id, declared.fs_type or DEFAULT_FS_TYPE, partition)
