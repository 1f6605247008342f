"""The class's parameters that the controller itself reads, and those it passes on. Pure."""

import re
from collections.abc import Mapping

from volagent.drivers.errors import Rejected
from volagent.objects.annotations import TRASH_RETENTION
from volagent.objects.storage_nodes import STORAGE_NODE

OWN_PREFIX = "volagent.dev/"
_OWN = (TRASH_RETENTION, STORAGE_NODE)
_RETENTION = re.compile(r"(\d{1,9})(s|m|h|d|)")
_FACTOR_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def passed_on(parameters: Mapping[str, str] | None) -> dict[str, str]:
    """What the backend gets: everything but our own, `csi.storage.k8s.io/fstype` included."""
    return {
        name: value for name, value in (parameters or {}).items() if not name.startswith(OWN_PREFIX)
    }


def read_retention_s(parameters: Mapping[str, str] | None, default_s: int) -> int:
    """How many seconds the volumes of a class stay in the trash.

    Raises `Rejected` for a text that is no duration, and for a parameter of ours that is none.
    """
    given = parameters or {}
    for name in given:
        if name.startswith(OWN_PREFIX) and name not in _OWN:
            raise Rejected(
                f'unknown parameter "{name}"',
                remedy=f"of this prefix there are {' and '.join(_OWN)}",
            )
    text = given.get(TRASH_RETENTION)
    return default_s if text is None else parse_retention_s(text)


def parse_retention_s(text: str) -> int:
    """`30s`, `15m`, `12h`, `7d`, `0`, `3600` → seconds. Raises `Rejected`."""
    found = _RETENTION.fullmatch(text.strip())
    if found is None:
        raise Rejected(
            f'parameter {TRASH_RETENTION}: "{text}" is no duration',
            remedy="give one such as 30s, 15m, 12h, 7d, or 0 to delete at once",
        )
    return int(found[1]) * _FACTOR_S[found[2]]


def recorded_retention_s(annotations: Mapping[str, str] | None, default_s: int) -> int:
    """What a volume's annotation says, or the default where it says nothing that can be read."""
    try:
        return parse_retention_s((annotations or {}).get(TRASH_RETENTION, str(default_s)))
    except Rejected:
        return default_s
