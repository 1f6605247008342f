"""Records of nodes without iscsiadm, whose start takes longer than the rest of a login or logout.

The first record for an interface is made by iscsiadm, with its own defaults; the next ones are
copies of it with another target and portal, as long as nothing has changed that iscsiadm made it
from. Only what `iscsiadm -o new` would make is made, and only that is removed; for everything else
the answer is False, and iscsiadm has to do it. Where things lie: see `records.py`; beside that a
link `static/<iqn>,<address>,<port>,<tag>,<interface>` leads to the portal's directory.

Reads and writes files: for the pool.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from volagent.host.errors import HostError
from volagent.host.iscsi.records import (
    Records,
    change_settings,
    node_settings,
    read_settings,
    replace_private,
    split_portal,
)

_KIND: Final = "node.discovery_type"
_STATIC: Final = "static"


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A record as iscsiadm has made it, without any credentials."""

    directory: str
    made_from: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NodeRecords:
    """Makes and removes records of nodes."""

    records: Records
    _patterns: dict[str, _Pattern] = field(default_factory=dict)
    """By interface."""

    def make(
        self, iqn: str, portal: str, tag: str, interface: str, settings: Mapping[str, str]
    ) -> bool:
        """Make a record with these settings, as a copy. Raises `HostError`."""
        pattern = self._patterns.get(interface)
        if pattern is None or not tag or pattern.made_from != self._describe_sources(interface):
            return False
        if self.records.find_node(iqn, portal, interface) is not None:
            return False
        address, port = split_portal(portal)
        target = f"{pattern.directory}/nodes/{iqn}"
        where = f"{target}/{address},{port},{tag}"
        statics = f"{pattern.directory}/{_STATIC}"
        named = _name(iqn, portal, tag)
        try:
            text = change_settings(pattern.text, {**named, **settings})
            for directory in (os.path.dirname(target), target, where, statics):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(directory, 0o700)
            replace_private(f"{where}/{interface}", text, pattern.directory)
            with contextlib.suppress(FileExistsError):
                os.symlink(where, f"{statics}/{iqn},{address},{port},{tag},{interface}")
        except ValueError as error:
            raise HostError("record", portal, 0, str(error)) from None
        except OSError as error:
            raise HostError("write", where, error.errno or 0) from error
        return True

    def complete(
        self, iqn: str, portal: str, tag: str, interface: str, settings: Mapping[str, str]
    ) -> None:
        """Put settings into the record that iscsiadm has just made. Raises `HostError`."""
        file = self.records.find_node(iqn, portal, interface)
        if file is not None and tag:
            self._learn(file, interface, _name(iqn, portal, tag))
        self.records.write(file, settings, portal)

    def _learn(self, file: str, interface: str, named: Mapping[str, str]) -> None:
        with open(file) as stream:
            text = stream.read()
        found = read_settings(text)
        if found.get(_KIND) != _STATIC or any(found.get(key) != named[key] for key in named):
            return
        directory = next(d for d in self.records.directories if file.startswith(f"{d}/nodes/"))
        # What an administrator has set for everybody may have credentials; ours come later.
        text = change_settings(text, node_settings(None, several_paths=False))
        made_from = self._describe_sources(interface)
        self._patterns[interface] = _Pattern(directory, made_from, text)

    def remove(self, iqn: str, portal: str, interface: str) -> bool:
        """Remove a record, its link and what is empty then."""
        file = self.records.find_node(iqn, portal, interface)
        if file is None:
            return True
        try:
            if os.path.basename(file) != interface or self.records.read(file).get(_KIND) != _STATIC:
                return False  # of another layout, or another link leads to it
            where = os.path.dirname(file)
            target = os.path.dirname(where)
            directory = os.path.dirname(os.path.dirname(target))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{directory}/{_STATIC}/{iqn},{os.path.basename(where)},{interface}")
            os.unlink(file)
        except OSError:
            return False
        for empty in (where, target):
            with contextlib.suppress(OSError):  # other interfaces, other portals
                os.rmdir(empty)
        return True

    def _describe_sources(self, interface: str) -> str:
        """What iscsiadm makes a record from, as a digest."""
        digest = hashlib.sha256()
        for directory in self.records.directories:
            for name in ("iscsid.conf", f"ifaces/{interface}"):
                try:
                    with open(f"{directory}/{name}", "rb") as file:
                        digest.update(file.read())
                except OSError:
                    digest.update(b"-")
                digest.update(b"\0")
        return digest.hexdigest()


def _name(iqn: str, portal: str, tag: str) -> dict[str, str]:
    address, port = split_portal(portal)
    return {
        "node.name": iqn,
        "node.tpgt": tag,
        "node.conn[0].address": address,
        "node.conn[0].port": port,
    }
