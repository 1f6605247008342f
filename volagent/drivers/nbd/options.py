"""What a declared NBD volume says: which export of which server, what is on it, how to log in.

    csi: {driver: nbd.volagent.dev, volumeHandle: disk1, fsType: ext4, readOnly: false,
          volumeAttributes: {server: 10.0.0.5, port: "10809", export: disk1, partition: "1",
                             tls: "false"},
          nodeStageSecretRef: {name: nbd-tls, namespace: default}}

Pods cannot declare one inline: a server does not tell clients apart, so that would let their
authors write to any export that this machine can reach. Pure.
"""

import re
from typing import Any, Final

from volagent.drivers.block import FORMATS
from volagent.drivers.contract import (
    Credentials,
    DriverName,
    Options,
    SecretName,
    VolumeSource,
)
from volagent.drivers.errors import Rejected
from volagent.drivers.options import decode_options
from volagent.drivers.partitions import read_number

NBD: Final = DriverName("nbd.volagent.dev")
DEFAULT_FS_TYPE: Final = "ext4"
DEFAULT_PORT: Final = 10809
EXPORT_BYTES_MAX: Final = 255
_ATTRIBUTES: Final = ("server", "port", "export", "partition", "tls", "tlsHostname")
# Provisioners and Kubernetes itself add attributes under these prefixes.
_FOREIGN_ATTRIBUTES: Final = ("storage.kubernetes.io/", "csi.storage.k8s.io/")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\.?")
_IPV6: Final = re.compile(r"[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?")


class _SecretRef(Options, frozen=True):
    """`nodeStageSecretRef`."""

    name: str
    namespace: str = ""


class _Source(Options, frozen=True, rename="camel"):
    """`csi` of a PersistentVolume. Only the secret for staging is used."""

    driver: str
    volume_handle: str = ""
    read_only: bool | None = None
    fs_type: str | None = None
    volume_attributes: dict[str, str] | None = None
    controller_publish_secret_ref: dict[str, Any] | None = None
    node_stage_secret_ref: _SecretRef | None = None
    node_publish_secret_ref: dict[str, Any] | None = None
    controller_expand_secret_ref: dict[str, Any] | None = None
    node_expand_secret_ref: dict[str, Any] | None = None


class NbdOptions(Options, frozen=True):
    """Which export, and what it should hold."""

    server: str
    export: str
    port: int = DEFAULT_PORT
    fs_type: str = DEFAULT_FS_TYPE
    tls: bool = False
    tls_host_name: str = ""
    """The name in the server's certificate, when it is not `server`."""
    secret: SecretName | None = None
    """With TLS: `ca.crt`, and `tls.crt` with `tls.key` when the server asks who we are."""
    partition: int = 0
    """0: the whole export."""

    @property
    def identity(self) -> str:
        """What the export is called everywhere; the kernel keeps it with the device."""
        return f"{self.server}:{self.port}/{self.export}"

    @property
    def backend(self) -> str:
        """The bulkhead: the server."""
        return f"nbd:{self.server}:{self.port}"


def read_nbd_options(source: VolumeSource) -> NbdOptions:
    """Decode strictly. Raises `Rejected` naming the field or attribute."""
    if not source.persistent:
        raise Rejected(
            f"{NBD} is not offered inline in a pod: it would let the pod use any export",
            remedy="declare a PersistentVolume and a claim",
        )
    declared = decode_options(source, _Source)
    attributes = declared.volume_attributes or {}
    for key in attributes:
        if key not in _ATTRIBUTES and not key.startswith(_FOREIGN_ATTRIBUTES):
            raise Rejected(
                f"csi.volumeAttributes: unknown attribute {key!r} for {NBD}",
                remedy=f"attributes of {NBD}: {', '.join(_ATTRIBUTES)}",
            )
    fs_type = declared.fs_type or DEFAULT_FS_TYPE
    if fs_type not in FORMATS:
        raise Rejected(
            f"csi.fsType: {fs_type!r} is not offered by {NBD}",
            remedy=f"one of {', '.join(FORMATS)}",
        )
    tls = _read_flag(attributes.get("tls", "false"))
    reference = declared.node_stage_secret_ref
    return NbdOptions(
        server=_read_host("server", attributes.get("server", "")),
        export=_read_export(attributes.get("export"), declared.volume_handle),
        port=_read_port(attributes.get("port", str(DEFAULT_PORT))),
        fs_type=fs_type,
        tls=tls,
        tls_host_name=_read_tls_host_name(attributes.get("tlsHostname"), tls=tls),
        secret=_read_secret(reference, tls=tls),
        partition=read_number(attributes.get("partition", ""), "csi.volumeAttributes.partition"),
    )


def read_tls_material(options: NbdOptions, credentials: Credentials) -> dict[str, str]:
    """The secret's PEM texts as `host.nbd_link.Target` takes them. Raises `Rejected`."""
    material = {
        "ca": credentials.text("ca.crt"),
        "certificate": credentials.text("tls.crt"),
        "key": credentials.text("tls.key"),
        "host_name": options.tls_host_name or options.server,
    }
    if not material["ca"]:
        raise Rejected(
            f"the secret for {options.identity} has no ca.crt",
            remedy="put the certificate of the authority that signed the server's into it",
        )
    if bool(material["certificate"]) is not bool(material["key"]):
        raise Rejected(
            f"the secret for {options.identity} has only one of tls.crt and tls.key",
            remedy="put both of them into it, or none",
        )
    return material


def _read_host(attribute: str, text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not (_HOST_NAME.fullmatch(text) or _IPV6.fullmatch(bare)):
        raise Rejected(
            f"csi.volumeAttributes.{attribute}: {text!r} is no host name or address",
            remedy="such as nbd.example.org, 192.0.2.10 or 2001:db8::10",
        )
    return bare


def _read_export(text: str | None, handle: str) -> str:
    """The export's name; the volume's handle when it is left out."""
    name = handle if text is None else text
    if not name or not name.isprintable() or len(name.encode()) > EXPORT_BYTES_MAX:
        raise Rejected(
            f"csi.volumeAttributes.export: {name!r} cannot name an export",
            remedy=f"1 to {EXPORT_BYTES_MAX} bytes, printable, as the server calls it",
        )
    if name != name.strip():
        raise Rejected(f"csi.volumeAttributes.export: {name!r} begins or ends with a space")
    return name


def _read_port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:6]) < 1 << 16:
        raise Rejected(
            f"csi.volumeAttributes.port: {text!r} is no port", remedy='1 to 65535, such as "10809"'
        )
    return int(text)


def _read_flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise Rejected(
            f"csi.volumeAttributes.tls: {text!r} is neither", remedy='"true" or "false", quoted'
        )
    return text == "true"


def _read_tls_host_name(text: str | None, *, tls: bool) -> str:
    if text is None:
        return ""
    if not tls:
        raise Rejected('csi.volumeAttributes.tlsHostname: is of no use while tls is not "true"')
    return _read_host("tlsHostname", text)


def _read_secret(reference: _SecretRef | None, *, tls: bool) -> SecretName | None:
    if not tls:
        return None
    if reference is None or not reference.name:
        raise Rejected(
            "csi.nodeStageSecretRef: is needed for TLS",
            remedy="name a secret with ca.crt, and tls.crt and tls.key if the server wants them",
        )
    return SecretName(reference.name, reference.namespace)
