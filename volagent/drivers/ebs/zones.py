"""In which zone a volume is made, and how a PersistentVolume says so. Pure.

The node of the claim's pod decides where there is one; else the class's `allowedTopologies` or
`zones`, and this machine's own zone before any other, because that is where the pod will be.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from volagent.drivers.errors import Rejected
from volagent.objects.meta import Document

ZONE: Final = "topology.kubernetes.io/zone"
REGION: Final = "topology.kubernetes.io/region"
ZONE_KEYS: Final = (ZONE, "failure-domain.beta.kubernetes.io/zone", "topology.ebs.csi.aws.com/zone")
"""By which labels and topologies name a zone; the first is written."""


def choose_zone(
    claim: str,
    *,
    own: str,
    node_labels: Mapping[str, str],
    allowed_topologies: Sequence[Mapping[str, Any]],
    zones: Sequence[str],
) -> str:
    """The zone for a claim's volume. Raises `Rejected` when none is allowed.

    Several claims spread over the allowed zones by their names, always the same way.
    """
    allowed = _allowed_zones(allowed_topologies)
    if zones and allowed:
        raise Rejected(
            "zone and zones cannot be given together with allowedTopologies",
            remedy="make a class with allowedTopologies only",
        )
    candidates = sorted(allowed or zones)
    fixed = next((node_labels[key] for key in ZONE_KEYS if node_labels.get(key)), "")
    if fixed:
        if candidates and fixed not in candidates:
            raise Rejected(
                f"the chosen node is in zone {fixed}, the class allows {', '.join(candidates)}",
                remedy="let the pod go to a node there, or allow the node's zone",
            )
        return fixed
    if not candidates or own in candidates:
        return own
    return candidates[zlib.crc32(claim.encode()) % len(candidates)]


def _allowed_zones(topologies: Sequence[Mapping[str, Any]]) -> set[str]:
    return {
        str(value)
        for term in topologies
        for expression in term.get("matchLabelExpressions") or ()
        if expression.get("key") in ZONE_KEYS
        for value in expression.get("values") or ()
    }


def affinity_to_zone(zone: str) -> Document:
    """The node affinity of a volume that is in one zone."""
    expression = {"key": ZONE, "operator": "In", "values": [zone]}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}


def region_of(zone: str) -> str:
    """`us-east-1a` → `us-east-1`, `us-west-2-lax-1a` → `us-west-2`; "" when it has no such form."""
    parts = zone.split("-")
    for count, part in enumerate(parts, start=1):
        digits = part.rstrip("abcdefghijklmnopqrstuvwxyz")
        if count > 1 and digits.isdecimal():
            return "-".join([*parts[: count - 1], digits])
    return ""
