"""Rules for Fencings."""

from volagent.objects.fencing import IMPOSSIBLE, METHODS, PHASES, PROVEN, Fencing
from volagent.objects.field_errors import FieldError, invalid, not_supported, required
from volagent.objects.meta import Document
from volagent.objects.names import check_subdomain
from volagent.objects.validate_meta import validate_metadata

_ENDS = (PROVEN, IMPOSSIBLE)


def validate_fencing(fencing: Fencing, _document: Document) -> list[FieldError]:
    """What is wrong with a Fencing."""
    errors = validate_metadata(fencing.metadata, namespaced=False)
    spec = fencing.spec
    if not spec.attachment.uid:
        errors.append(required("spec.attachment.uid"))
    if not spec.volume:
        errors.append(required("spec.volume"))
    if not spec.node_name:
        errors.append(required("spec.nodeName"))
    for field, name in (("spec.nodeName", spec.node_name), ("spec.executor", spec.executor)):
        reasons = check_subdomain(name) if name else ()
        errors += [invalid(field, name, reason) for reason in reasons]
    if spec.executor and spec.executor == spec.node_name:
        text = "a node cannot prove of itself that it is kept out"
        errors.append(invalid("spec.executor", spec.executor, text))
    if spec.method not in METHODS:
        errors.append(not_supported("spec.method", spec.method, METHODS))
    return errors


def validate_fencing_change(old: Document, new: Document) -> list[FieldError]:
    """A wish is taken back, not changed."""
    if old["spec"] == new["spec"]:
        return []
    return [invalid("spec", new["spec"], "field is immutable")]


def validate_fencing_status(old: Document, new: Document) -> list[FieldError]:
    """What was proved stays so; what did not is tried again by another Fencing."""
    before, after = (
        (document.get("status") or {}).get("phase", "") for document in (old, new)
    )  # fmt: skip
    if after not in PHASES:
        return [not_supported("status.phase", after, PHASES)]
    if before in _ENDS and after != before:
        return [invalid("status.phase", after, f"it is {before} for good")]
    return []
