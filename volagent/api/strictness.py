"""Unknown top-level fields: `fieldValidation=Strict` refuses them, `Warn` says so, else kept.

Only the top level is looked at: the documents keep fields of Kubernetes versions that volagent does
not know, so deeper down an unknown field is no sign of a mistake.
"""

from volagent.client.contract import BadRequest
from volagent.objects.meta import Document

_ENVELOPE = {"kind", "apiVersion", "metadata"}
_SPEC_STATUS = _ENVELOPE | {"spec", "status"}
_FIELDS: dict[str, set[str]] = {
    "Pod": _SPEC_STATUS,
    "Node": _SPEC_STATUS,
    "Namespace": _SPEC_STATUS,
    "PersistentVolume": _SPEC_STATUS,
    "PersistentVolumeClaim": _SPEC_STATUS,
    "Secret": _ENVELOPE | {"data", "stringData", "type", "immutable"},
    "ConfigMap": _ENVELOPE | {"data", "binaryData", "immutable"},
    "ServiceAccount": _ENVELOPE | {"secrets", "imagePullSecrets", "automountServiceAccountToken"},
}


def check_fields(document: Document, kind: str, validation: str) -> tuple[str, ...]:
    """Warnings about unknown fields; `validation` is the query's `fieldValidation`.

    Raises `BadRequest` naming the fields when it is `Strict`.
    """
    known = _FIELDS.get(kind)
    if validation in ("", "Ignore") or known is None or document.keys() <= known:
        return ()
    unknown = [f'unknown field "{field}"' for field in document if field not in known]
    if validation == "Warn":
        return tuple(unknown)
    raise BadRequest(
        f'{kind} in version "{document["apiVersion"]}" cannot be handled as a {kind}:'
        f" strict decoding error: {', '.join(unknown)}"
    )
