"""What a pod may be told about itself: `fieldRef` and `resourceFieldRef`. Pure.

Used for files (downwardAPI volumes) and for environment variables. Sources of the rules and texts:
`pkg/fieldpath/fieldpath.go` and `pkg/api/v1/resource/helpers.go`; quoting as Go's `strconv.Quote`.
"""

from collections.abc import Mapping

from volagent.objects.pod import Container, Pod
from volagent.objects.quantity import QuantityError, parse_quantity
from volagent.objects.volumes import ResourceFieldSelector

Allocatable = Mapping[str, str | int]
"""`status.allocatable` of the node: resource name → quantity."""

_NEVER_OVERCOMMITTED = "hugepages-"
_KNOWN_RESOURCES = ("cpu", "memory", "ephemeral-storage")
_SHORT_ESCAPES = {
    '"': '\\"', "\\": "\\\\", "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r",
    "\t": "\\t", "\v": "\\v",
}  # fmt: skip


class DownwardError(ValueError):
    """The pod asks for something about itself that does not exist."""


def quote_go(text: str) -> str:
    """The text in double quotes, escaped as Go's `strconv.Quote` does."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_escape, text)) + '"'


def _escape(char: str) -> str:
    short = _SHORT_ESCAPES.get(char)
    if short is not None:
        return short
    if char.isprintable():  # letters, marks, numbers, punctuation, symbols and the ASCII space
        return char
    code = ord(char)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def format_map(values: Mapping[str, str] | None) -> str:
    """Labels or annotations as sorted `key="value"` lines, without a final newline."""
    return "\n".join(f"{key}={quote_go(value)}" for key, value in sorted((values or {}).items()))


def split_subscript(field_path: str) -> tuple[str, str] | None:
    """`metadata.labels['app']` → (`metadata.labels`, `app`); None without a subscript."""
    if not field_path.endswith("']"):
        return None
    path, bracket, key = field_path[:-2].partition("['")
    return (path, key) if path and bracket else None


def read_field(pod: Pod, field_path: str, *, node_name: str, host_ip: str) -> str:
    """The text of a `fieldRef`. `host_ip` is "" while it is not known.

    Raises `DownwardError` for a path that Kubernetes does not know either, and for an address that
    is not known when a pod is set up.
    """
    metadata, spec = pod.metadata, pod.spec
    match field_path:
        case "metadata.name":
            return metadata.name
        case "metadata.namespace":
            return metadata.namespace
        case "metadata.uid":
            return metadata.uid
        case "metadata.labels":
            return format_map(metadata.labels)
        case "metadata.annotations":
            return format_map(metadata.annotations)
        case "spec.nodeName":
            return spec.node_name or node_name
        case "spec.serviceAccountName":
            return spec.service_account_name or "default"
        case "status.hostIP" | "status.podIP":
            return _read_address(pod, field_path, host_ip)
        case _:
            return _read_subscript(pod, field_path)


def _read_address(pod: Pod, field_path: str, host_ip: str) -> str:
    if field_path == "status.podIP" and not pod.spec.host_network:
        raise DownwardError(
            "status.podIP is not known before the pod has its network (without hostNetwork)"
        )
    if not host_ip:
        raise DownwardError(f"{field_path} is not known: this node has no address yet")
    return host_ip


def _read_subscript(pod: Pod, field_path: str) -> str:
    subscripted = split_subscript(field_path)
    if subscripted is None:
        raise DownwardError(f"unsupported fieldPath: {field_path}")
    path, key = subscripted
    if path == "metadata.labels":
        return (pod.metadata.labels or {}).get(key, "")
    if path == "metadata.annotations":
        return (pod.metadata.annotations or {}).get(key, "")
    raise DownwardError(f'fieldPath "{field_path}" does not support subscript')


def read_resource(
    pod: Pod, selector: ResourceFieldSelector, allocatable: Allocatable, *, default: str = ""
) -> str:
    """The whole number of a `resourceFieldRef`: the amount by the divisor, rounded up.

    `default` is the container meant when the selector names none (environment variables). A limit
    that is not set is what the node has to give; a request that is not set is the limit, or 0.
    Raises `DownwardError`.
    """
    name = selector.container_name or default
    container = _find_container(pod, name)
    if container is None:
        raise DownwardError(f"container {name} not found")
    kind, dot, resource = selector.resource.partition(".")
    known = resource in _KNOWN_RESOURCES or resource.startswith(_NEVER_OVERCOMMITTED)
    if not dot or kind not in ("limits", "requests") or not known:
        raise DownwardError(f"unsupported container resource: {selector.resource}")
    try:
        amount = parse_quantity(_find_amount(container, kind, resource, allocatable))
        divisor = parse_quantity(selector.divisor) or parse_quantity(1)
    except QuantityError as error:
        raise DownwardError(f"{selector.resource} of container {name}: {error}") from error
    if divisor < 0:
        raise DownwardError(f"divisor of {selector.resource} must not be negative")
    share = amount / divisor
    return str(-(-share.numerator // share.denominator))


def _find_container(pod: Pod, name: str) -> Container | None:
    for containers in (pod.spec.containers, pod.spec.init_containers or []):
        for container in containers:
            if container.name == name:
                return container
    return None


def _find_amount(
    container: Container, kind: str, resource: str, allocatable: Allocatable
) -> str | int | float:
    resources = container.resources
    limits = (resources.limits if resources is not None else None) or {}
    requests = (resources.requests if resources is not None else None) or {}
    if kind == "requests":
        return requests.get(resource, limits.get(resource, 0))
    limit = limits.get(resource, 0)
    if parse_quantity(limit) or resource.startswith(_NEVER_OVERCOMMITTED):
        return limit
    return allocatable.get(resource, 0)
