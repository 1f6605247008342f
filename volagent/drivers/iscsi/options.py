"""What an `iscsi` source asks for, decoded and made unambiguous. Pure.

Two declarations of one disk are recognised by `identity`: a target's name is the same on all of
its portals, and names differ by no letter's case (RFC 3722).
"""

import ipaddress
import re
from typing import Final

from volagent.drivers.contract import Options, SecretName, VolumeSource
from volagent.drivers.errors import Rejected
from volagent.drivers.options import decode_options
from volagent.drivers.partitions import read_number

DEFAULT_PORT: Final = 3260
DEFAULT_INTERFACE: Final = "default"
DEFAULT_FS_TYPE: Final = "ext4"
LUN_MAX: Final = 255
_PORT_MAX: Final = 65535
# open-iscsi keeps a target's settings in a directory of this name.
_TARGET: Final = re.compile(
    r"iqn\.\d{4}-\d{2}\.[a-z0-9.-]+(:[^,;*&$|/\s\x00-\x1f\x7f]+)?|eui\.[0-9a-z]{16}|naa\.[0-9a-z]{32}",
    re.ASCII,
)
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


class _SecretReference(Options, frozen=True):
    name: str = ""
    namespace: str = ""


class _Source(Options, frozen=True, rename="camel"):
    """`iscsi` of a pod's volume or a PersistentVolume."""

    target_portal: str
    iqn: str
    lun: int
    iscsi_interface: str | None = None
    fs_type: str | None = None
    read_only: bool | None = None
    portals: list[str] | None = None
    chap_auth_discovery: bool | None = None
    chap_auth_session: bool | None = None
    secret_ref: _SecretReference | None = None
    initiator_name: str | None = None


class IscsiOptions(Options, frozen=True):
    """Which disk, how it is reached, and what is on it."""

    iqn: str
    """In small letters."""
    lun: int
    portals: tuple[str, ...]
    """`ADDRESS:PORT`, an IPv6 address in brackets; in the order of their declaration."""
    interface: str = DEFAULT_INTERFACE
    """open-iscsi's name for the way out of this node."""
    initiator_name: str = ""
    """Who this node says it is; "" for the node's own name."""
    fs_type: str = DEFAULT_FS_TYPE
    discovery_chap: bool = False
    session_chap: bool = False
    secret: SecretName | None = None
    partition: int = 0
    """0: the whole disk."""

    @property
    def identity(self) -> str:
        """What the storage calls the disk, whichever way it is reached."""
        return name_disk(self.iqn, self.lun)


def name_disk(iqn: str, lun: int) -> str:
    """What a target's disk is called everywhere."""
    return f"{iqn}:lun-{lun}"


def read_iscsi_options(source: VolumeSource) -> IscsiOptions:
    """Decode and check a source. Raises `Rejected` naming the field."""
    declared = decode_options(source, _Source)
    if not 0 <= declared.lun <= LUN_MAX:
        raise Rejected(f"iscsi.lun: {declared.lun} is not within 0 to {LUN_MAX}")
    given = (declared.target_portal, *(declared.portals or ()))
    portals = tuple(
        parse_portal(text, "iscsi.targetPortal" if index == 0 else f"iscsi.portals[{index - 1}]")
        for index, text in enumerate(given)
    )
    interface = declared.iscsi_interface or DEFAULT_INTERFACE
    if not _INTERFACE.fullmatch(interface):
        raise Rejected(
            f"iscsi.iscsiInterface: {interface!r} is not the name of an interface",
            remedy="see `iscsiadm -m iface`, or leave it out",
        )
    chap = bool(declared.chap_auth_discovery or declared.chap_auth_session)
    return IscsiOptions(
        iqn=_parse_name(declared.iqn, "iscsi.iqn"),
        lun=declared.lun,
        portals=tuple(dict.fromkeys(portals)),
        interface=interface,
        initiator_name=_parse_name(declared.initiator_name, "iscsi.initiatorName")
        if declared.initiator_name
        else "",
        fs_type=declared.fs_type or DEFAULT_FS_TYPE,
        discovery_chap=bool(declared.chap_auth_discovery),
        session_chap=bool(declared.chap_auth_session),
        secret=_read_secret(declared.secret_ref, source) if chap else None,
        partition=read_number(source.partition, "annotation volagent.dev/partition"),
    )


def _read_secret(reference: _SecretReference | None, source: VolumeSource) -> SecretName:
    if reference is None or not reference.name:
        raise Rejected(
            "iscsi.secretRef: CHAP is asked for, and no secret is named",
            remedy="name a secret of the type kubernetes.io/iscsi-chap",
        )
    if reference.namespace and not source.persistent:
        raise Rejected(
            "iscsi.secretRef.namespace: a pod's secret is in its own namespace",
            remedy="leave it out",
        )
    return SecretName(reference.name, reference.namespace)


def _parse_name(text: str, field: str) -> str:
    name = text.lower()
    if not _TARGET.fullmatch(name) or name.endswith((".", "..")):
        raise Rejected(
            f"{field}: {text!r} is not the name of an iSCSI node",
            remedy="such as iqn.2026-01.com.example:storage.disk1",
        )
    return name


def parse_portal(text: str, field: str) -> str:
    """An address with its port: `10.0.0.5` → `10.0.0.5:3260`. Raises `Rejected`."""
    host, port = _split(text)
    number = int(port) if port.isascii() and port.isdigit() else 0
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        clean = host.lower() if _HOST_NAME.fullmatch(host) and ":" not in host else ""
    else:
        clean = f"[{address}]" if address.version == 6 else str(address)
    if not clean or not 0 < number <= _PORT_MAX:
        raise Rejected(
            f"{field}: {text!r} is not the address of a portal",
            remedy="such as 10.0.0.5, 10.0.0.5:3260, [fd00::5]:3260",
        )
    return f"{clean}:{number}"


def _split(text: str) -> tuple[str, str]:
    """Host without brackets, and port, of what may lack a port."""
    default = str(DEFAULT_PORT)
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", ""
        return host, rest[1:] if rest else default
    if text.count(":") > 1:
        return text, default
    host, colon, port = text.partition(":")
    return host, port if colon else default
