"""Rules for VolumeAttachments. Source: Kubernetes `pkg/apis/storage/validation/validation.go`."""

from volagent.objects.attachments import VolumeAttachment
from volagent.objects.field_errors import FieldError, forbidden, invalid, required
from volagent.objects.meta import Document
from volagent.objects.names import check_subdomain
from volagent.objects.validate_meta import validate_metadata
from volagent.objects.validate_volumes import validate_driver_name

METADATA_LIMIT_BYTES = 256 * 1024
_ONE_OF = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"


def validate_attachment(attachment: VolumeAttachment, _document: Document) -> list[FieldError]:
    """What is wrong with a VolumeAttachment."""
    errors = validate_metadata(attachment.metadata, namespaced=False)
    spec = attachment.spec
    errors += validate_driver_name(spec.attacher, "spec.attacher")
    name, inline = spec.source.persistent_volume_name, spec.source.inline_volume_spec
    if name is None and inline is None:
        errors.append(required("spec.source", _ONE_OF))
    elif name is not None and inline is not None:
        errors.append(forbidden("spec.source", _ONE_OF))
    elif name is not None:
        field = "spec.source.persistentVolumeName"
        errors += [invalid(field, name, reason) for reason in check_subdomain(name)]
    if not spec.node_name:
        errors.append(required("spec.nodeName"))
    else:
        reasons = check_subdomain(spec.node_name)
        errors += [invalid("spec.nodeName", spec.node_name, reason) for reason in reasons]
    facts = attachment.status.attachment_metadata or {}
    if sum(len(key) + len(value) for key, value in facts.items()) > METADATA_LIMIT_BYTES:
        text = f"Too long: must have at most {METADATA_LIMIT_BYTES} bytes"
        errors.append(FieldError("status.attachmentMetadata", "FieldValueTooLong", text))
    return errors


def validate_attachment_change(old: Document, new: Document) -> list[FieldError]:
    """A wish is taken back, not changed."""
    if old["spec"] == new["spec"]:
        return []
    return [invalid("spec", new["spec"], "field is immutable")]
