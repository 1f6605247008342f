"""Rules for Secrets and ConfigMaps, new and changed.

Source: Kubernetes `pkg/apis/core/validation/validation.go` (`ValidateSecret`,
`ValidateConfigMap`). A message never holds a value of a Secret, only keys.
"""

from collections.abc import Iterable, Mapping

from volagent.objects.field_errors import FieldError, forbidden, invalid, required, too_long
from volagent.objects.meta import Document
from volagent.objects.names import check_config_key
from volagent.objects.storage import ConfigMap, Secret
from volagent.objects.validate_meta import validate_metadata

DATA_LIMIT_BYTES = 1024 * 1024
_SERVICE_ACCOUNT = "kubernetes.io/service-account.name"
_NEEDED_KEYS: dict[str, tuple[str, ...]] = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


class GivenSecret(Secret, frozen=True):
    """A Secret as clients send it: values may also be in `stringData`, as plain text."""

    string_data: dict[str, str] | None = None

    def __repr__(self) -> str:
        return super().__repr__()


def strip_base64(document: Document, field: str) -> Document:
    """The document without line breaks in its base64 values, which Kubernetes accepts."""
    data = document.get(field)
    if not isinstance(data, dict):
        return document
    broken = [
        key
        for key, value in data.items()
        if isinstance(value, str) and ("\n" in value or "\r" in value)
    ]
    if not broken:
        return document
    mended = {key: data[key].replace("\n", "").replace("\r", "") for key in broken}
    return {**document, field: {**data, **mended}}


def validate_secret(secret: GivenSecret, _document: Document) -> list[FieldError]:
    """What is wrong with a Secret."""
    errors = validate_metadata(secret.metadata, namespaced=True)
    data, texts = secret.data or {}, secret.string_data or {}
    errors += _validate_keys(data, "data")
    errors += _validate_keys(texts, "stringData")
    size = sum(len(value) for key, value in data.items() if key not in texts)
    if size + sum(len(text.encode()) for text in texts.values()) > DATA_LIMIT_BYTES:
        errors.append(too_long("data", DATA_LIMIT_BYTES))
    kind = secret.type or "Opaque"
    for key in _NEEDED_KEYS.get(kind, ()):
        if key not in data and key not in texts:
            errors.append(required(f"data[{key}]"))
    if kind == "kubernetes.io/basic-auth" and not {"username", "password"} & (
        data.keys() | texts.keys()
    ):
        errors.append(required("data[username]", "username or password is needed"))
    if kind == "kubernetes.io/service-account-token" and not (
        secret.metadata.annotations or {}
    ).get(_SERVICE_ACCOUNT):
        errors.append(required(f"metadata.annotations[{_SERVICE_ACCOUNT}]"))
    return errors


def validate_secret_change(old: Document, new: Document) -> list[FieldError]:
    """What may not change in a Secret."""
    errors: list[FieldError] = []
    if old.get("type", "Opaque") != new.get("type", "Opaque"):
        errors.append(invalid("type", new.get("type"), "field is immutable"))
    return errors + _validate_frozen(old, new, ("data",))


def validate_config_map(config_map: ConfigMap, _document: Document) -> list[FieldError]:
    """What is wrong with a ConfigMap."""
    errors = validate_metadata(config_map.metadata, namespaced=True)
    texts, binaries = config_map.data or {}, config_map.binary_data or {}
    errors += _validate_keys(texts, "data")
    errors += _validate_keys(binaries, "binaryData")
    for key in texts:
        if key in binaries:
            text = "duplicate of key present in binaryData"
            errors.append(invalid(f"data[{key}]", key, text))
    size = sum(len(text.encode()) for text in texts.values())
    if size + sum(len(value) for value in binaries.values()) > DATA_LIMIT_BYTES:
        errors.append(too_long("data", DATA_LIMIT_BYTES))
    return errors


def validate_config_map_change(old: Document, new: Document) -> list[FieldError]:
    """What may not change in a ConfigMap."""
    return _validate_frozen(old, new, ("data", "binaryData"))


def _validate_keys(data: Mapping[str, object], field: str) -> list[FieldError]:
    return [
        invalid(f"{field}[{key}]", key, reason) for key in data for reason in check_config_key(key)
    ]


def _validate_frozen(old: Document, new: Document, fields: Iterable[str]) -> list[FieldError]:
    if not old.get("immutable"):
        return []
    text = "field is immutable when `immutable` is set"
    errors = [] if new.get("immutable") else [forbidden("immutable", text)]
    errors += [
        forbidden(field, text)
        for field in fields
        if (old.get(field) or {}) != (new.get(field) or {})
    ]
    return errors
