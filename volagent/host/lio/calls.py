"""What is asked of the target, one request at a time, in a helper process.

A volume is shown from the moment when its first node is let in until its last is kept out; nothing
of it is in the kernel otherwise. Records come first and go last (`records.py`), so that `restore`,
after a reboot or a kill anywhere, makes what may have been shown, and removes what is on no record.

Answers are JSON objects; `refused` has a fact and a remedy for a person.
"""

import errno
import fcntl
import os
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from volagent.host.errors import HostError
from volagent.host.lio.configfs import Configfs
from volagent.host.lio.records import Shown, ShownRecords
from volagent.host.lio.target import LUN, Chap, Target

Json = dict[str, Any]

FILE: Final = "disk.img"
ONLY_RECORDS: Final = frozenset({"describe", "password"})
"""Requests that do not touch the kernel: they need no process of their own, and no lock."""
VOLUME_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,240}[a-z0-9])?")
_GET_FLAGS: Final = 0x80086601  # FS_IOC_GETFLAGS
_SET_FLAGS: Final = 0x40086602
_SYNC: Final = 0x8  # FS_SYNC_FL
_DIRECTORY_SYNC: Final = 0x10000
_FLAGS: Final = struct.Struct("=l4x")
_INITIATOR: Final = re.compile(r"(iqn\.|eui\.|naa\.)[A-Za-z0-9.:-]{1,219}")


@dataclass(frozen=True, slots=True)
class StorageNode:
    """This machine as a storage node."""

    directory: str
    iqn_base: str
    """Of which a target's name is made, with the volume's."""
    portals: tuple[str, ...]
    tree: Configfs
    records: ShownRecords

    def target(self, volume: str) -> Target:
        """A volume's target."""
        return Target(
            self.tree, volume, f"{self.iqn_base}.{volume}", f"{self.directory}/{volume}/{FILE}"
        )

    def chap(self, volume: str) -> Chap:
        """A volume's credentials."""
        return Chap(volume, self.records.make_password(volume))


def perform(request: Json, make_tree: Callable[[str], Configfs] = Configfs) -> Json:
    """Do one thing. Raises `HostError`."""
    node = StorageNode(
        request["path"], request["iqn_base"], tuple(request["portals"]),
        make_tree(request["configfs"]), ShownRecords(request["path"]),
    )  # fmt: skip
    volume = request.get("volume")
    if volume is not None and not VOLUME_NAME.fullmatch(volume):
        return _refuse(f"{volume!r} is no name of a volume", "see `volagent get pv`")
    if request["do"] in ONLY_RECORDS:
        return _OPERATIONS[request["do"]](node, request)
    with node.records.locked():
        return _OPERATIONS[request["do"]](node, request)


def publish(node: StorageNode, request: Json) -> Json:
    """Let `node` in to a volume, by the name of its `initiator`: `iqn`, `lun`."""
    name, initiator = request["node"], request["initiator"]
    if not _INITIATOR.fullmatch(initiator):
        return _refuse(
            f"the initiator's name of node {name}, {initiator!r}, is none",
            "correct /etc/iscsi/initiatorname.iscsi there, then restart iscsid and the agent",
        )
    target = node.target(request["volume"])
    if not target.has_content():
        return _refuse(
            f"{target.file} does not exist", "is the storage node's disk there, and mounted?"
        )
    shown = node.records.read(target.volume)
    same = [other for other, known in shown.nodes.items() if known == initiator and other != name]
    if same:
        return _refuse(
            f"the nodes {name} and {same[0]} have the same initiator's name, {initiator}",
            "give one of them another in /etc/iscsi/initiatorname.iscsi; was a machine cloned?",
        )
    if name in shown.barred:
        return _refuse(
            f"node {name} was fenced from {target.iqn}", "it is let in again when it was detached"
        )
    before = shown.nodes.get(name)
    node.records.write(replace(shown, nodes={**shown.nodes, name: initiator}))
    if before not in (None, initiator):
        target.keep_out(str(before))
    target.make()
    target.let_in(initiator, node.chap(target.volume))
    target.open_portals(node.portals)
    target.enable()
    if not target.has_let_in(initiator):
        raise HostError("publish", target.iqn, 0, f"{initiator} is not let in, says the kernel")
    return {"iqn": target.iqn, "lun": LUN}


def unpublish(node: StorageNode, request: Json) -> Json:
    """Keep `node` out of a volume, until it is let in again: `evidence`, as read back."""
    name = request["node"]
    shown = node.records.read(request["volume"])
    barred = tuple(each for each in shown.barred if each != name)
    return _keep_out(node, shown, name, barred)


def fence(node: StorageNode, request: Json) -> Json:
    """Keep `node` out of a volume, and let it in no more until it was detached (`unpublish`)."""
    name = request["node"]
    shown = node.records.read(request["volume"])
    return _keep_out(node, shown, name, tuple(sorted({*shown.barred, name})))


def _keep_out(node: StorageNode, shown: Shown, name: str, barred: tuple[str, ...]) -> Json:
    target = node.target(shown.volume)
    left = {other: known for other, known in shown.nodes.items() if other != name}
    initiator = shown.nodes.get(name)
    if initiator is None:
        node.records.write(replace(shown, barred=barred))
        return {"evidence": f"{name} was not let in to {target.iqn}"}
    if name in barred:
        node.records.write(replace(shown, barred=barred))
    had_session = target.has_session(initiator)
    target.keep_out(initiator)
    if not left:
        target.remove()
    node.records.write(Shown(target.volume, left, barred))
    ended = "its session was ended" if had_session else "it had no session"
    return {"evidence": f"{initiator} is not let in to {target.iqn} any more; {ended}"}


def restore(node: StorageNode, _: Json) -> Json:
    """Show what is on record, and nothing else: `shown`, `missing` (whose content is not there).

    Who logs in again before its target is known would be told that there is none, and give up for
    good: portals come last.
    """
    _choose_reservations_directory(node)
    targets: list[Target] = []
    missing: list[str] = []
    on_record = node.records.read_all()
    for shown in on_record:
        if not shown.nodes:
            continue
        target = node.target(shown.volume)
        if not target.has_content():
            missing.append(shown.volume)
            continue
        target.make()
        let_in = {name: known for name, known in shown.nodes.items() if name not in shown.barred}
        for stale in set(target.initiators()) - set(let_in.values()):
            target.keep_out(stale)
        for initiator in let_in.values():
            target.let_in(initiator, node.chap(shown.volume))
        targets.append(target)
    for target in targets:
        target.enable()
    for target in targets:
        target.open_portals(node.portals)
    _remove_unknown(node, {node.target(shown.volume).iqn for shown in on_record if shown.nodes})
    return {"shown": [target.volume for target in targets], "missing": missing}


def resize(node: StorageNode, request: Json) -> Json:
    """Let a volume's disk have its content's size: whether it is `shown`."""
    return {"shown": node.target(request["volume"]).resize()}


def describe(node: StorageNode, _: Json) -> Json:
    """`shown`: the nodes that are let in, or were and are fenced, by volume."""
    found = node.records.read_all()
    return {"shown": {each.volume: sorted({*each.nodes, *each.barred}) for each in found}}


def password(node: StorageNode, request: Json) -> Json:
    """A volume's credentials: `user`, `password`."""
    chap = node.chap(request["volume"])
    return {"user": chap.user, "password": chap.password}


def _remove_unknown(node: StorageNode, known: set[str]) -> None:
    prefix = f"{node.iqn_base}."
    for iqn in node.tree.directories("iscsi"):
        if iqn.startswith(prefix) and iqn not in known:
            node.target(iqn.removeprefix(prefix)).remove()


def _choose_reservations_directory(node: StorageNode) -> None:
    """Have the kernel keep reservations beside the volumes; where it is in use already, it stays.

    The kernel takes another directory only before the first fabric is there. It does not sync what
    it writes, so the directory asks for that (as `chattr +SD`), where its file system knows how.
    """
    directory = f"{node.directory}/.volagent/lio"
    os.makedirs(f"{directory}/pr", mode=0o700, exist_ok=True)
    if node.tree.read("dbroot") != directory:
        try:
            node.tree.write("dbroot", directory)
        except HostError:
            directory = node.tree.read("dbroot")
            os.makedirs(f"{directory}/pr", mode=0o700, exist_ok=True)
    _write_through(f"{directory}/pr")


def _write_through(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        (flags,) = _FLAGS.unpack(fcntl.ioctl(fd, _GET_FLAGS, _FLAGS.pack(0)))
        fcntl.ioctl(fd, _SET_FLAGS, _FLAGS.pack(flags | _SYNC | _DIRECTORY_SYNC))
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
            raise
    finally:
        os.close(fd)


def _refuse(fact: str, remedy: str) -> Json:
    return {"refused": {"fact": fact, "remedy": remedy}}


_OPERATIONS: Final = {
    "publish": publish,
    "unpublish": unpublish,
    "fence": fence,
    "restore": restore,
    "resize": resize,
    "describe": describe,
    "password": password,
}
