"""Volume sources: the fields under a pod's `spec.volumes[]` and a PersistentVolume's `spec`.

Field for field the `v1` API. A source that volagent has no driver for yet is still decoded as far
as its name, so that the pod is refused with the name of the unsupported kind.
"""

from typing import Any

import msgspec

from volagent.objects.meta import LocalObjectReference, SecretReference, View


class KeyToPath(View, frozen=True):
    """One projected key: `key` becomes the file `path` (relative, no `..`), `mode` 0..0777."""

    key: str
    path: str
    mode: int | None = None


class ObjectFieldSelector(View, frozen=True):
    """`fieldRef`: a field of the pod itself."""

    field_path: str
    api_version: str = "v1"


class ResourceFieldSelector(View, frozen=True):
    """`resourceFieldRef`: a container's limit or request, divided by `divisor`, rounded up."""

    resource: str
    container_name: str = ""
    divisor: str | int = "0"


class EmptyDirSource(View, frozen=True):
    """`emptyDir`: scratch space with the pod's life; `medium` "" (disk), Memory, HugePages*."""

    medium: str = ""
    size_limit: str | int | None = None


class HostPathSource(View, frozen=True):
    """`hostPath`: a path of the VM; `type` "" means no check."""

    path: str
    type: str | None = None


class SecretSource(View, frozen=True):
    """`secret` as a volume of its own."""

    secret_name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class ConfigMapSource(View, frozen=True):
    """`configMap` as a volume of its own, and inside `projected`."""

    name: str = ""
    items: list[KeyToPath] | None = None
    default_mode: int | None = None
    optional: bool | None = None


class SecretProjection(View, frozen=True):
    """`secret` inside `projected`."""

    name: str = ""
    items: list[KeyToPath] | None = None
    optional: bool | None = None


class DownwardItem(View, frozen=True):
    """One file of a downwardAPI volume."""

    path: str
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPISource(View, frozen=True):
    """`downwardAPI`: facts about the pod as files."""

    items: list[DownwardItem] | None = None
    default_mode: int | None = None


class ServiceAccountTokenProjection(View, frozen=True):
    """`serviceAccountToken` inside `projected`."""

    path: str
    audience: str = ""
    expiration_seconds: int | None = None


class Projection(View, frozen=True):
    """One source of a projected volume; exactly one field is set."""

    secret: SecretProjection | None = None
    config_map: ConfigMapSource | None = None
    downward_api: DownwardAPISource | None = msgspec.field(default=None, name="downwardAPI")
    service_account_token: ServiceAccountTokenProjection | None = None


class ProjectedSource(View, frozen=True):
    """`projected`: several sources in one directory; of overlapping paths the last wins."""

    sources: list[Projection] | None = None
    default_mode: int | None = None


class NFSSource(View, frozen=True):
    """`nfs`: an export of a server."""

    server: str
    path: str
    read_only: bool = False


class LocalSource(View, frozen=True):
    """`local` of a PersistentVolume: a directory or a block device of one VM."""

    path: str
    fs_type: str | None = None


class EBSSource(View, frozen=True):
    """`awsElasticBlockStore`, of a pod or a PersistentVolume: a disk of Amazon's block store."""

    volume_id: str = msgspec.field(name="volumeID")
    fs_type: str | None = None
    partition: int | None = None
    read_only: bool | None = None


class ISCSISource(View, frozen=True):
    """`iscsi` of a pod: a disk (LUN) of an iSCSI target."""

    target_portal: str
    iqn: str
    lun: int
    iscsi_interface: str | None = None
    fs_type: str | None = None
    read_only: bool | None = None
    portals: list[str] | None = None
    """Further addresses of the target."""
    chap_auth_discovery: bool | None = None
    chap_auth_session: bool | None = None
    secret_ref: LocalObjectReference | None = None
    initiator_name: str | None = None


class PersistentISCSISource(View, frozen=True):
    """`iscsi` of a PersistentVolume: its secret may be in any namespace."""

    target_portal: str
    iqn: str
    lun: int
    iscsi_interface: str | None = None
    fs_type: str | None = None
    read_only: bool | None = None
    portals: list[str] | None = None
    chap_auth_discovery: bool | None = None
    chap_auth_session: bool | None = None
    secret_ref: SecretReference | None = None
    initiator_name: str | None = None


class CSISource(View, frozen=True):
    """`csi` of a PersistentVolume (with `volumeHandle`) or inline in a pod (without)."""

    driver: str
    volume_handle: str = ""
    read_only: bool | None = None
    fs_type: str | None = None
    volume_attributes: dict[str, str] | None = None
    controller_publish_secret_ref: SecretReference | None = None
    node_stage_secret_ref: SecretReference | None = None
    node_publish_secret_ref: SecretReference | None = None
    node_expand_secret_ref: SecretReference | None = None


class ClaimSource(View, frozen=True):
    """`persistentVolumeClaim`: a claim of the pod's namespace."""

    claim_name: str
    read_only: bool = False


class ClaimTemplate(View, frozen=True):
    """`volumeClaimTemplate`: what the claim will look like."""

    metadata: dict[str, Any] | None = None
    """Only `labels` and `annotations` are taken."""
    spec: dict[str, Any] | None = None


class EphemeralSource(View, frozen=True):
    """`ephemeral`: a claim of its own for the pod, which goes with it."""

    volume_claim_template: ClaimTemplate | None = None


class InlineCSISource(View, frozen=True):
    """`csi` inline in a pod: an ephemeral volume of a driver."""

    driver: str
    read_only: bool | None = None
    fs_type: str | None = None
    volume_attributes: dict[str, str] | None = None
    node_publish_secret_ref: LocalObjectReference | None = None


class Volume(View, frozen=True):
    """One entry of a pod's `spec.volumes`; exactly one source is set."""

    name: str
    empty_dir: EmptyDirSource | None = None
    host_path: HostPathSource | None = None
    secret: SecretSource | None = None
    config_map: ConfigMapSource | None = None
    downward_api: DownwardAPISource | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedSource | None = None
    nfs: NFSSource | None = None
    aws_elastic_block_store: EBSSource | None = None
    iscsi: ISCSISource | None = None
    csi: InlineCSISource | None = None
    persistent_volume_claim: ClaimSource | None = None
    ephemeral: EphemeralSource | None = None


class OtherSources(View, frozen=True):
    """Sources Kubernetes knows and volagent has no driver for; decoded only to name them."""

    azure_disk: Any = None
    azure_file: Any = None
    cephfs: Any = None
    cinder: Any = None
    fc: Any = None
    flex_volume: Any = None
    flocker: Any = None
    gce_persistent_disk: Any = None
    git_repo: Any = None
    glusterfs: Any = None
    image: Any = None
    photon_persistent_disk: Any = None
    portworx_volume: Any = None
    quobyte: Any = None
    rbd: Any = None
    scale_io: Any = msgspec.field(default=None, name="scaleIO")
    storageos: Any = None
    vsphere_volume: Any = None


POD_SOURCES: dict[str, str] = {
    "emptyDir": "kubernetes.io/empty-dir",
    "hostPath": "kubernetes.io/host-path",
    "secret": "kubernetes.io/secret",
    "configMap": "kubernetes.io/configmap",
    "downwardAPI": "kubernetes.io/downward-api",
    "projected": "kubernetes.io/projected",
    "nfs": "kubernetes.io/nfs",
    "awsElasticBlockStore": "kubernetes.io/aws-ebs",
    "iscsi": "kubernetes.io/iscsi",
    "csi": "kubernetes.io/csi",
}
"""Field of a pod's volume → plugin name, as the kubelet has it (`/` becomes `~` on disk)."""

PV_SOURCES: dict[str, str] = {
    "nfs": "kubernetes.io/nfs",
    "local": "kubernetes.io/local-volume",
    "hostPath": "kubernetes.io/host-path",
    "awsElasticBlockStore": "kubernetes.io/aws-ebs",
    "iscsi": "kubernetes.io/iscsi",
    "csi": "kubernetes.io/csi",
}
"""Field of a PersistentVolume's spec → plugin name."""
