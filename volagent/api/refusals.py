"""The errors of the registry, in kube-apiserver's words. Pure."""

from types import TracebackType
from typing import Any

from volagent.api.resources import Traits
from volagent.client.contract import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    InsufficientStorage,
    Invalid,
    NotFound,
    Timeout,
    Unavailable,
)
from volagent.store.contract import (
    Broken,
    Compacted,
    Deposed,
    FutureRevision,
    KeyExists,
    Mismatch,
    NoSpace,
    StoreError,
    Uncertain,
    Unreachable,
)


def not_found(traits: Traits, name: str) -> NotFound:
    """There is no such object."""
    return NotFound(f'{traits.qualified} "{name}" not found', details=_details(traits, name))


def already_exists(traits: Traits, name: str) -> AlreadyExists:
    """The name is taken."""
    return AlreadyExists(
        f'{traits.qualified} "{name}" already exists', details=_details(traits, name)
    )


def modified_meanwhile(traits: Traits, name: str) -> Conflict:
    """The caller's revision is not the current one."""
    return _conflict(
        traits, name,
        "the object has been modified; please apply your changes to the latest version and try "
        "again",
    )  # fmt: skip


def wrong_uid(traits: Traits, name: str, wanted: str, found: str) -> Conflict:
    """The object is another one of the same name."""
    return _conflict(
        traits, name,
        f"Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}",
    )  # fmt: skip


def wrong_revision(traits: Traits, name: str, wanted: str, found: str) -> Conflict:
    """The object is not in the revision that a delete asked for."""
    return _conflict(
        traits, name,
        f"Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in "
        f"object meta: {found}",
    )  # fmt: skip


def namespace_ending(traits: Traits, name: str, namespace: str) -> Forbidden:
    """Nothing can be created in a namespace that is going."""
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    return Forbidden(
        f'{traits.qualified} "{name}" is forbidden: {why}',
        details=_details(traits, name)
        | {
            "causes": [
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {namespace} is being terminated",
                    "field": "metadata.namespace",
                }
            ]
        },
    )


def forbidden(traits: Traits, name: str, why: str) -> Forbidden:
    """The request breaks a policy."""
    return Forbidden(
        f'{traits.qualified} "{name}" is forbidden: {why}', details=_details(traits, name)
    )


def invalid(traits: Traits, name: str, field: str, why: str, reason: str) -> Invalid:
    """One field breaks a rule; `why` is the text after the field's name."""
    kind = traits.resource.kind
    return Invalid(
        f'{kind} "{name}" is invalid: {field}: {why}',
        details={
            "name": name,
            "group": traits.resource.group,
            "kind": kind,
            "causes": [{"reason": reason, "message": why, "field": field}],
        },
    )


def from_store(error: StoreError) -> ApiError:
    """What a caller is told when the store cannot answer."""
    match error:
        case Compacted():
            return Gone(f"too old resource version: {error}")
        case FutureRevision():
            return Timeout(
                f"Too large resource version: {error}",
                details={
                    "causes": [
                        {
                            "reason": "ResourceVersionTooLarge",
                            "message": "Too large resource version",
                        }
                    ],
                    "retryAfterSeconds": 1,
                },
                retry_after_s=1,
            )
        case NoSpace():
            return InsufficientStorage(f"{error}: free some and try again")
        case Unreachable() | Deposed():
            return Unavailable(f"nothing was written: {error}", retry_after_s=1)
        case Uncertain():
            return Timeout(f"{error}; read it again", retry_after_s=1)
        case Broken():
            return Unavailable(f"the store is broken: {error}", retry_after_s=1)
        case _:
            return ApiError(str(error))


def read_revision(text: str) -> int:
    """A `resourceVersion` as a number. Raises `BadRequest`."""
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadRequest(f'Invalid value: "{text}": resourceVersion must be a number')
    return int(text)


def deletion_status(traits: Traits, name: str, uid: str) -> dict[str, Any]:
    """The `Status` that a DELETE of a kind without an afterlife answers with."""
    details: dict[str, Any] = {"name": name, "kind": traits.resource.plural, "uid": uid}
    if traits.resource.group:
        details["group"] = traits.resource.group
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    }  # fmt: skip


def _conflict(traits: Traits, name: str, why: str) -> Conflict:
    return Conflict(
        f'Operation cannot be fulfilled on {traits.qualified} "{name}": {why}',
        details=_details(traits, name),
    )


def _details(traits: Traits, name: str) -> dict[str, Any]:
    details = {"name": name, "kind": traits.resource.plural}
    if traits.resource.group:
        details["group"] = traits.resource.group
    return details


class _StoreErrors:
    """As a context: a store's error leaves it as the API's. Reentrant, without state."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if isinstance(error, StoreError) and not isinstance(error, KeyExists | Mismatch):
            raise from_store(error) from error


STORE_ERRORS = _StoreErrors()
"""Around calls of the store. `KeyExists` and `Mismatch` pass: the registry answers those itself."""
