"""Between the registry and the rules of the kinds: defaults and validation as API errors.

The rules themselves are in `objects/`, which knows nothing of HTTP; here their verdicts become
`Status` errors. Pure; neither argument is changed in place.
"""

from typing import Any

from volagent.client.contract import ApiError, BadRequest, Forbidden, Invalid, Resource
from volagent.objects.field_errors import InvalidObject, MalformedObject, RefusedChange
from volagent.objects.meta import Document
from volagent.objects.validate import prepare_create, prepare_update


class Admission:
    """What a document must be before it is stored."""

    def prepare_create(self, resource: Resource, document: Document) -> Document:
        """The document with defaults. Raises `Invalid`, or `BadRequest` for a wrong type."""
        try:
            return prepare_create(resource.kind, document)
        except (InvalidObject, MalformedObject, RefusedChange) as error:
            raise _explain(error, resource) from error

    def prepare_update(
        self, resource: Resource, old: Document, new: Document, *, subresource: str = ""
    ) -> Document:
        """The new document with defaults.

        Raises `Invalid` (also for a change of what is immutable), `BadRequest`, `Forbidden`.
        """
        try:
            return prepare_update(resource.kind, old, new, subresource=subresource)
        except (InvalidObject, MalformedObject, RefusedChange) as error:
            raise _explain(error, resource) from error


def _explain(
    error: InvalidObject | MalformedObject | RefusedChange, resource: Resource
) -> ApiError:
    match error:
        case InvalidObject():
            return Invalid(error.describe(), details=_details(error, resource))
        case MalformedObject():
            return BadRequest(
                f'{resource.kind} in version "{resource.api_version}" cannot be handled as a'
                f" {resource.kind}: {error}",
                details={"causes": [{"field": error.field, "message": error.message}]},
            )
        case RefusedChange():
            return Forbidden(str(error), details={"kind": resource.plural})


def _details(error: InvalidObject, resource: Resource) -> dict[str, Any]:
    details: dict[str, Any] = {"name": error.name, "kind": resource.kind}
    if resource.group:
        details["group"] = resource.group
    details["causes"] = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field}
        for cause in error.errors
    ]
    return details
