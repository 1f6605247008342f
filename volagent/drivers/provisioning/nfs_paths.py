"""Which directory of an export a claim gets. Pure.

`pathPattern` is nfs-subdir-external-provisioner's: `${.PVC.namespace}`, `${.PVC.name}`,
`${.PVC.labels.x}`, `${.PVC.annotations.x}` are replaced; what the claim lacks becomes nothing. The
result may have several parts, and every part is checked: a claim's author chooses names and labels,
and must not choose a place outside, or that of another.
"""

import re
from collections.abc import Mapping
from typing import Final

from volagent.drivers.errors import Rejected
from volagent.drivers.provisioning.contract import VolumeRequest

PART_BYTES_MAX: Final = 255
PATH_BYTES_MAX: Final = 1024
_FIELD: Final = re.compile(r"\$\{\.PVC\.([^}]*)\}")
_STORE: Final = ".volagent"


def choose_directory(request: VolumeRequest, pattern: str | None) -> str:
    """The directory below the export's root. Raises `Rejected`."""
    if not pattern:
        text = f"{request.claim_namespace}-{request.claim_name}-{request.name}"
        return text if len(text.encode()) <= PART_BYTES_MAX else request.name
    path = _FIELD.sub(lambda match: _value_of(request, match[1]), pattern)
    parts = [part for part in path.split("/") if part]
    if "$" in path or not parts:
        raise Rejected(
            f"pathPattern {pattern!r} gives {path!r}, which is no directory",
            remedy="use ${.PVC.namespace}, ${.PVC.name}, ${.PVC.labels.NAME},"
            " ${.PVC.annotations.NAME}",
        )
    for part in parts:
        _check_part(part, pattern)
    if parts[0] == _STORE:
        raise Rejected(f"pathPattern {pattern!r} leads into {_STORE}, where the markers are")
    directory = "/".join(parts)
    if len(directory.encode()) > PATH_BYTES_MAX:
        raise Rejected(f"pathPattern {pattern!r} gives a path of over {PATH_BYTES_MAX} bytes")
    return directory


def _check_part(part: str, pattern: str) -> None:
    wrong = part in (".", "..") or any(ord(sign) < 32 or ord(sign) == 127 for sign in part)
    if wrong or len(part.encode()) > PART_BYTES_MAX:
        raise Rejected(
            f"pathPattern {pattern!r} gives a part {part!r}",
            remedy="a part is a plain name of at most 255 bytes, not . or ..",
        )


def _value_of(request: VolumeRequest, field: str) -> str:
    kind, _, name = field.partition(".")
    match kind:
        case "name":
            return request.claim_name
        case "namespace":
            return request.claim_namespace
        case "labels":
            return _look_up(request.claim_labels, name)
        case "annotations":
            return _look_up(request.claim_annotations, name)
        case _:
            raise Rejected(f"pathPattern: there is no field .PVC.{field}",
                           remedy="name, namespace, labels.NAME, annotations.NAME")  # fmt: skip


def _look_up(values: Mapping[str, str], name: str) -> str:
    return values.get(name, "")
