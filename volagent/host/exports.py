"""Volumes that are directories of an export: what is done to them, one request at a time.

`perform` runs in a helper process for a real server, which may hang, and in the caller's own for a
directory of this machine. Each operation may be killed anywhere and called again: it looks at what
is there, and goes on. How a volume comes and goes, numbered as in the code:

1. the directory is made in `.volagent/new`, where nobody else is, with its owner and mode;
2. its marker is written with its inode: from here on the path and the inode prove what is ours;
3. the path is claimed; a path above it that is claimed means that it would lie in another volume;
4. it is renamed to its place, where nothing may be.

And back: the marker says what is going to happen; the directory is renamed into `.volagent/trash`
(or to its archived name); the path is given back; the marker follows. Contents are deleted only
below `trash`. What bears another owner, or is at our path with another inode, is left alone.

Answers are JSON objects; `refused` has a fact and a remedy for a person.
"""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Final

from volagent.host import export_quota, export_reclaim, export_tree, paths
from volagent.host.errors import HostError
from volagent.host.export_claims import (
    PRESENT,
    Export,
    Json,
    check_owner,
    claim,
    refuse_existing,
    refuse_unmarked,
    stands,
)
from volagent.host.export_records import NEW, TRASH, VOLUME_NAME, Record, Records, Refusal
from volagent.host.export_tree import Ownership

_NOT_A_DIRECTORY: Final = (errno.ELOOP, errno.ENOTDIR, errno.EXDEV)


def perform(request: Json) -> Json:
    """Do one thing on the export that is mounted at `path`.

    `device` (`major:minor`, or "") is the file system that must be there: otherwise the export is
    not mounted any more, and nothing is touched. Raises `HostError`.
    """
    operation, subject = request["do"], str(request.get("name") or request["path"])
    try:
        with ExitStack() as opened:
            root = paths.open_listing(request["path"])
            opened.callback(os.close, root)
            _check_device(root, request["path"], request.get("device", ""))
            try:
                records = opened.enter_context(Records(root, make=operation in _MAY_BEGIN))
            except FileNotFoundError:
                return {"missing": True}
            name = request.get("name")
            if name is not None and not VOLUME_NAME.fullmatch(name):
                raise Refusal(f"{name!r} is no name of a volume", "see `volagent trash list`")
            return _OPERATIONS[operation](Export(root, records, request["now_s"]), request)
    except Refusal as refusal:
        return {"refused": {"fact": refusal.fact, "remedy": refusal.remedy}}
    except OSError as error:
        if error.errno in _NOT_A_DIRECTORY:
            return {"refused": _explain_detour(request, error)}
        detail = repr(error.filename) if error.filename else ""
        raise HostError(operation, subject, error.errno or 0, detail) from error


def _explain_detour(request: Json, error: OSError) -> Json:
    """What to say about a link, a mount or a file on the way."""
    what = "through another mount" if error.errno == errno.EXDEV else "through a link or a file"
    directory = request.get("directory") or request.get("record", {}).get("directory", "")
    return {
        "fact": f"the way to {directory or request.get('name')!r} on the export leads {what}",
        "remedy": "put real directories there on the server: nothing else is ever entered",
    }


def _check_device(root: int, path: str, device: str) -> None:
    number = os.fstat(root).st_dev
    found = f"{os.major(number)}:{os.minor(number)}"
    if device and found != device:
        raise HostError("open", path, errno.ENOTCONN, f"device {found} is there, not {device}")


def measure(export: Export, _: Json) -> Json:
    """The free space of the export."""
    found = os.statvfs(export.root)
    return {
        "available_bytes": found.f_bavail * found.f_frsize,
        "inodes_free": found.f_favail if found.f_files else -1,
    }


def create(export: Export, request: Json) -> Json:
    """Make a volume's directory, or find it made: its marker, and whether it has its group.

    `full` instead when there is less free space than `room_bytes`. With `limit`, the directory gets
    a project quota where the file system has them; `unlimited` says why not elsewhere.
    """
    wanted = Record(**request["record"])
    records, root = export.records, export.root
    found = records.read(wanted.name)
    record = _check_resumable(export, wanted, found)
    if found is not None and _is_made(export, found):
        claim(export, found)
        return _describe_made(export, found, request, owned=True)
    if export_tree.find_inode(root, record.directory):
        raise refuse_existing(export, record.directory)
    if found is None and request["room_bytes"]:
        space = measure(export, request)
        if space["available_bytes"] < request["room_bytes"] or space["inodes_free"] == 0:
            return {"full": space}
    ownership = Ownership(**request["ownership"])
    made, owned = export_tree.prepare_new(records, record.name, ownership)  # (1)
    record = replace(record, inode=made)
    if request.get("limit"):
        record = export_quota.limit_new(export, record)
    records.write(record)  # (2)
    try:
        claim(export, record)  # (3)
        source = (records.folder(NEW), record.name)
        export_tree.place(root, source, record.directory, records)  # (4)
    except Refusal:
        _give_up(export, record)
        raise
    except FileExistsError:
        # Or an earlier helper, whose daemon died, has just come to its end.
        if not stands(export, record):
            _give_up(export, record)
            raise refuse_existing(export, record.directory) from None
    return _describe_made(export, record, request, owned=owned)


def _describe_made(export: Export, record: Record, request: Json, *, owned: bool) -> Json:
    answer = {"record": asdict(record), "owned": owned}
    if request.get("limit"):
        answer["unlimited"] = export_quota.explain_unlimited(export, record)
    return answer


def discard(export: Export, request: Json) -> Json:
    """Remove what a `create` has left; what somebody has put into it goes to the trash.

    `had`: `nothing`, `directory`, or `content`.
    """
    name, records = request["name"], export.records
    had = "directory" if export_tree.drop_new(records, name) else "nothing"
    record = records.read(name)
    if record is None:
        record = records.read(name, TRASH)
        if record is None or record.manifest:
            return {"had": had}
    check_owner(record, request["owner"])
    if record.state not in (PRESENT, "trashing", "trashed"):
        return {"had": had}
    if record.state == PRESENT and not _is_reached(export, record):
        export_quota.forget(export, record)
        records.release_path(record.directory, name)
        records.drop(name)
        export_tree.remove_empty_parents(export.root, record.directory, records)
        return {"had": had}
    if record.state != "trashed":
        record = export_reclaim.to_trash(export, record, request)
    if record.state == "trashed":
        try:
            os.rmdir(name, dir_fd=records.folder(TRASH))
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return {"had": "content"}
        export_quota.forget(export, record)
        records.drop(name, TRASH)
    return {"had": "directory"}


def grow(export: Export, request: Json) -> Json:
    """Note a larger promise for a volume: its marker, or `full`."""
    record = export.records.read(request["name"])
    if record is None:
        raise refuse_unmarked(request["name"])
    check_owner(record, request["owner"])
    more = request["capacity_bytes"] - record.capacity_bytes
    if more > 0:
        space = measure(export, request)
        if request["check_room"] and space["available_bytes"] < more:
            return {"full": space}
    export_quota.raise_limit(export, record, request["capacity_bytes"])
    if more > 0:
        record = replace(record, capacity_bytes=request["capacity_bytes"])
        export.records.write(record)
    return {"record": asdict(record)}


_OPERATIONS: Final[dict[str, Callable[[Export, Json], Json]]] = {
    "measure": measure,
    "create": create,
    "discard": discard,
    "reclaim": export_reclaim.reclaim,
    "restore": export_reclaim.restore,
    "condemn": export_reclaim.condemn,
    "purge": export_reclaim.purge,
    "list_trash": export_reclaim.list_trash,
    "sweep": export_reclaim.sweep,
    "grow": grow,
}
_MAY_BEGIN: Final = frozenset({"create"})
"""Operations that may find an export where nothing was ever made; the others answer `missing`."""


def _check_resumable(export: Export, wanted: Record, found: Record | None) -> Record:
    """The marker to go on with: what was begun decides, not what the class says now."""
    if found is None:
        if export.records.read(wanted.name, TRASH) is not None:
            raise Refusal(
                f"the data of {wanted.name} is in the trash",
                "get it back with `volagent trash restore`, or empty the trash",
            )
        return wanted
    check_owner(found, wanted.owner)
    if found.state != PRESENT:
        raise Refusal(
            f"{wanted.name} was {found.state}: its directory {found.directory!r} is no new volume",
            "make a new claim",
        )
    return found


def _is_made(export: Export, record: Record) -> bool:
    """Whether a volume with a marker is at its place; nothing is left in `new` then."""
    if stands(export, record):
        return True
    # It may be renamed from `new` to its place between two looks, by a helper of a dead daemon.
    waiting = export_tree.find_inode(export.records.folder(NEW), record.name)
    return not waiting and stands(export, record)


def _is_reached(export: Export, record: Record) -> bool:
    """As `stands`; what can only be reached through a link is not where we have made it."""
    try:
        return stands(export, record)
    except OSError as error:
        if error.errno in _NOT_A_DIRECTORY:
            return False
        raise


def _give_up(export: Export, record: Record) -> None:
    """Take back what a refused `create` has made; nothing of ours is at the path."""
    export_quota.forget(export, record)
    export.records.release_path(record.directory, record.name)
    export_tree.drop_new(export.records, record.name)
    export.records.drop(record.name)
