"""The body of `pods/binding`: which node a scheduler has chosen for a pod. Pure."""

from typing import Any

import msgspec

from volagent.client.contract import BadRequest, Invalid
from volagent.objects.field_errors import InvalidObject, not_supported, required
from volagent.objects.meta import ObjectReference, TypedObject
from volagent.objects.reading import explain_type_error


class Binding(TypedObject, frozen=True):
    """A `v1` Binding; `target` names the node."""

    target: ObjectReference = ObjectReference()


def read_binding(document: Any, pod: str) -> Binding:
    """The body of a request for a pod's binding. Raises `BadRequest`, `Invalid`."""
    if not isinstance(document, dict):
        raise BadRequest("the body must be a Binding")
    try:
        binding = msgspec.convert(document, Binding)
    except msgspec.ValidationError as error:
        problem = explain_type_error(error, document, Binding)
        raise BadRequest(str(problem)) from error
    if binding.kind not in ("", "Binding"):
        raise BadRequest(f"the kind in the data ({binding.kind}) does not match Binding")
    if binding.metadata.name not in ("", pod):
        raise BadRequest(
            f"the name of the object ({binding.metadata.name}) does not match the name on the URL"
            f" ({pod})"
        )
    target, errors = binding.target, []
    if target.kind not in ("", "Node"):
        errors.append(not_supported("target.kind", target.kind, ("Node", "<empty>")))
    if not target.name:
        errors.append(required("target.name"))
    if errors:
        raise Invalid(InvalidObject("Binding", pod, errors).describe(), details={"name": pod})
    return binding
