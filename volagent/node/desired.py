"""From a declared pod to the volumes this node should have. Pure.

`resolve_pod` looks everything up that a pod's volumes refer to (claims, persistent volumes,
secrets, configMaps, tokens) and answers with a value: what is wanted per volume, or the problem
that keeps it from being wanted, and which objects the answer depends on, so that a change of one of
them resolves exactly the pods that use it again. Error texts are the kubelet's where it has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec

from volagent.drivers import choose_driver
from volagent.drivers.contract import (
    Credentials,
    Driver,
    DriverTable,
    LogsIn,
    Networked,
    Phase,
    Publication,
    VolumeKey,
    VolumeMode,
    VolumeSource,
    VolumeSpec,
)
from volagent.drivers.errors import Rejected
from volagent.drivers.layout import Layout
from volagent.drivers.payload import (
    Missing,
    NodeFacts,
    TokenNeed,
    needed_objects,
    needed_tokens,
    render,
)
from volagent.host.contract import OwnershipPolicy, Payload
from volagent.node.attachment import attachment_of
from volagent.node.resolved import (
    Problem,
    ResolvedPod,
    ResolvedVolume,
    share_publications,
)
from volagent.objects.attachments import is_shareable
from volagent.objects.meta import PodUid
from volagent.objects.node_affinity import admits_node
from volagent.objects.pod import Pod
from volagent.objects.pod_claims import claim_source_of, find_mode_conflict, is_owned_by
from volagent.objects.quantity import QuantityError, parse_bytes
from volagent.objects.references import Reference, environment_references
from volagent.objects.storage import (
    PARTITION,
    ConfigMap,
    PersistentVolume,
    PersistentVolumeClaim,
    Secret,
)
from volagent.objects.volumes import POD_SOURCES, PV_SOURCES, ClaimSource, Volume
from volagent.runtime.spec import needed_volumes

API_BACKED = frozenset({"secret", "configMap", "downwardAPI", "projected"})

_ATTRIBUTES = {
    "emptyDir": "empty_dir",
    "hostPath": "host_path",
    "secret": "secret",
    "configMap": "config_map",
    "downwardAPI": "downward_api",
    "projected": "projected",
    "nfs": "nfs",
    "awsElasticBlockStore": "aws_elastic_block_store",
    "iscsi": "iscsi",
    "csi": "csi",
    "local": "local",
}


class World(Protocol):
    """The objects as this node knows them."""

    def claim(self, namespace: str, name: str) -> PersistentVolumeClaim | None:
        """A claim."""

    def volume(self, name: str) -> PersistentVolume | None:
        """A persistent volume."""

    def secret(self, namespace: str, name: str) -> Secret | None:
        """A secret."""

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """A configMap."""

    def token(self, pod: Pod, need: TokenNeed) -> bytes | None:
        """A service account token, or None while it is being fetched."""

    def node_labels(self) -> Mapping[str, str]:
        """This node's labels."""

    def node_facts(self) -> NodeFacts:
        """What downwardAPI may tell about this node."""


@dataclass(frozen=True, slots=True)
class Resolver:
    """Resolves pods of one node."""

    drivers: DriverTable
    layout: Layout
    world: World

    def resolve_pod(self, pod: Pod) -> ResolvedPod:
        """What a pod's volumes need, or what is in the way."""
        uid = PodUid(pod.metadata.uid)
        needed = needed_volumes(pod)
        volumes: dict[str, ResolvedVolume] = {}
        problems: dict[str, Problem] = {}
        references: set[Reference] = environment_references(pod)
        for volume in pod.spec.volumes or ():
            if volume.name not in needed:
                continue
            try:
                answer = self._resolve(pod, volume, references)
            except Rejected as error:
                answer = Problem(error.message, error.remedy)
            except (ValueError, TypeError, KeyError) as error:
                # A value that validation let through: this volume's problem, not its siblings'.
                answer = Problem(f"cannot be understood: {error!r}", "correct the declaration")
            if isinstance(answer, Problem):
                problems[volume.name] = answer
            else:
                volumes[volume.name] = answer
        return ResolvedPod(uid, share_publications(volumes), problems, frozenset(references))

    def _resolve(
        self, pod: Pod, volume: Volume, references: set[Reference]
    ) -> ResolvedVolume | Problem:
        claim_source = claim_source_of(pod, volume)
        if claim_source is not None:
            return self._resolve_claim(pod, volume, claim_source, references)
        for kind in POD_SOURCES:
            body = getattr(volume, _ATTRIBUTES[kind])
            if body is not None:
                break
        else:
            return Problem(
                f'volume "{volume.name}" has no source that volagent has a driver for',
                "see the table of volume kinds in the README",
            )
        uid = PodUid(pod.metadata.uid)
        source = VolumeSource(kind=kind, body=msgspec.to_builtins(body))
        driver = self._driver(kind, source)
        payload: Payload | None = None
        if kind in API_BACKED:
            rendered = self._render(pod, volume, references)
            if isinstance(rendered, Problem):
                return rendered
            payload = rendered
        read_only = bool(source.body.get("readOnly"))
        spec = self._spec(driver, VolumeKey(f"pod/{uid}/{volume.name}"), volume.name, source)
        spec = self._log_in(spec, driver, pod.metadata.namespace, references)
        if kind == "csi":
            target = self.layout.csi_volume(uid, volume.name)
        elif kind == "hostPath":
            target = ""  # handed over as it is: nothing under the pod's directory
        else:
            target = self.layout.volume(uid, driver.name, volume.name)
        use = _publication(pod, target, read_only=read_only, payload=payload)
        phases = driver.phases(spec.options, spec.mode)
        if spec.identity:
            # Shared by all pods of this node that name the disk.
            place = spec.identity.replace("/", "_")
            key = VolumeKey(f"disk/{attachment_of(spec)}")
            spec = msgspec.structs.replace(spec, key=key, name=place, shared=spec.read_only)
        elif Phase.STAGE in phases:
            # Its global mount is named after it, and other pods may have a volume of this name.
            spec = msgspec.structs.replace(spec, name=f"{uid}-{volume.name}")
        return ResolvedVolume(volume.name, spec, source, phases, use, read_only)

    def _resolve_claim(
        self, pod: Pod, volume: Volume, claim_source: ClaimSource, references: set[Reference]
    ) -> ResolvedVolume | Problem:
        namespace, name = pod.metadata.namespace, claim_source.claim_name
        references.add(("PersistentVolumeClaim", namespace, name))
        claim = self.world.claim(namespace, name)
        if claim is None:
            return Problem(
                f'persistentvolumeclaim "{name}" not found', f"create the claim {namespace}/{name}"
            )
        if volume.ephemeral is not None and not is_owned_by(claim, pod.metadata):
            return Problem(
                f'PVC {namespace}/{name} was not created for pod "{pod.metadata.name}" (pod is not'
                " owner)",
                f"delete or rename the claim {namespace}/{name}: the pod's volume needs its name",
            )
        if claim.metadata.deletion_timestamp is not None and not _in_use(pod):
            return Problem(f"error processing PVC {namespace}/{name}: PVC is being deleted")
        if claim.spec.volume_name:
            references.add(("PersistentVolume", "", claim.spec.volume_name))
        if not claim.spec.volume_name or claim.status.phase not in ("Bound", ""):
            return Problem(
                f"error processing PVC {namespace}/{name}: PVC is not bound",
                f"see `volagent describe pvc {name} -n {namespace}`",
            )
        pv = self.world.volume(claim.spec.volume_name)
        if pv is None:
            return Problem(
                f"failed to fetch PV {claim.spec.volume_name} from API server: not found",
                f"the claim {namespace}/{name} names a volume that does not exist; create it",
            )
        return self._resolve_volume(
            pod, volume, claim, pv, references, read_only=claim_source.read_only
        )

    def _resolve_volume(
        self,
        pod: Pod,
        volume: Volume,
        claim: PersistentVolumeClaim,
        pv: PersistentVolume,
        references: set[Reference],
        *,
        read_only: bool,
    ) -> ResolvedVolume | Problem:
        name, uid = pv.metadata.name, PodUid(pod.metadata.uid)
        reference = pv.spec.claim_ref
        if reference is None or reference.uid != claim.metadata.uid:
            return Problem(
                f"PV {name} is not bound to PVC {claim.metadata.namespace}/{claim.metadata.name}"
                " (claimRef names another)",
                "wait for the binder, or free the volume's claimRef",
            )
        if not admits_node(pv.spec.node_affinity, self.world.node_labels()):
            return Problem(
                f'MountVolume.NodeAffinity check failed for volume "{name}": '
                "No matching NodeSelectorTerms",
                "the volume is on another node: declare the pod there",
            )
        mode = VolumeMode(pv.spec.volume_mode or VolumeMode.FILESYSTEM.value)
        wrong = find_mode_conflict(pod, volume.name, block=mode is VolumeMode.BLOCK)
        if wrong is not None:
            return Problem(*wrong)
        for kind in PV_SOURCES:
            body = getattr(pv.spec, _ATTRIBUTES[kind])
            if body is not None:
                break
        else:
            return Problem(f'persistent volume "{name}" has no source volagent has a driver for')
        source = _source_of(pv, kind, body)
        driver = self._driver(kind, source)
        spec = self._spec(
            driver, VolumeKey(f"pv/{name}"), name, source,
            mode=mode, mount_options=tuple(pv.spec.mount_options or ()),
        )  # fmt: skip
        spec = self._log_in(spec, driver, claim.metadata.namespace, references)
        modes = pv.spec.access_modes or ()
        if spec.identity and not spec.read_only and set(modes) == {"ReadOnlyMany"}:
            spec = msgspec.structs.replace(spec, read_only=True)
        block = mode is VolumeMode.BLOCK
        if spec.identity and is_shareable(modes, block=block, read_only=spec.read_only):
            spec = msgspec.structs.replace(spec, shared=True)
        phases = driver.phases(spec.options, mode)
        if "ReadWriteOncePod" in modes:
            spec = msgspec.structs.replace(spec, one_pod=True)
        elif Phase.STAGE not in phases and Phase.ATTACH not in phases:
            # Nothing is shared on this node: a volume of its own for each pod, so that one pod's
            # slow mount never waits for another's.
            spec = msgspec.structs.replace(spec, key=VolumeKey(f"pod/{uid}/{name}"))
        use = _publication(
            pod, self._target(driver, kind, uid, name, mode), read_only=read_only, payload=None
        )
        return ResolvedVolume(volume.name, spec, source, phases, use, read_only)

    def _target(self, driver: Driver, kind: str, uid: PodUid, name: str, mode: VolumeMode) -> str:
        if mode is VolumeMode.BLOCK:
            plugin = "kubernetes.io/csi" if kind == "csi" else driver.name
            return self.layout.block_link(uid, type(driver.name)(plugin), name)
        if kind == "csi":
            return self.layout.csi_volume(uid, name)
        return "" if kind == "hostPath" else self.layout.volume(uid, driver.name, name)

    def _driver(self, kind: str, source: VolumeSource) -> Driver:
        name = choose_driver(kind, source.body)
        driver = self.drivers.get(name)
        if driver is None:
            raise Rejected(
                f"driver name {name} not found in the list of registered CSI drivers",
                remedy=f"drivers of this node: {', '.join(sorted(self.drivers))}",
            )
        return driver

    def _spec(
        self,
        driver: Driver,
        key: VolumeKey,
        name: str,
        source: VolumeSource,
        *,
        mode: VolumeMode = VolumeMode.FILESYSTEM,
        mount_options: tuple[str, ...] = (),
    ) -> VolumeSpec:
        options = driver.read_options(source)
        return VolumeSpec(
            key=key,
            driver=driver.name,
            name=name,
            options=options,
            mode=mode,
            mount_options=mount_options,
            read_only=bool(source.body.get("readOnly")),
            capacity_bytes=source.capacity_bytes,
            identity=driver.identify(options) if isinstance(driver, Networked) else "",
            backend=driver.backend(options),
        )

    def _log_in(
        self, spec: VolumeSpec, driver: Driver, namespace: str, references: set[Reference]
    ) -> VolumeSpec:
        """With the content of the secret that it names. Raises `Rejected` when that is missing."""
        name = driver.find_secret(spec.options) if isinstance(driver, LogsIn) else None
        if name is None:
            return spec
        where = name.namespace or namespace
        references.add(("Secret", where, name.name))
        secret = self.world.secret(where, name.name)
        if secret is None:
            raise Rejected(
                f'secret "{name.name}" not found', remedy=f"create the secret {where}/{name.name}"
            )
        return msgspec.structs.replace(spec, credentials=Credentials(secret.data or {}))

    def _render(self, pod: Pod, volume: Volume, references: set[Reference]) -> Payload | Problem:
        namespace = pod.metadata.namespace
        world = self.world
        for need in needed_objects(volume):
            references.add((need.kind, namespace, need.name))
        tokens: dict[TokenNeed, bytes] = {}
        for need_token in needed_tokens(volume):
            token = world.token(pod, need_token)
            if token is None:
                return Problem("waiting for a service account token")
            tokens[need_token] = token

        def look_up(kind: str, name: str) -> Secret | ConfigMap | None:
            if kind == "Secret":
                return world.secret(namespace, name)
            return world.config_map(namespace, name)

        answer = render(volume, pod, look_up, tokens, world.node_facts())
        if isinstance(answer, Missing):
            return Problem(answer.message, answer.remedy)
        return answer


def _publication(pod: Pod, target: str, *, read_only: bool, payload: Payload | None) -> Publication:
    security = pod.spec.security_context
    fs_group = security.fs_group if security is not None else None
    policy = OwnershipPolicy.ALWAYS
    if security is not None and security.fs_group_change_policy:
        policy = OwnershipPolicy(security.fs_group_change_policy)
    return Publication(
        pod=PodUid(pod.metadata.uid),
        pod_name=f"{pod.metadata.namespace}/{pod.metadata.name}",
        target=target,
        read_only=read_only,
        fs_group=fs_group,
        fs_group_policy=policy,
        payload=payload,
    )


def _source_of(pv: PersistentVolume, kind: str, body: object) -> VolumeSource:
    partition = (pv.metadata.annotations or {}).get(PARTITION, "") if kind == "iscsi" else ""
    return VolumeSource(
        kind, msgspec.to_builtins(body), _capacity(pv), persistent=True, partition=partition
    )


def _capacity(pv: PersistentVolume) -> int | None:
    text = (pv.spec.capacity or {}).get("storage")
    if text is None:
        return None
    try:
        return parse_bytes(text)
    except QuantityError as error:
        raise Rejected(f"spec.capacity.storage of {pv.metadata.name}: {error}") from error


def _in_use(pod: Pod) -> bool:
    return bool(pod.status.phase and pod.status.phase != "Pending")
