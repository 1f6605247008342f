"""The environment of a container: literal values, references, whole configMaps and secrets. Pure.

Order and precedence are the kubelet's: `envFrom` in its order, then `env` in its order, each value
expanded with what is known so far; the last of a name wins.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from volagent.objects.pod import Container, EnvFromSource, EnvVarSource, Pod, SecretKeySelector
from volagent.objects.quantity import QuantityError, parse_quantity
from volagent.objects.storage import ConfigMap, Secret
from volagent.objects.volumes import ResourceFieldSelector
from volagent.runtime.contract import NodeFacts, SpecError
from volagent.runtime.expand import expand

_VARIABLE_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


@dataclass(frozen=True, slots=True)
class Objects:
    """Where references of a pod's environment are looked up; names are of the pod's namespace."""

    secret: Callable[[str], Secret | None]
    config_map: Callable[[str], ConfigMap | None]
    facts: NodeFacts


def resolve_env(pod: Pod, container: Container, objects: Objects) -> dict[str, str]:
    """All variables of a container. Raises `SpecError`."""
    env: dict[str, str] = {}
    for index, source in enumerate(container.env_from or ()):
        env.update(_read_whole_object(pod, source, objects, f"{container.name}.envFrom[{index}]"))
    for variable in container.env or ():
        if variable.value_from is None:
            env[variable.name] = expand(variable.value, env)
            continue
        where = f"{container.name}.env[{variable.name}].valueFrom"
        value = _read_reference(pod, container, variable.value_from, objects, where)
        if value is not None:
            env[variable.name] = value
    return env


def _read_whole_object(
    pod: Pod, source: EnvFromSource, objects: Objects, where: str
) -> Mapping[str, str]:
    values: Mapping[str, str] | None
    if source.config_map_ref is not None:
        reference, kind = source.config_map_ref, "configmap"
        config_map = objects.config_map(reference.name)
        values = None if config_map is None else config_map.data or {}
    elif source.secret_ref is not None:
        reference, kind = source.secret_ref, "secret"
        secret = objects.secret(reference.name)
        values = None if secret is None else _decode_all(secret, where)
    else:
        return {}
    if values is None:
        if reference.optional:
            return {}
        raise SpecError(where, f'{kind} "{reference.name}" not found')
    # A key that cannot be a variable is left out, as the kubelet does.
    return {
        source.prefix + key: value
        for key, value in values.items()
        if _VARIABLE_NAME.fullmatch(source.prefix + key)
    }


def _decode_all(secret: Secret, where: str) -> Mapping[str, str]:
    return {key: _decode(value, key, where) for key, value in (secret.data or {}).items()}


def _decode(value: bytes, key: str, where: str) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise SpecError(where, f"the value of key {key} is not UTF-8 text") from None
    if "\0" in text:
        raise SpecError(where, f"the value of key {key} has a NUL byte")
    return text


def _read_reference(
    pod: Pod, container: Container, source: EnvVarSource, objects: Objects, where: str
) -> str | None:
    if source.field_ref is not None:
        return _read_field(pod, source.field_ref.field_path, objects.facts, f"{where}.fieldRef")
    if source.resource_field_ref is not None:
        place = f"{where}.resourceFieldRef"
        return _read_resource(pod, container, source.resource_field_ref, objects.facts, place)
    if source.config_map_key_ref is not None:
        return _read_config_map_key(pod, source.config_map_key_ref, objects, where)
    if source.secret_key_ref is not None:
        return _read_secret_key(pod, source.secret_key_ref, objects, where)
    raise SpecError(
        where, "must specify one of fieldRef, resourceFieldRef, configMapKeyRef, secretKeyRef"
    )


def _read_config_map_key(
    pod: Pod, key_ref: SecretKeySelector, objects: Objects, where: str
) -> str | None:
    config_map = objects.config_map(key_ref.name)
    if config_map is not None and key_ref.key in (config_map.data or {}):
        return (config_map.data or {})[key_ref.key]
    if key_ref.optional:
        return None
    if config_map is None:
        raise SpecError(f"{where}.configMapKeyRef", f'configmap "{key_ref.name}" not found')
    raise SpecError(
        f"{where}.configMapKeyRef",
        f"couldn't find key {key_ref.key} in ConfigMap {pod.metadata.namespace}/{key_ref.name}",
    )


def _read_secret_key(
    pod: Pod, key_ref: SecretKeySelector, objects: Objects, where: str
) -> str | None:
    secret = objects.secret(key_ref.name)
    if secret is not None and key_ref.key in (secret.data or {}):
        value = (secret.data or {})[key_ref.key]
        return _decode(value, key_ref.key, f"{where}.secretKeyRef")
    if key_ref.optional:
        return None
    if secret is None:
        raise SpecError(f"{where}.secretKeyRef", f'secret "{key_ref.name}" not found')
    raise SpecError(
        f"{where}.secretKeyRef",
        f"couldn't find key {key_ref.key} in Secret {pod.metadata.namespace}/{key_ref.name}",
    )


def _read_field(pod: Pod, path: str, facts: NodeFacts, where: str) -> str:
    metadata = pod.metadata
    found = _SUBSCRIPT.fullmatch(path)
    if found is not None:
        values = metadata.labels if found.group(1) == "labels" else metadata.annotations
        return (values or {}).get(found.group(2), "")
    match path:
        case "metadata.name":
            return metadata.name
        case "metadata.namespace":
            return metadata.namespace
        case "metadata.uid":
            return metadata.uid
        case "spec.nodeName":
            return pod.spec.node_name or facts.node_name
        case "spec.serviceAccountName":
            return pod.spec.service_account_name
        case "status.hostIP" | "status.hostIPs":
            return facts.host_ip
        case "status.podIP" | "status.podIPs":
            if pod.spec.host_network:
                return facts.host_ip
            raise SpecError(where, f"{path} is known in advance only with hostNetwork: true")
        case _:
            raise SpecError(where, f"unsupported fieldPath: {path}")


def _read_resource(
    pod: Pod, container: Container, selector: ResourceFieldSelector, facts: NodeFacts, where: str
) -> str:
    named = container
    if selector.container_name:
        every = (*pod.spec.containers, *(pod.spec.init_containers or ()))
        for candidate in every:
            if candidate.name == selector.container_name:
                named = candidate
                break
        else:
            raise SpecError(where, f"container {selector.container_name} not found")
    kind, _, resource = selector.resource.partition(".")
    if kind not in ("limits", "requests") or not resource:
        raise SpecError(where, f"unsupported container resource: {selector.resource}")
    resources = named.resources
    chosen = getattr(resources, kind) if resources is not None else None
    amount = (chosen or {}).get(resource)
    if amount is None:
        allocatable = {"cpu": facts.allocatable_cpu, "memory": facts.allocatable_memory}
        amount = allocatable.get(resource, "0") if kind == "limits" else "0"
    try:
        divisor = parse_quantity(selector.divisor) or Fraction(1)
        value = parse_quantity(amount) / divisor
    except QuantityError as error:
        raise SpecError(where, str(error)) from error
    return str(-(-value.numerator // value.denominator))
