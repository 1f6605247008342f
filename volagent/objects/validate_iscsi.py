"""Rules for `iscsi`, of a pod and of a PersistentVolume.

Source: Kubernetes `pkg/apis/core/validation/validation.go`, `validateISCSIVolumeSource` and
`validateISCSIPersistentVolumeSource`.
"""

import re
from typing import Final

from volagent.objects.field_errors import FieldError, invalid, required
from volagent.objects.volumes import ISCSISource, PersistentISCSISource

LUN_MAX: Final = 255
_NAMES: Final = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.[A-Za-z0-9.-]+:[^,;*&$|\s]+", re.ASCII),
    "eui": re.compile(r"eui\.[A-Za-z0-9]{16}"),
    "naa": re.compile(r"naa\.[A-Za-z0-9]{32}"),
}


def validate_iscsi(source: ISCSISource | PersistentISCSISource, field: str) -> list[FieldError]:
    """`iscsi` of a pod."""
    errors = [] if source.target_portal else [required(f"{field}.targetPortal")]
    if not source.iqn:
        errors.append(required(f"{field}.iqn"))
    else:
        errors += _validate_name(source.iqn, f"{field}.iqn")
    if not 0 <= source.lun <= LUN_MAX:
        text = f"must be between 0 and {LUN_MAX}, inclusive"
        errors.append(invalid(f"{field}.lun", source.lun, text))
    if (source.chap_auth_discovery or source.chap_auth_session) and source.secret_ref is None:
        errors.append(required(f"{field}.secretRef"))
    if source.initiator_name is not None:
        errors += _validate_name(source.initiator_name, f"{field}.initiatorname")
    return errors


def validate_persistent_iscsi(source: PersistentISCSISource, field: str) -> list[FieldError]:
    """`iscsi` of a PersistentVolume."""
    errors = validate_iscsi(source, field)
    if source.secret_ref is not None and not source.secret_ref.name:
        errors.append(required(f"{field}.secretRef.name"))
    return errors


def _validate_name(name: str, field: str) -> list[FieldError]:
    form = _NAMES.get(name[:3])
    if form is None:
        text = "must be valid format starting with iqn, eui, or naa"
        return [invalid(field, name, text)]
    return [] if form.fullmatch(name) else [invalid(field, name, "must be valid format")]
