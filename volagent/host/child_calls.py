"""Calls that may hang, as a program: `Helpers.call` runs it in a child that can be killed.

Run as a script by path with `python -I -S`, so it starts in milliseconds and sees no site packages;
it imports only the standard library and the few modules of the host that a call needs. One JSON
request on standard input, one JSON answer on standard output. An expected failure is an answer too
(`error`: a class of `host/errors.py` with its facts); anything else is a traceback and a non-zero
exit status.
"""

import contextlib
import importlib
import json
import os
import stat
import sys
from typing import Any

_REQUEST_BYTES_MAX = 64 * 1024
_MODULES = ("block_devices", "mountfd", "scsi")
_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def unmount(arguments: dict[str, Any]) -> dict[str, Any]:
    """umount2(2): `path`, `flags`."""
    from volagent.host import libc

    libc.umount2(os.fsencode(arguments["path"]), arguments["flags"])
    return {}


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """statvfs(3): `path`."""
    found = os.statvfs(arguments["path"])
    return {
        "fragment_bytes": found.f_frsize,
        "blocks": found.f_blocks,
        "blocks_free": found.f_bfree,
        "blocks_available": found.f_bavail,
        "inodes": found.f_files,
        "inodes_free": found.f_ffree,
    }


def set_ownership(arguments: dict[str, Any]) -> dict[str, Any]:
    """Apply `fsGroup`: `path`, `gid`, `policy`."""
    from volagent.host.contract import OwnershipPolicy
    from volagent.host.ownership import give_to_group

    policy = OwnershipPolicy(arguments["policy"])
    return {"changed": give_to_group(arguments["path"], arguments["gid"], policy)}


def bind_sub_path(arguments: dict[str, Any]) -> dict[str, Any]:
    """Bind a sub-path of the volume at `path`; the mount stays when this process ends."""
    from volagent.host.contract import BindOptions, Propagation
    from volagent.host.mountfd import Attaching
    from volagent.host.subpath import SubPath, bind_sub_path

    options = BindOptions(
        recursive=arguments["recursive"],
        read_only=arguments["read_only"],
        recursive_read_only=arguments["recursive_read_only"],
        options=tuple(arguments["options"]),
        propagation=Propagation(arguments["propagation"]),
    )
    how = Attaching(
        arguments["target"], arguments["id_mask"], options.propagation, options.recursive
    )
    inside = SubPath(
        arguments["path"], arguments["sub_path"], arguments["mode"], arguments["follow_links"]
    )
    return {"mount_id": bind_sub_path(inside, options, how)}


def probe_path(arguments: dict[str, Any]) -> dict[str, Any]:
    """What is at `path`, links followed: `mode` and `device`, or nothing when it is missing."""
    try:
        found = os.stat(arguments["path"])
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {"mode": stat.S_IFMT(found.st_mode), "device": found.st_dev}


def find_content(arguments: dict[str, Any]) -> dict[str, Any]:
    """Where on the block device at `path` something is that is not zero: `offset`, or none."""
    from volagent.host import blank

    return {"offset": blank.find_content(arguments["path"])}


def find_signature(arguments: dict[str, Any]) -> dict[str, Any]:
    """What blkid knows of what is on the device at `path`: `facts`; none for several at once."""
    from volagent.host import blkid

    return {"facts": blkid.find_facts(arguments["path"])}


def flush_device(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write out what is cached for the block device at `path` of this `identity`."""
    from volagent.host import block_devices

    block_devices.flush(arguments["path"], arguments["identity"])
    return {}


def reach_portal(arguments: dict[str, Any]) -> dict[str, Any]:
    """Whether somebody listens at `address` and `port`: raises what the network says."""
    import socket

    from volagent.host.errors import HostError

    # No time-out of its own: silence is for the caller to notice, who counts it.
    try:
        socket.create_connection((arguments["address"], arguments["port"])).close()
    except socket.gaierror as error:
        # Its numbers are no errnos.
        raise HostError("resolve", arguments["path"], 0, error.strerror or "") from error
    return {}


def write_attribute(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write `value` to the attribute of a device at `path`, below /sys."""
    import errno

    fd = os.open(arguments["path"], os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, arguments["value"].encode())
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise
    finally:
        os.close(fd)
    return {}


def fetch_disk_names(arguments: dict[str, Any]) -> dict[str, Any]:
    """The names that the scsi disk at `path` gives itself now: `names`, in hexadecimal."""
    from volagent.host import scsi

    return {"names": [name.hex() for name in scsi.read_names(scsi.fetch_page(arguments["path"]))]}


def give_order(arguments: dict[str, Any]) -> dict[str, Any]:
    """An `order` about persistent reservations to the disk at `path`: `done`, unless it conflicts.

    Arguments are those of `reservations.give_order`.
    """
    from volagent.host import reservations

    key, other = arguments["keys"]
    done = reservations.give_order(
        arguments["path"], reservations.Order(arguments["order"]), arguments["kind"],
        (key, other), outlives_power=arguments["outlives_power"],
    )  # fmt: skip
    return {"done": done}


def fetch_standing(arguments: dict[str, Any]) -> dict[str, Any]:
    """What is registered and reserved on the disk at `path`: the fields of a `Standing`."""
    from dataclasses import asdict

    from volagent.host import reservations

    return asdict(reservations.fetch_standing(arguments["path"]))


def fetch_capabilities(arguments: dict[str, Any]) -> dict[str, Any]:
    """What the disk at `path` can do in that way: the fields of `Capabilities`."""
    from dataclasses import asdict

    from volagent.host import reservations

    return asdict(reservations.fetch_capabilities(arguments["path"]))


def fetch_registrants(arguments: dict[str, Any]) -> dict[str, Any]:
    """Who is registered on the disk at `path`: a list of the fields of a `Registrant`."""
    from dataclasses import asdict

    from volagent.host import reservations

    found = reservations.fetch_registrants(arguments["path"])
    return {"registrants": [asdict(each) for each in found]}


def reset_disk(arguments: dict[str, Any]) -> dict[str, Any]:
    """Abort all that the disk at `path` was told to do and has not done yet."""
    from volagent.host import scsi

    scsi.reset(arguments["path"])
    return {}


def is_device_held(arguments: dict[str, Any]) -> dict[str, Any]:
    """Whether the block device at `path`, or a part of it, is mounted or used: `held`."""
    import errno

    try:
        os.close(os.open(arguments["path"], os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return {"held": True}
        if error.errno not in (errno.ENOENT, errno.ENXIO, errno.ENODEV):
            raise
    return {"held": False}


def await_device(arguments: dict[str, Any]) -> dict[str, Any]:
    """Open the block device at `path` as soon as the kernel has made it, at most `within_s`."""
    from volagent.host import block_devices

    block_devices.await_device(arguments["path"], arguments["within_s"])
    return {}


def refuse_writes(arguments: dict[str, Any]) -> dict[str, Any]:
    """Make the block device at `path` read-only until it is gone."""
    from volagent.host import block_devices

    block_devices.refuse_writes(arguments["path"])
    return {}


def scan_partitions(arguments: dict[str, Any]) -> dict[str, Any]:
    """Have the kernel look for partitions on the disk at `path`."""
    from volagent.host import block_devices

    block_devices.scan_partitions(arguments["path"])
    return {}


def share_file(arguments: dict[str, Any]) -> dict[str, Any]:
    """Copy the file at `path` to `target` by sharing its blocks, `freeze` held still: `shared`."""
    from volagent.host import clone

    freeze = arguments["freeze"]
    return {"shared": clone.share(arguments["path"], arguments["target"], freeze)}


def copy_file(arguments: dict[str, Any]) -> dict[str, Any]:
    """Copy the file at `path` to `target`, byte by byte."""
    from volagent.host import clone

    clone.copy(arguments["path"], arguments["target"])
    return {}


def export(arguments: dict[str, Any]) -> dict[str, Any]:
    """One request of `host/exports.py` about the export that is mounted at `path`."""
    from volagent.host import exports

    return exports.perform(arguments)


def lio(arguments: dict[str, Any]) -> dict[str, Any]:
    """One request of `host/lio/calls.py` about this machine's own target."""
    from volagent.host.lio import calls

    return calls.perform(arguments)


def connect_nbd(arguments: dict[str, Any]) -> dict[str, Any]:
    """Find or connect the NBD device of an export, as `host/nbd_calls.py` says: `index`."""
    from volagent.host import nbd_calls

    return nbd_calls.connect(arguments)


def disconnect_nbd(arguments: dict[str, Any]) -> dict[str, Any]:
    """Write out and disconnect the NBD device at `path` of this `backend`."""
    from volagent.host import nbd_calls

    return nbd_calls.disconnect(arguments)


def cut_nbd(arguments: dict[str, Any]) -> dict[str, Any]:
    """Disconnect the NBD device at `path` of this `backend` unwritten, whoever has it open."""
    from volagent.host import nbd_calls

    return nbd_calls.cut(arguments)


def grow_nbd(arguments: dict[str, Any]) -> dict[str, Any]:
    """Let an NBD device take on its export's size: `size_bytes`."""
    from volagent.host import nbd_calls

    return nbd_calls.grow(arguments)


def mount_device(arguments: dict[str, Any]) -> dict[str, Any]:
    """Mount the block device at `path`; the mount stays when this process ends: `mount_id`."""
    from volagent.host import mountfd

    target = arguments["target"]
    mount = mountfd.open_device_mount(
        arguments["path"], arguments["fs_type"], tuple(arguments["options"]),
        arguments["read_only"], target,
    )  # fmt: skip
    try:
        how = mountfd.Attaching(target, arguments["id_mask"])
        return {"mount_id": mountfd.attach(mount, how)}
    finally:
        os.close(mount)  # else nobody could unmount it as long as this process lives


OPERATIONS = {
    "connect_nbd": connect_nbd,
    "disconnect_nbd": disconnect_nbd,
    "cut_nbd": cut_nbd,
    "grow_nbd": grow_nbd,
    "mount_device": mount_device,
    "umount2": unmount,
    "statvfs": measure,
    "set_ownership": set_ownership,
    "bind_sub_path": bind_sub_path,
    "probe_path": probe_path,
    "find_content": find_content,
    "find_signature": find_signature,
    "flush_device": flush_device,
    "export": export,
    "lio": lio,
    "reach_portal": reach_portal,
    "write_attribute": write_attribute,
    "fetch_disk_names": fetch_disk_names,
    "give_order": give_order,
    "fetch_standing": fetch_standing,
    "fetch_capabilities": fetch_capabilities,
    "fetch_registrants": fetch_registrants,
    "reset_disk": reset_disk,
    "is_device_held": is_device_held,
    "await_device": await_device,
    "refuse_writes": refuse_writes,
    "scan_partitions": scan_partitions,
    "share_file": share_file,
    "copy_file": copy_file,
}


def main() -> None:
    """Answer the request on standard input; or, with the number of a descriptor as argument, those
    that come through that socket, until it is closed."""
    sys.path.insert(0, _PACKAGE_ROOT)
    if len(sys.argv) == 2 and sys.argv[1].isdigit():
        descriptor = int(sys.argv[1])
        _read_modules()
        os.write(descriptor, b"ready")
        while request := os.read(descriptor, _REQUEST_BYTES_MAX):
            os.write(descriptor, json.dumps(_answer(json.loads(request))).encode())
    else:
        json.dump(_answer(json.load(sys.stdin)), sys.stdout)


def _read_modules() -> None:
    """What the calls about disks need, before they need it."""
    from volagent.host import blkid
    from volagent.host.errors import Unsupported

    for name in ("socket", *(f"volagent.host.{each}" for each in _MODULES)):
        importlib.import_module(name)
    with contextlib.suppress(Unsupported):
        blkid.load()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    from volagent.host.errors import HostError

    operation, arguments = request["operation"], request["arguments"]
    try:
        answer = OPERATIONS[operation](arguments)
    except HostError as error:
        answer = {"error": _tell(type(error).__name__, error.call, error.subject, error)}
    except OSError as error:
        subject = str(arguments.get("path", ""))
        answer = {"error": _tell("HostError", operation, subject, error)}
    return answer


def _tell(kind: str, call: str, subject: str, error: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "call": call,
        "subject": subject,
        "errno": error.errno or 0,
        "detail": getattr(error, "detail", ""),
    }


if __name__ == "__main__":
    main()
