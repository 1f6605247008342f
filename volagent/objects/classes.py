"""What StorageClasses mean for claims. Pure."""

from collections.abc import Iterable

from volagent.objects.annotations import BETA_CLASS, BETA_DEFAULT_CLASS, DEFAULT_CLASS
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim, StorageClass

NO_PROVISIONER = "kubernetes.io/no-provisioner"
"""The provisioner of classes whose volumes are made by hand."""
WAIT_FOR_FIRST_CONSUMER = "WaitForFirstConsumer"


def choose_default_class(classes: Iterable[StorageClass]) -> StorageClass | None:
    """The class of claims that name none: of those marked as default the newest, then the first
    by name.

    Source: Kubernetes `pkg/volume/util/storageclass.go`.
    """
    marked = sorted((each for each in classes if is_default(each)), key=_name_of)
    return max(marked, key=_created_at, default=None)  # of equals, max takes the first


def is_default(storage_class: StorageClass) -> bool:
    """Whether a class is marked as default, by the annotation or by its older form."""
    annotations = storage_class.metadata.annotations or {}
    return "true" in (annotations.get(DEFAULT_CLASS), annotations.get(BETA_DEFAULT_CLASS))


def class_of_claim(claim: PersistentVolumeClaim) -> str:
    """The class a claim asks for, "" for none; the old annotation beats the field."""
    annotated = (claim.metadata.annotations or {}).get(BETA_CLASS)
    return annotated if annotated is not None else claim.spec.storage_class_name or ""


def class_of_volume(volume: PersistentVolume) -> str:
    """The class a volume belongs to; the old annotation beats the field."""
    annotated = (volume.metadata.annotations or {}).get(BETA_CLASS)
    return annotated if annotated is not None else volume.spec.storage_class_name


def names_no_class(claim: PersistentVolumeClaim) -> bool:
    """Whether a claim leaves its class open: "" is a choice, nothing at all is not."""
    annotated = BETA_CLASS in (claim.metadata.annotations or {})
    return claim.spec.storage_class_name is None and not annotated


def _name_of(storage_class: StorageClass) -> str:
    return storage_class.metadata.name


def _created_at(storage_class: StorageClass) -> str:
    return storage_class.metadata.creation_timestamp or ""
