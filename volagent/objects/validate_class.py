"""Rules for what describes storage and the drivers that serve it.

StorageClass, CSIDriver, CSINode, CSIStorageCapacity. Source: Kubernetes
`pkg/apis/storage/validation/validation.go` and `pkg/apis/storage/v1/defaults.go`.
"""

from collections.abc import Sequence
from typing import Any

from volagent.objects.field_errors import (
    FieldError,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    required,
    too_long,
)
from volagent.objects.meta import Document, TypedObject, View
from volagent.objects.names import check_qualified, check_subdomain
from volagent.objects.quantities import Amount, canonical_text, check_amount
from volagent.objects.scheduling import LabelSelector
from volagent.objects.storage import CSINode, CSINodeDriver, StorageClass
from volagent.objects.validate_meta import validate_labels, validate_metadata
from volagent.objects.validate_volumes import validate_driver_name

PARAMETERS_LIMIT = 512
PARAMETERS_LIMIT_BYTES = 256 * 1024
NODE_ID_LIMIT_BYTES = 192
TOKEN_LIFE_LEAST_S = 600
CLASS_POLICIES = frozenset({"Delete", "Retain"})
"""What may become of a class's volumes; Recycle is for nobody."""
BINDING_MODES = frozenset({"Immediate", "WaitForFirstConsumer"})
_LIFECYCLES = frozenset({"Persistent", "Ephemeral"})
_GROUP_POLICIES = frozenset({"ReadWriteOnceWithFSType", "None", "File"})
_IMMUTABLE = "field is immutable"


class _LabelValues(View, frozen=True):
    key: str = ""
    values: list[str] | None = None


class _TopologyTerm(View, frozen=True):
    match_label_expressions: list[_LabelValues] | None = None


class GivenClass(StorageClass, frozen=True):
    """A StorageClass as it is checked."""

    allowed_topologies: list[_TopologyTerm] | None = None  # type: ignore[assignment]  # narrower


class _TokenRequest(View, frozen=True):
    audience: str = ""
    expiration_seconds: int | None = None


class _DriverSpec(View, frozen=True):
    attach_required: bool | None = None
    pod_info_on_mount: bool | None = None
    storage_capacity: bool | None = None
    requires_republish: bool | None = None
    se_linux_mount: bool | None = None
    fs_group_policy: str | None = None
    volume_lifecycle_modes: list[str] | None = None
    token_requests: list[_TokenRequest] | None = None


class GivenDriver(TypedObject, frozen=True):
    """A CSIDriver as it is checked."""

    spec: _DriverSpec = _DriverSpec()


class GivenCapacity(TypedObject, frozen=True):
    """A CSIStorageCapacity as it is checked."""

    storage_class_name: str = ""
    node_topology: LabelSelector | None = None
    capacity: str | int | float | None = None
    maximum_volume_size: str | int | float | None = None


def default_class(document: Document) -> Document:
    """A StorageClass with its defaults."""
    return {
        **document,
        "reclaimPolicy": document.get("reclaimPolicy") or "Delete",
        "volumeBindingMode": document.get("volumeBindingMode") or "Immediate",
    }


def validate_class(storage_class: GivenClass, _document: Document) -> list[FieldError]:
    """What is wrong with a StorageClass."""
    errors = validate_metadata(storage_class.metadata, namespaced=False)
    provisioner = storage_class.provisioner
    if not provisioner:
        errors.append(required("provisioner", provisioner))
    else:
        reasons = check_qualified(provisioner.lower())
        errors += [invalid("provisioner", provisioner, reason) for reason in reasons]
    errors += _validate_parameters(storage_class.parameters or {})
    for name, value, known in (
        ("reclaimPolicy", storage_class.reclaim_policy, CLASS_POLICIES),
        ("volumeBindingMode", storage_class.volume_binding_mode, BINDING_MODES),
    ):
        if value and value not in known:
            errors.append(not_supported(name, value, known))
    errors += validate_mount_options(storage_class.mount_options, "mountOptions")
    errors += _validate_topologies(storage_class.allowed_topologies or ())
    return errors


def validate_mount_options(options: Sequence[str] | None, field: str) -> list[FieldError]:
    """Mount options: what could end a line of a mount table is refused."""
    text = "must not contain control characters"
    return [
        invalid(f"{field}[{index}]", option, text)
        for index, option in enumerate(options or ())
        if "\0" in option or "\n" in option
    ]


def validate_class_change(old: Document, new: Document) -> list[FieldError]:
    """What may not change between two valid StorageClasses: what its volumes were made by."""
    errors = [
        forbidden(name, f"updates to {name} are forbidden.")
        for name in ("parameters", "provisioner", "reclaimPolicy")
        if (old.get(name) or None) != (new.get(name) or None)
    ]
    mode = new.get("volumeBindingMode")
    if mode != (old.get("volumeBindingMode") or "Immediate"):
        errors.append(invalid("volumeBindingMode", mode, _IMMUTABLE))
    return errors


def _validate_parameters(parameters: dict[str, str]) -> list[FieldError]:
    if len(parameters) > PARAMETERS_LIMIT:
        text = f"must have at most {PARAMETERS_LIMIT} items"
        return [FieldError("parameters", "FieldValueTooLong", f"Too long: {text}")]
    if "" in parameters:
        return [invalid("parameters", "", "field can not be empty.")]
    size = sum(len(key.encode()) + len(value.encode()) for key, value in parameters.items())
    if size > PARAMETERS_LIMIT_BYTES:
        return [too_long("parameters", PARAMETERS_LIMIT_BYTES)]
    return []


def _validate_topologies(terms: Sequence[_TopologyTerm]) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, term in enumerate(terms):
        field = f"allowedTopologies[{index}]"
        seen: set[str] = set()
        for position, expression in enumerate(term.match_label_expressions or ()):
            where = f"{field}.matchLabelExpressions[{position}]"
            errors += _validate_expression(expression, where)
            if expression.key in seen:
                errors.append(duplicate(f"{where}.key", expression.key))
            seen.add(expression.key)
        if term in terms[:index]:
            errors.append(duplicate(field, ""))
    return errors


def _validate_expression(expression: _LabelValues, field: str) -> list[FieldError]:
    errors = [
        invalid(f"{field}.key", expression.key, reason)
        for reason in check_qualified(expression.key)
    ]
    values = expression.values or []
    if not values:
        errors.append(required(f"{field}.values"))
    errors += [
        duplicate(f"{field}.values[{index}]", value)
        for index, value in enumerate(values)
        if value in values[:index]
    ]
    return errors


def default_driver(document: Document) -> Document:
    """A CSIDriver with its defaults."""
    spec: Document = {
        "attachRequired": True,
        "podInfoOnMount": False,
        "storageCapacity": False,
        "fsGroupPolicy": "ReadWriteOnceWithFSType",
        "volumeLifecycleModes": ["Persistent"],
        "requiresRepublish": False,
        "seLinuxMount": False,
        **(document.get("spec") or {}),
    }
    return {**document, "spec": spec}


def validate_driver(driver: GivenDriver, _document: Document) -> list[FieldError]:
    """What is wrong with a CSIDriver."""
    errors = validate_metadata(driver.metadata, namespaced=False)
    errors += validate_driver_name(driver.metadata.name, "metadata.name")
    spec = driver.spec
    if spec.fs_group_policy is not None and spec.fs_group_policy not in _GROUP_POLICIES:
        errors.append(not_supported("spec.fsGroupPolicy", spec.fs_group_policy, _GROUP_POLICIES))
    for mode in spec.volume_lifecycle_modes or ():
        if mode not in _LIFECYCLES:
            errors.append(not_supported("spec.volumeLifecycleModes", mode, _LIFECYCLES))
    audiences: set[str] = set()
    for index, request in enumerate(spec.token_requests or ()):
        field = f"spec.tokenRequests[{index}]"
        if request.audience in audiences:
            errors.append(duplicate(f"{field}.audience", request.audience))
        audiences.add(request.audience)
        life = request.expiration_seconds
        if life is not None and life < TOKEN_LIFE_LEAST_S:
            text = "may not specify a duration less than 10 minutes"
            errors.append(invalid(f"{field}.expirationSeconds", life, text))
    return errors


def validate_driver_change(old: Document, new: Document) -> list[FieldError]:
    """What may not change between two valid CSIDrivers."""
    return _unchanged(old["spec"], new["spec"], ("attachRequired", "volumeLifecycleModes"), "spec.")


def validate_csi_node(node: CSINode, _document: Document) -> list[FieldError]:
    """What is wrong with a CSINode."""
    errors = validate_metadata(node.metadata, namespaced=False)
    seen: set[str] = set()
    for index, driver in enumerate(node.spec.drivers or ()):
        field = f"spec.drivers[{index}]"
        errors += _validate_node_driver(driver, field)
        if driver.name in seen:
            errors.append(duplicate(f"{field}.name", driver.name))
        seen.add(driver.name)
    return errors


def _validate_node_driver(driver: CSINodeDriver, field: str) -> list[FieldError]:
    errors = validate_driver_name(driver.name, f"{field}.name")
    if not driver.node_id:
        errors.append(required(f"{field}.nodeID", driver.node_id))
    elif len(driver.node_id.encode()) > NODE_ID_LIMIT_BYTES:
        text = f"must be {NODE_ID_LIMIT_BYTES} characters or less"
        errors.append(invalid(f"{field}.nodeID", driver.node_id, text))
    keys = driver.topology_keys or []
    for key in keys:
        errors += [invalid(f"{field}.topologyKeys", key, reason) for reason in check_qualified(key)]
    errors += [
        duplicate(f"{field}.topologyKeys", key)
        for index, key in enumerate(keys)
        if key in keys[:index]
    ]
    count = driver.allocatable.count if driver.allocatable is not None else None
    if count is not None and count < 0:
        text = "must be greater than or equal to 0"
        errors.append(invalid(f"{field}.allocatable.count", count, text))
    return errors


def validate_csi_node_change(old: Document, new: Document) -> list[FieldError]:
    """A driver that is registered keeps what it said, but for how much it can attach."""

    def fixed(node: Document) -> dict[str, Document]:
        drivers = (node.get("spec") or {}).get("drivers") or ()
        return {each["name"]: {**each, "allocatable": None} for each in drivers}

    before, after = fixed(old), fixed(new)
    return [
        invalid("spec.drivers", name, _IMMUTABLE)
        for name, driver in after.items()
        if name in before and before[name] != driver
    ]


def validate_capacity(capacity: GivenCapacity, _document: Document) -> list[FieldError]:
    """What is wrong with a CSIStorageCapacity."""
    errors = validate_metadata(capacity.metadata, namespaced=True)
    name = capacity.storage_class_name
    if not name:
        errors.append(required("storageClassName"))
    else:
        errors += [invalid("storageClassName", name, reason) for reason in check_subdomain(name)]
    labels = (capacity.node_topology or {}).get("matchLabels")
    if labels:
        errors += validate_labels(labels, "nodeTopology.matchLabels")
    for field, amount in (
        ("capacity", capacity.capacity), ("maximumVolumeSize", capacity.maximum_volume_size),
    ):  # fmt: skip
        if amount is not None:
            errors += check_amount(amount, field)
    return errors


def default_capacity(document: Document) -> Document:
    """A CSIStorageCapacity with canonical amounts."""
    names = ("capacity", "maximumVolumeSize")
    amounts: dict[str, Amount] = {name: document[name] for name in names if name in document}
    return {**document, **{name: canonical_text(str(amount)) for name, amount in amounts.items()}}


def validate_capacity_change(old: Document, new: Document) -> list[FieldError]:
    """Where and of which class the capacity is stays as it is."""
    return _unchanged(old, new, ("nodeTopology", "storageClassName"), "")


def _unchanged(
    old: dict[str, Any], new: dict[str, Any], names: Sequence[str], prefix: str
) -> list[FieldError]:
    return [
        invalid(f"{prefix}{name}", new.get(name), _IMMUTABLE)
        for name in names
        if old.get(name) != new.get(name)
    ]
