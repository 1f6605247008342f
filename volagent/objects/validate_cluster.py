"""Rules for Nodes, Namespaces, Events and ServiceAccounts."""

from typing import Any

from volagent.objects.field_errors import FieldError, invalid, required
from volagent.objects.meta import (
    Document,
    LocalObjectReference,
    ObjectReference,
    TypedObject,
    View,
)
from volagent.objects.names import check_label
from volagent.objects.quantities import check_amount
from volagent.objects.scheduling import Taint
from volagent.objects.validate_meta import validate_metadata
from volagent.objects.validate_scheduling import validate_taints

EVENT_TEXT_LIMIT_CHARS = 1024


class _Condition(View, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class _Address(View, frozen=True):
    type: str = ""
    address: str = ""


class _NodeInfo(View, frozen=True):
    kubelet_version: str = ""
    os_image: str = ""
    kernel_version: str = ""
    container_runtime_version: str = ""


class _NodeStatus(View, frozen=True):
    capacity: dict[str, str | int | float] | None = None
    allocatable: dict[str, str | int | float] | None = None
    volumes_in_use: list[str] | None = None
    conditions: list[_Condition] | None = None
    addresses: list[_Address] | None = None
    node_info: _NodeInfo = _NodeInfo()


class _NodeSpec(View, frozen=True):
    unschedulable: bool | None = None
    taints: list[Taint] | None = None


class GivenNode(TypedObject, frozen=True):
    """A Node as it is checked."""

    spec: _NodeSpec = _NodeSpec()
    status: _NodeStatus = _NodeStatus()


class _NamespaceSpec(View, frozen=True):
    finalizers: list[str] | None = None


class _Phase(View, frozen=True):
    phase: str = ""
    conditions: list[_Condition] | None = None


class GivenNamespace(TypedObject, frozen=True):
    """A Namespace as it is checked."""

    spec: _NamespaceSpec = _NamespaceSpec()
    status: _Phase = _Phase()


class _EventSource(View, frozen=True):
    component: str = ""
    host: str = ""


class GivenEvent(TypedObject, frozen=True):
    """An Event as it is checked."""

    involved_object: ObjectReference = ObjectReference()
    reason: str = ""
    message: str = ""
    type: str = ""
    action: str = ""
    count: int | None = None
    source: _EventSource = _EventSource()
    first_timestamp: str | None = None
    last_timestamp: str | None = None
    event_time: str | None = None
    reporting_component: str = ""
    reporting_instance: str = ""
    series: dict[str, Any] | None = None


class GivenServiceAccount(TypedObject, frozen=True):
    """A ServiceAccount as it is checked."""

    secrets: list[ObjectReference] | None = None
    image_pull_secrets: list[LocalObjectReference] | None = None
    automount_service_account_token: bool | None = None


class GivenObject(TypedObject, frozen=True):
    """Any other kind: its envelope."""


def validate_node(node: GivenNode, _document: Document) -> list[FieldError]:
    """What is wrong with a Node."""
    errors = validate_metadata(node.metadata, namespaced=False)
    errors += validate_taints(node.spec.taints or ())
    for group, amounts in (
        ("capacity", node.status.capacity), ("allocatable", node.status.allocatable),
    ):  # fmt: skip
        for name, amount in (amounts or {}).items():
            errors += check_amount(amount, f"status.{group}[{name}]")
    return errors


def validate_namespace(namespace: GivenNamespace, _document: Document) -> list[FieldError]:
    """What is wrong with a Namespace."""
    return validate_metadata(namespace.metadata, namespaced=False, check_name=check_label)


def validate_event(event: GivenEvent, _document: Document) -> list[FieldError]:
    """What is wrong with an Event."""
    errors = validate_metadata(event.metadata, namespaced=True)
    wanted = event.involved_object.namespace or "default"
    if event.metadata.namespace and event.metadata.namespace != wanted:
        field, given = "involvedObject.namespace", event.involved_object.namespace
        errors.append(invalid(field, given, "does not match event.namespace"))
    if len(event.message) > EVENT_TEXT_LIMIT_CHARS:
        text = f"can have at most {EVENT_TEXT_LIMIT_CHARS} characters"
        errors.append(invalid("message", event.message, text))
    if event.event_time is not None and not event.reporting_component:
        errors.append(required("reportingComponent"))
    return errors


def validate_service_account(account: GivenServiceAccount, _document: Document) -> list[FieldError]:
    """What is wrong with a ServiceAccount."""
    return validate_metadata(account.metadata, namespaced=True)


def validate_object(given: GivenObject, document: Document) -> list[FieldError]:
    """What is wrong with an object of a kind that has no rules of its own."""
    return validate_metadata(given.metadata, namespaced="namespace" in document["metadata"])
