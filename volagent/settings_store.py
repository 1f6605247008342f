"""The settings of where objects are kept."""

import re
from typing import Literal

import msgspec

_ENDPOINT = re.compile(r"(https?)://(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):\d{1,5}")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OWN_MACHINE = frozenset({"127.0.0.1", "localhost", "[::1]"})

Mistake = tuple[str, str, str]
"""Key, what is wrong, a hint."""


class StoreSettings(msgspec.Struct, frozen=True):
    """Where objects are kept."""

    kind: Literal["sqlite", "etcd"] = "sqlite"
    endpoints: tuple[str, ...] = ()
    """The members of an etcd cluster, `https://address:port`."""
    prefix: str = "volagent"
    ca: str = ""
    """PEM: the authority that etcd's certificates are of."""
    certificate: str = ""
    key: str = ""

    def find_mistake(self) -> Mistake | None:
        """What makes these settings unusable."""
        if self.kind == "sqlite":
            return None
        if not self.endpoints:
            return "kind", '"etcd" needs "store.endpoints"', 'such as ["https://10.0.0.1:2379"]'
        for endpoint in self.endpoints:
            match = _ENDPOINT.fullmatch(endpoint)
            if match is None:
                return "endpoints", f"{endpoint!r} is not https://ADDRESS:PORT", ""
            if match[1] == "http" and match[2] not in _OWN_MACHINE:
                return (
                    "endpoints", f"{endpoint!r}: secrets would cross the network readable",
                    "http:// is for 127.0.0.1 only; give etcd certificates and use https://",
                )  # fmt: skip
        if not _PREFIX.fullmatch(self.prefix):
            return "prefix", f"{self.prefix!r} is not lower-case letters, digits and dashes", ""
        if bool(self.certificate) != bool(self.key):
            return "certificate", '"store.certificate" and "store.key" go together', ""
        return None
