"""Rules for Leases and Endpoints, which programs use to agree on a leader.

Source: Kubernetes `pkg/apis/coordination/validation/validation.go` and
`pkg/apis/core/validation/validation.go` (`ValidateEndpoints`).
"""

import re
from ipaddress import ip_address

from volagent.objects.field_errors import (
    FieldError,
    MalformedObject,
    invalid,
    not_supported,
    required,
)
from volagent.objects.meta import Document, ObjectReference, TypedObject, View
from volagent.objects.names import check_label
from volagent.objects.validate_meta import validate_metadata

PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})
PORT_LIMIT = 65535
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
"""Kubernetes reads these with a fixed layout: exactly six digits of a second's fraction."""


class LeaseSpec(View, frozen=True):
    """`spec` of a Lease: who leads, since when, and for how long (seconds)."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(TypedObject, frozen=True):
    """A Lease."""

    spec: LeaseSpec = LeaseSpec()


class _Address(View, frozen=True):
    ip: str = ""
    hostname: str = ""
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class _Port(View, frozen=True):
    name: str = ""
    port: int = 0
    protocol: str = ""
    app_protocol: str | None = None


class _Subset(View, frozen=True):
    addresses: list[_Address] | None = None
    not_ready_addresses: list[_Address] | None = None
    ports: list[_Port] | None = None


class Endpoints(TypedObject, frozen=True):
    """Endpoints as they are checked."""

    subsets: list[_Subset] | None = None


def validate_lease(lease: Lease, _document: Document) -> list[FieldError]:
    """What is wrong with a Lease. Raises `MalformedObject` for a time that is none."""
    errors = validate_metadata(lease.metadata, namespaced=True)
    spec = lease.spec
    duration, transitions = spec.lease_duration_seconds, spec.lease_transitions
    if duration is not None and duration <= 0:
        errors.append(invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        text = "must be greater than or equal to 0"
        errors.append(invalid("spec.leaseTransitions", transitions, text))
    if spec.holder_identity == "":
        errors.append(invalid("spec.holderIdentity", "", "must not be empty"))
    for name, value in (("acquireTime", spec.acquire_time), ("renewTime", spec.renew_time)):
        if value is not None and _MICRO_TIME.fullmatch(value) is None:
            text = f'cannot read time "{value}": write it as 2006-01-02T15:04:05.000000Z'
            raise MalformedObject(f"spec.{name}", text)
    return errors


def default_endpoints(document: Document) -> Document:
    """Endpoints with their defaults: TCP."""
    if not document.get("subsets"):
        return document
    return {**document, "subsets": [_default_subset(each) for each in document["subsets"]]}


def _default_subset(subset: Document) -> Document:
    if not subset.get("ports"):
        return subset
    return {**subset, "ports": [{"protocol": "TCP", **port} for port in subset["ports"]]}


def validate_endpoints(endpoints: Endpoints, _document: Document) -> list[FieldError]:
    """What is wrong with Endpoints."""
    errors = validate_metadata(endpoints.metadata, namespaced=True)
    for index, subset in enumerate(endpoints.subsets or ()):
        field = f"subsets[{index}]"
        if not subset.addresses and not subset.not_ready_addresses:
            text = "must specify `addresses` or `notReadyAddresses`"
            errors.append(required(field, text))
        for group, addresses in (
            ("addresses", subset.addresses), ("notReadyAddresses", subset.not_ready_addresses),
        ):  # fmt: skip
            for position, address in enumerate(addresses or ()):
                errors += _validate_address(address, f"{field}.{group}[{position}]")
        ports = subset.ports or []
        for position, port in enumerate(ports):
            where = f"{field}.ports[{position}]"
            errors += _validate_port(port, where, must_have_name=len(ports) > 1)
    return errors


def _validate_address(address: _Address, field: str) -> list[FieldError]:
    errors: list[FieldError] = []
    try:
        found = ip_address(address.ip)
    except ValueError:
        text = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        return [invalid(f"{field}.ip", address.ip, text)]
    for unfit, what in (
        (found.is_unspecified, "unspecified"), (found.is_loopback, "in the loopback range"),
        (found.is_link_local, "in the link-local range"),
        (found.is_multicast, "in the multicast range"),
    ):  # fmt: skip
        if unfit:
            errors.append(invalid(f"{field}.ip", address.ip, f"may not be {what}"))
    if address.hostname:
        reasons = check_label(address.hostname)
        errors += [invalid(f"{field}.hostname", address.hostname, reason) for reason in reasons]
    return errors


def _validate_port(port: _Port, field: str, *, must_have_name: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    if port.name:
        reasons = check_label(port.name)
        errors += [invalid(f"{field}.name", port.name, reason) for reason in reasons]
    elif must_have_name:
        errors.append(required(f"{field}.name"))
    if not 1 <= port.port <= PORT_LIMIT:
        text = f"must be between 1 and {PORT_LIMIT}, inclusive"
        errors.append(invalid(f"{field}.port", port.port, text))
    if port.protocol and port.protocol not in PROTOCOLS:
        errors.append(not_supported(f"{field}.protocol", port.protocol, PROTOCOLS))
    return errors
