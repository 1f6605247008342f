"""Which secrets and configMaps a pod depends on, itself and through its volumes. Pure."""

from collections.abc import Iterator

from volagent.objects.pod import Pod
from volagent.objects.storage import PersistentVolume
from volagent.objects.volumes import Volume

Reference = tuple[str, str, str]
"""Kind, namespace and name of an object that a resolution depends on."""


def environment_references(pod: Pod) -> set[Reference]:
    """Objects that the containers' variables come from: their arrival may unblock a hand-over."""
    namespace = pod.metadata.namespace
    references: set[Reference] = set()
    for container in (*(pod.spec.init_containers or ()), *pod.spec.containers):
        for source in container.env_from or ():
            if source.config_map_ref is not None:
                references.add(("ConfigMap", namespace, source.config_map_ref.name))
            if source.secret_ref is not None:
                references.add(("Secret", namespace, source.secret_ref.name))
        for variable in container.env or ():
            value = variable.value_from
            if value is not None and value.config_map_key_ref is not None:
                references.add(("ConfigMap", namespace, value.config_map_key_ref.name))
            if value is not None and value.secret_key_ref is not None:
                references.add(("Secret", namespace, value.secret_key_ref.name))
    return references


def volume_references(pod: Pod) -> set[Reference]:
    """Secrets and configMaps that a pod's volumes name themselves, not through a claim."""
    namespace = pod.metadata.namespace
    return {
        (kind, namespace, name)
        for volume in pod.spec.volumes or ()
        for kind, name in _sources_of(volume)
    }


def login_references(volume: PersistentVolume, namespace: str) -> set[Reference]:
    """Secrets that a node needs for a PersistentVolume; `namespace` is its claim's."""
    iscsi, csi = volume.spec.iscsi, volume.spec.csi
    named = [iscsi.secret_ref] if iscsi is not None else []
    if csi is not None:
        named += [
            csi.node_stage_secret_ref, csi.node_publish_secret_ref, csi.node_expand_secret_ref,
        ]  # fmt: skip
    return {
        ("Secret", each.namespace or namespace, each.name) for each in named if each is not None
    }


def _sources_of(volume: Volume) -> Iterator[tuple[str, str]]:
    if volume.secret is not None:
        yield "Secret", volume.secret.secret_name
    if volume.config_map is not None:
        yield "ConfigMap", volume.config_map.name
    if volume.iscsi is not None and volume.iscsi.secret_ref is not None:
        yield "Secret", volume.iscsi.secret_ref.name
    if volume.csi is not None and volume.csi.node_publish_secret_ref is not None:
        yield "Secret", volume.csi.node_publish_secret_ref.name
    for source in (volume.projected.sources if volume.projected is not None else None) or ():
        if source.secret is not None:
            yield "Secret", source.secret.name
        if source.config_map is not None:
            yield "ConfigMap", source.config_map.name
