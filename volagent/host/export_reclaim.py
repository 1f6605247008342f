"""What becomes of the directories of reclaimed volumes on an export: trash, archive, or kept.

The way back of `exports.py`: the marker says first what is going to happen; the directory is
renamed; its path is given back; the marker follows the directory. Contents are deleted only below
`.volagent/trash`. Whatever is interrupted goes on when it is asked for again.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Final

from volagent.host import export_quota, export_tree
from volagent.host.export_claims import (
    PRESENT,
    Export,
    Json,
    check_owner,
    claim,
    refuse_existing,
    refuse_replaced,
    refuse_unmarked,
    stands,
)
from volagent.host.export_records import ARCHIVED, GONE, STORE, TRASH, Record, Refusal

PURGING: Final = "purging"
ARCHIVED_PREFIX: Final = "archived-"
NAME_BYTES_MAX: Final = 255
ANSWER_BYTES_MAX: Final = 32 * 1024
"""Of a list: what a helper process may say is bounded."""
_SUFFIXES_MAX: Final = 1000
_SUFFIX_BYTES_MAX: Final = 8
_EXPIRED_MAX: Final = 100
_UNFINISHED_S: Final = 3600.0


def reclaim(export: Export, request: Json) -> Json:
    """Deal with a released volume: `how` is `retain`, `archive` or `delete` (into the trash).

    `on_delete` and the state that was reached, with the marker. Called again, it answers the same.
    """
    name, records = request["name"], export.records
    record = records.read(name)
    if record is None:
        return _find_reclaimed(export, request)
    check_owner(record, request["owner"])
    if record.directory != request["directory"]:
        raise Refusal(
            f"the volume says {request['directory']!r}, its owner marker {record.directory!r}",
            f"correct {STORE}/{name}.json on the export, or keep the data: policy Retain",
        )
    how = request["how"] or record.on_delete or "archive"
    if record.state in ("trashing", "archiving"):
        how = {"trashing": "delete", "archiving": "archive"}[record.state]
    match how:
        case "retain":
            record = replace(record, state="retained", deleted_s=export.now_s)
            records.write(record)
        case "archive":
            record = _to_archive(export, record, request)
        case _:
            record = to_trash(export, record, request)
    return {"record": asdict(record)}


def restore(export: Export, request: Json) -> Json:
    """Put a volume's directory back from the trash to where it was: its marker."""
    name, records = request["name"], export.records
    record = records.read(name, TRASH)
    if record is None:
        present = records.read(name)
        if present is not None and present.state == PRESENT:
            return {"record": asdict(present)}
        raise Refusal(f"nothing of {name} is in the trash", "see `volagent trash list`")
    if record.state == PURGING:
        raise Refusal(f"{name} is being deleted", "a part of its data is gone already")
    back = replace(record, state=PRESENT, deleted_s=0.0, expires_s=0.0)
    if export_tree.find_inode(records.folder(TRASH), name):
        if not record.manifest:
            raise Refusal(
                f"{name} was never a volume: somebody wrote into it while it was being made",
                f"take the files from {STORE}/{TRASH}/{name} on the server",
            )
        claim(export, back)
        records.write(back)
        try:
            source = (records.folder(TRASH), name)
            export_tree.place(export.root, source, record.directory, records)
        except FileExistsError:
            records.release_path(record.directory, name)
            records.drop(name)
            raise refuse_existing(export, record.directory) from None
    records.move(back, TRASH, "")
    return {"record": asdict(back)}


def condemn(export: Export, request: Json) -> Json:
    """Mark an entry of the trash as being deleted: whether it is there to be `condemned`.

    Marked first: what is deleted in part can neither be had back nor be forgotten half-way.
    """
    name, records = request["name"], export.records
    record = records.read(name, TRASH)
    if record is None or (record.expires_s > export.now_s and not request["now"]):
        return {"condemned": False}
    live = records.read(name)
    if live is not None and live.state == PRESENT and stands(export, live):
        records.drop(name, TRASH)  # a restore that was interrupted after its work
        return {"condemned": False}
    if record.state != PURGING:
        record = replace(record, state=PURGING, expires_s=min(record.expires_s, export.now_s))
        records.write(record, TRASH)
    return {"condemned": True}


def purge(export: Export, request: Json) -> Json:
    """Delete an entry of the trash for good; `done` is False when `budget_s` was not enough."""
    name, records = request["name"], export.records
    deadline_s = time.monotonic() + request["budget_s"]
    if not condemn(export, request)["condemned"]:
        return {"done": True}
    record = records.read(name, TRASH)
    assert record is not None
    if not export_tree.remove_until(records.folder(TRASH), name, deadline_s):
        return {"done": False}
    export_quota.forget(export, record)
    records.move(replace(record, state="deleted", manifest={}), TRASH, GONE)
    live = records.read(name)
    if live is not None:
        records.release_path(live.directory, name)
        records.drop(name)  # a restore that was interrupted before its work
    return {"done": True}


def list_trash(export: Export, request: Json) -> Json:
    """Entries with names after `after`, as many as an answer may hold; `more`: some are left.

    Those that are being deleted are not among them.
    """
    entries: list[Json] = []
    size = 0
    for record in _read_all(export, TRASH):
        if record.name <= request["after"] or record.state == PURGING:
            continue
        size += len(repr(record.manifest)) + 1000
        if entries and size > ANSWER_BYTES_MAX:
            return {"entries": entries, "more": True}
        entries.append(asdict(record))
    return {"entries": entries, "more": False}


def sweep(export: Export, request: Json) -> Json:
    """Names of the expired entries, and when the next one expires.

    With `remember_s` tombstones that are older are forgotten, and what was not finished: that looks
    at all that is there.
    """
    records = export.records
    if "remember_s" in request:
        records.sweep_unfinished(export.now_s - _UNFINISHED_S)
        for gone in _read_all(export, GONE):
            if gone.deleted_s + request["remember_s"] < export.now_s:
                records.drop(gone.name, GONE)
    entries = list(_read_all(export, TRASH))
    expired = [each.name for each in entries if each.expires_s <= export.now_s]
    coming = [each.expires_s for each in entries if each.expires_s > export.now_s]
    return {"expired": expired[:_EXPIRED_MAX], "next_s": min(coming, default=None)}


def _read_all(export: Export, folder: str) -> Iterator[Record]:
    """Every marker of a folder; one that is damaged must not keep the others from their end."""
    for name in export.records.list_names(folder):
        try:
            record = export.records.read(name, folder)
        except Refusal:
            continue
        if record is not None and record.name == name:
            yield record


def to_trash(export: Export, record: Record, request: Json) -> Record:
    """Move a volume into the trash; the marker that it has now."""
    records, name = export.records, record.name
    if record.state != "trashing":
        record = replace(
            record,
            state="trashing",
            deleted_s=export.now_s,
            expires_s=export.now_s + request["keep_s"],
            manifest=request["manifest"],
        )
        records.write(record)
    trash = records.folder(TRASH)
    if not export_tree.find_inode(trash, name):
        if stands(export, record):
            export_tree.take(export.root, record.directory, (trash, name))
        elif export_tree.find_inode(export.root, record.directory):
            records.write(replace(record, state=PRESENT))
            raise refuse_replaced(record)
        else:
            return _to_gone(export, record)
    records.release_path(record.directory, name)
    export_tree.remove_empty_parents(export.root, record.directory, records)
    record = replace(record, state="trashed")
    records.move(record, "", TRASH)
    return record


def _to_gone(export: Export, record: Record) -> Record:
    """The directory is not there any more: somebody removed it. Verified on the right export."""
    records = export.records
    export_quota.forget(export, record)
    records.release_path(record.directory, record.name)
    export_tree.remove_empty_parents(export.root, record.directory, records)
    record = replace(record, state="deleted", manifest={})
    records.move(record, "", GONE)
    return record


def _to_archive(export: Export, record: Record, request: Json) -> Record:
    """Rename a volume to `archived-...` at the export's root; the marker that it has now."""
    records, root = export.records, export.root
    record = replace(record, state="archiving", deleted_s=record.deleted_s or export.now_s)
    standing = stands(export, record)
    if standing or not _is_renamed(export, record):
        if not standing:
            if export_tree.find_inode(root, record.directory):
                raise refuse_replaced(record)
            return _to_gone(export, record)
        record = replace(record, target=_choose_archived_name(export, record.directory))
        records.write(record)
        above = export_tree.open_below(root, "")
        try:
            export_tree.take(root, record.directory, (above, record.target))
        finally:
            os.close(above)
    records.release_path(record.directory, record.name)
    export_tree.remove_empty_parents(root, record.directory, records)
    record = replace(record, state="archived", manifest=request["manifest"])
    records.move(record, "", ARCHIVED)
    return record


def _is_renamed(export: Export, record: Record) -> bool:
    """Whether an archived volume has its new name already."""
    inode = export_tree.find_inode(export.root, record.target) if record.target else 0
    return bool(inode) and inode == (record.inode or inode)


def _choose_archived_name(export: Export, directory: str) -> str:
    """A name at the root that nothing has; a nested path is flattened into it."""
    flat = ARCHIVED_PREFIX + directory.replace("/", "-")
    encoded = os.fsencode(flat)[: NAME_BYTES_MAX - _SUFFIX_BYTES_MAX]
    flat = encoded.decode("utf-8", "ignore")
    for number in range(_SUFFIXES_MAX):
        name = f"{flat}-{number + 1}" if number else flat
        if not export_tree.find_inode(export.root, name):
            return name
    raise Refusal(f"there are {_SUFFIXES_MAX} archives named {flat}", "move some away")


def _find_reclaimed(export: Export, request: Json) -> Json:
    """A volume without a marker: reclaimed before, or not ours. Never taken for a success."""
    for folder in (TRASH, ARCHIVED, GONE):
        record = export.records.read(request["name"], folder)
        if record is not None:
            check_owner(record, request["owner"])
            return {"record": asdict(record)}
    raise refuse_unmarked(request["name"])
