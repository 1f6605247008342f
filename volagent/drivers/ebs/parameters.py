"""A class's parameters for EBS volumes, and what is asked of the API for them. Pure.

Names and defaults are those of Kubernetes' in-tree provisioner (any case: `iopsPerGB`), with
`iops` and `throughput` of the CSI driver. Ranges that AWS may widen are left to the API to judge;
sizes are checked, because a claim that is far too small for its type would cost a surprising sum if
it was rounded up in silence.
Source: kubernetes/legacy-cloud-providers aws, `populateVolumeOptions`; EBS User Guide.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from volagent.drivers.ebs.api import Value
from volagent.drivers.errors import Rejected

DEFAULT_TYPE: Final = "gp2"
DEFAULT_FS_TYPE: Final = "ext4"
FS_TYPES: Final = ("ext4", "xfs", "btrfs")
SIZES_GIB: Final = {
    "gp2": (1, 16384), "gp3": (1, 65536), "io1": (4, 16384), "io2": (4, 65536),
    "st1": (125, 16384), "sc1": (125, 16384), "standard": (1, 1024),
}  # fmt: skip
"""Type: smallest and largest volume."""
_IOPS_TYPES: Final = ("io1", "io2", "gp3")
_IOPS_RANGE: Final = {"io1": (100, 64000), "io2": (100, 256000), "gp3": (3000, 80000)}
"""What `iopsPerGB` times the size is kept within."""
_FS_TYPE: Final = "csi.storage.k8s.io/fstype"
_NAMES: Final = {
    name.lower(): name
    for name in (
        "type", "zone", "zones", "iopsPerGB", "iops", "throughput", "encrypted", "kmsKeyId",
        "fsType", _FS_TYPE,
    )
}  # fmt: skip


class EbsParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a class says."""

    type: str = DEFAULT_TYPE
    zones: tuple[str, ...] = ()
    """Sorted; () leaves it to the topology."""
    iops_per_gib: int = 0
    iops: int = 0
    throughput_mibps: int = 0
    encrypted: bool = False
    kms_key: str = ""
    fs_type: str = DEFAULT_FS_TYPE


def read_parameters(parameters: Mapping[str, str]) -> EbsParameters:
    """Decode a class's parameters, strictly. Raises `Rejected` naming the one that is wrong."""
    given: dict[str, str] = {}
    for name, value in parameters.items():
        known = _NAMES.get(name.lower())
        if known is None:
            raise Rejected(
                f"unknown parameter {name!r} for kubernetes.io/aws-ebs",
                remedy=f"parameters: {', '.join(_NAMES.values())}",
            )
        given[known] = value.strip()
    read = EbsParameters(
        type=given.get("type") or DEFAULT_TYPE,
        zones=_read_zones(given),
        iops_per_gib=_read_number(given, "iopsPerGB"),
        iops=_read_number(given, "iops"),
        throughput_mibps=_read_number(given, "throughput"),
        encrypted=_read_flag(given, "encrypted"),
        kms_key=given.get("kmsKeyId", ""),
        fs_type=given.get(_FS_TYPE) or given.get("fsType") or DEFAULT_FS_TYPE,
    )
    _check_together(read)
    return read


def _check_together(read: EbsParameters) -> None:
    if read.type not in SIZES_GIB:
        raise Rejected(f"type: {read.type!r} is unknown", remedy=f"one of {', '.join(SIZES_GIB)}")
    if read.fs_type not in FS_TYPES:
        raise Rejected(
            f"fsType: {read.fs_type!r} is not made here", remedy=f"one of {', '.join(FS_TYPES)}"
        )
    if read.iops and read.iops_per_gib:
        raise Rejected("iops and iopsPerGB are both given", remedy="give one of them")
    if (read.iops or read.iops_per_gib) and read.type not in _IOPS_TYPES:
        raise Rejected(
            f"type {read.type} takes no iops", remedy=f"types that do: {', '.join(_IOPS_TYPES)}"
        )
    if read.type in ("io1", "io2") and not (read.iops or read.iops_per_gib):
        raise Rejected(f"type {read.type} needs iopsPerGB or iops", remedy='such as "10", quoted')
    if read.throughput_mibps and read.type != "gp3":
        raise Rejected(f"type {read.type} takes no throughput", remedy="gp3 does")
    if read.kms_key and not read.encrypted:
        raise Rejected("kmsKeyId is given without encrypted", remedy='set encrypted to "true"')


def _read_zones(given: Mapping[str, str]) -> tuple[str, ...]:
    zone, zones = given.get("zone", ""), given.get("zones", "")
    if zone and zones:
        raise Rejected(
            "both zone and zones StorageClass parameters must not be used at the same time",
            remedy="use allowedTopologies instead of either",
        )
    if zone and "," in zone:
        raise Rejected(f"zone: {zone!r} is no single zone", remedy="use zones")
    found = sorted({each.strip() for each in (zone or zones).split(",")} - {""})
    if (zone or zones) and not found:
        raise Rejected("zones: names no zone")
    return tuple(found)


def _read_number(given: Mapping[str, str], name: str) -> int:
    text = given.get(name, "")
    if not text:
        return 0
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or int(text) == 0:
        raise Rejected(f"{name}: {text!r} is no whole number above 0", remedy='such as "100"')
    return int(text)


def _read_flag(given: Mapping[str, str], name: str) -> bool:
    text = given.get(name, "false").lower()
    if text not in ("true", "false"):
        raise Rejected(f"{name}: {given[name]!r} is neither", remedy='"true" or "false", quoted')
    return text == "true"


def round_up_gib(size_bytes: int) -> int:
    """Volumes come in whole GiB."""
    return max(1, -(-size_bytes >> 30))


def creation(read: EbsParameters, size_gib: int) -> dict[str, Value]:
    """What CreateVolume is asked beside zone, token and tags. Raises `Rejected` for the size."""
    smallest, largest = SIZES_GIB[read.type]
    if not smallest <= size_gib <= largest:
        raise Rejected(
            f"a volume of type {read.type} has {smallest} to {largest} GiB, {size_gib} are asked",
            remedy="change the claim's size, or use a class with another type",
        )
    asked: dict[str, Value] = {"Size": size_gib, "VolumeType": read.type}
    iops = read.iops
    if read.iops_per_gib:
        low, high = _IOPS_RANGE[read.type]
        iops = min(max(read.iops_per_gib * size_gib, low), high)
    if iops:
        asked["Iops"] = iops
    if read.throughput_mibps:
        asked["Throughput"] = read.throughput_mibps
    if read.encrypted:
        asked["Encrypted"] = True
    if read.kms_key:
        asked["KmsKeyId"] = read.kms_key
    return asked
