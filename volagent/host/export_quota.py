"""Limits for the directories of volumes, where the file system of an export can.

Each limited volume has a project number of its own, derived from its name, so that a creation that
was interrupted finds the same one again. The number is claimed like a path (`export_records.py`),
and one that somebody else on the file system uses is passed over. It is given back when the data is
gone for good. Standard library only; errors are `OSError` and `Refusal`.
"""

import hashlib
import os
from dataclasses import replace
from typing import Final

from volagent.host import quota
from volagent.host.export_claims import Export
from volagent.host.export_records import NEW, Record, Refusal, enter

_FIRST: Final = 0x4000_0000
"""Numbers below are left to people (`/etc/projid`) and to container engines, who count upwards."""
_COUNT: Final = 0x3FFF_FFFF
_ATTEMPTS_MAX: Final = 16


def limit_new(export: Export, record: Record) -> Record:
    """Limit a directory that is still in `new`; its record, with a project where that is possible.

    The directory is empty and nobody else's, so no file can have been left out.
    """
    fd = enter(export.records.folder(NEW), record.name)
    try:
        if quota.find_obstacle(fd):
            # Also when it was begun with quotas: they have been switched off since.
            export.records.release_path(_key(record.project), record.name)
            return replace(record, project=0)
        project = record.project or _choose(export, record.name, fd)
        quota.set_limit(fd, project, record.capacity_bytes)
        quota.join_project(fd, project)
        os.fsync(fd)
        return replace(record, project=project)
    finally:
        os.close(fd)


def explain_unlimited(export: Export, record: Record) -> str:
    """Why a volume's size is not enforced; "" when it is."""
    if record.project:
        return ""
    return quota.find_obstacle(export.root) or "it was made when there were no project quotas"


def raise_limit(export: Export, record: Record, capacity_bytes: int) -> None:
    """Let a limited volume use more; never less than before."""
    if record.project:
        now = quota.read_limit(export.root, record.project)
        if now.hard_bytes < capacity_bytes:
            quota.set_limit(export.root, record.project, capacity_bytes)


def forget(export: Export, record: Record) -> None:
    """The data of a volume is gone: its number is free, if it still is the volume's."""
    key = _key(record.project)
    if record.project and export.records.find_claimant(key) == record.name:
        if not quota.find_obstacle(export.root):
            quota.set_limit(export.root, record.project, 0)
        export.records.release_path(key, record.name)


def _choose(export: Export, name: str, fd: int) -> int:
    for attempt in range(_ATTEMPTS_MAX):
        digest = hashlib.sha256(f"{attempt} {name}".encode()).digest()
        project = _FIRST + int.from_bytes(digest[:8], "big") % _COUNT
        key = _key(project)
        if export.records.find_claimant(key) == name:
            return project
        if not quota.read_limit(fd, project).idle:
            continue
        if export.records.claim_path(key, name) == name:
            return project
    raise Refusal(
        f"no free project number was found for {name}",
        "see the project quotas of the file system: `repquota -P`",
    )


def _key(project: int) -> str:
    """What is claimed: no path of a volume begins like this."""
    return f"/project/{project}"
