"""Which objects a pod depends on beside its volumes. Pure."""

from volagent.objects.pod import Pod

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
