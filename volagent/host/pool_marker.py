"""Whether a storage node's directory is the one it was: its disk may not be mounted.

The directory bears a marker with an identity and the node's name, and the machine remembers the
identity elsewhere (`state_file`, on another disk). Volumes that were made in an empty mount point
would be lost from sight when the disk is mounted over them, and a node without its records would
show nothing. Errors are `HostError`.
"""

import contextlib
import json
import os
import uuid
from typing import Any, Final

from volagent.host.errors import Absent, HostError

_MARKER: Final = ".volagent/storage-node"


def claim_pool(directory: str, node: str, state_file: str) -> str:
    """The pool's identity, made when it is new. Raises `Absent`, `HostError`."""
    marker, remembered = f"{directory}/{_MARKER}", _read(state_file)
    found = _read(marker)
    known = remembered.get(directory)
    if found and found.get("node") != node:
        raise HostError("open", marker, 0, f"the volumes are those of storage node {found['node']}")
    if known and not found:
        raise Absent("open", marker, 0, "the volumes that were here are not")
    if known and found.get("id") != known:
        raise HostError("open", marker, 0, "there are other volumes here than there were")
    if not found:
        found = {"id": str(uuid.uuid4()), "node": node}
        _write(marker, found)
    if known is None:
        _write(state_file, {**remembered, directory: found["id"]})
    return str(found["id"])


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content: dict[str, Any] = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise HostError("read", path, 0, f"is no record: {error}") from error
    except OSError as error:
        raise HostError("open", path, error.errno or 0) from error
    return content


def _write(path: str, content: dict[str, Any]) -> None:
    unfinished = f"{path}.unfinished"
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(unfinished, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(unfinished, path)
        above = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(above)
        finally:
            os.close(above)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise HostError("write", path, error.errno or 0) from error
