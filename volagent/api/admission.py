"""Between the registry and the rules of the kinds: defaults and validation as API errors.

The rules themselves are in `objects/`, which knows nothing of HTTP; here their verdicts become
`Status` errors, and what depends on other objects is filled in as kube-apiserver's admission
plug-ins do (DefaultStorageClass, StorageObjectInUseProtection). Neither argument is changed in
place.
"""

from typing import Any, Protocol

from volagent.api.token_volume import add_token_volume
from volagent.client.contract import (
    CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    ApiError,
    BadRequest,
    Forbidden,
    Invalid,
    Resource,
)
from volagent.objects.annotations import BETA_CLASS, CLAIM_PROTECTION, VOLUME_PROTECTION
from volagent.objects.field_errors import InvalidObject, MalformedObject
from volagent.objects.meta import Document
from volagent.objects.quantity import parse_quantity
from volagent.objects.validate import prepare_create, prepare_update

_PROTECTION = {CLAIMS: CLAIM_PROTECTION, PERSISTENT_VOLUMES: VOLUME_PROTECTION}


class Surroundings(Protocol):
    """What admission must know of other objects; may lag behind by a moment."""

    def default_class(self) -> str:
        """The class of claims that name none, or ""."""

    def class_can_grow(self, name: str) -> bool:
        """Whether a StorageClass lets its claims grow."""

    def mounts_token(self, namespace: str, account: str) -> bool:
        """Whether pods of a service account get its token without asking."""


class NoSurroundings:
    """Nothing else exists."""

    def default_class(self) -> str:
        """No class is the default."""
        return ""

    def class_can_grow(self, name: str) -> bool:
        """No class lets its claims grow."""
        return False

    def mounts_token(self, namespace: str, account: str) -> bool:
        """Nobody gets a token without asking."""
        return False


class Admission:
    """What a document must be before it is stored."""

    def __init__(self) -> None:
        self.surroundings: Surroundings = NoSurroundings()
        """Set by the composition root once they are known."""

    def prepare_create(self, resource: Resource, document: Document) -> Document:
        """The document with defaults. Raises `Invalid`, or `BadRequest` for a wrong type."""
        try:
            prepared = prepare_create(resource.kind, document)
        except (InvalidObject, MalformedObject) as error:
            raise _explain(error, resource) from error
        if resource is PODS:
            return self._give_token(prepared)
        finalizer = _PROTECTION.get(resource)
        if finalizer is None:
            return prepared
        metadata = prepared["metadata"]
        held = metadata.get("finalizers") or []
        if finalizer not in held:
            metadata = {**metadata, "finalizers": [*held, finalizer]}
            prepared = {**prepared, "metadata": metadata}
        return self._choose_class(prepared) if resource is CLAIMS else prepared

    def _give_token(self, pod: Document) -> Document:
        """The default token volume, unless the pod or its account declines (ServiceAccount)."""
        spec = pod["spec"]
        wanted = spec.get("automountServiceAccountToken")
        if wanted is False:
            return pod
        namespace, account = pod["metadata"].get("namespace", ""), spec["serviceAccountName"]
        # A pod that insists gets one whatever its account says, but not where tokens are off.
        if not self.surroundings.mounts_token(namespace, "" if wanted else account):
            return pod
        return add_token_volume(pod)

    def _choose_class(self, claim: Document) -> Document:
        if claim["spec"].get("storageClassName") is not None:
            return claim
        if BETA_CLASS in (claim["metadata"].get("annotations") or {}):
            return claim
        name = self.surroundings.default_class()
        return {**claim, "spec": {**claim["spec"], "storageClassName": name}} if name else claim

    def prepare_update(
        self, resource: Resource, old: Document, new: Document, *, subresource: str = ""
    ) -> Document:
        """The new document with defaults.

        Raises `Invalid` (also for a change of what is immutable), `BadRequest`, `Forbidden`.
        """
        try:
            prepared = prepare_update(resource.kind, old, new, subresource=subresource)
        except (InvalidObject, MalformedObject) as error:
            raise _explain(error, resource) from error
        if resource is CLAIMS and not subresource:
            self._check_growth(old, prepared)
        return prepared

    def _check_growth(self, old: Document, new: Document) -> None:
        """A bound claim grows only if its class lets it. Raises `Forbidden`."""
        held, wanted = _requested(old), _requested(new)
        if wanted == held or parse_quantity(wanted) <= parse_quantity(held):
            return
        annotations = new["metadata"].get("annotations") or {}
        name = annotations.get(BETA_CLASS) or new["spec"].get("storageClassName") or ""
        if not self.surroundings.class_can_grow(name):
            raise Forbidden(
                f'persistentvolumeclaims "{new["metadata"]["name"]}" is forbidden: only dynamically'
                " provisioned pvc can be resized and the storageclass that provisions the pvc must"
                " support resize; to grow the volume by hand, raise spec.capacity.storage of"
                f" PersistentVolume {new['spec'].get('volumeName')}",
                details={"name": new["metadata"]["name"], "kind": CLAIMS.plural},
            )


def _explain(error: InvalidObject | MalformedObject, resource: Resource) -> ApiError:
    match error:
        case InvalidObject():
            return Invalid(error.describe(), details=_details(error, resource))
        case MalformedObject():
            return BadRequest(
                f'{resource.kind} in version "{resource.api_version}" cannot be handled as a'
                f" {resource.kind}: {error}",
                details={"causes": [{"field": error.field, "message": error.message}]},
            )


def _details(error: InvalidObject, resource: Resource) -> dict[str, Any]:
    details: dict[str, Any] = {"name": error.name, "kind": resource.kind}
    if resource.group:
        details["group"] = resource.group
    details["causes"] = [
        {"reason": cause.reason, "message": cause.message, "field": cause.field}
        for cause in error.errors
    ]
    return details


def _requested(claim: Document) -> str | int:
    amount: str | int = claim["spec"]["resources"]["requests"]["storage"]
    return amount
