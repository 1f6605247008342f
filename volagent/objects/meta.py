"""Object metadata shared by every kind."""

from typing import Any, NewType

import msgspec

PodUid = NewType("PodUid", str)
"""A pod's `metadata.uid`: a UUID in its canonical text form, safe as a file name."""

Document = dict[str, Any]
"""A whole object as JSON: what the store keeps and the API speaks."""


class View(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Base of the typed views: frozen, camelCase on the wire, unknown fields ignored."""


class OwnerReference(View, frozen=True):
    """`metadata.ownerReferences[]`."""

    api_version: str = ""
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(View, frozen=True):
    """`metadata` of any object. Times are RFC 3339 strings as stored."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    owner_references: list[OwnerReference] | None = None


class TypedObject(View, frozen=True):
    """The envelope of every view: its kind and its metadata."""

    kind: str = ""
    api_version: str = ""
    metadata: ObjectMeta = ObjectMeta()


class ObjectReference(View, frozen=True):
    """A reference to another object, as in `claimRef` and `involvedObject`."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""
    field_path: str = ""


class LocalObjectReference(View, frozen=True):
    """A reference to an object of the same namespace (`secretRef`)."""

    name: str = ""


class SecretReference(View, frozen=True):
    """A reference to a Secret in a namespace, as PersistentVolumes use it."""

    name: str = ""
    namespace: str = ""
