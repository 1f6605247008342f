"""One volume's target: a disk made of its content, shown to those initiators that are let in.

A target of its own for each volume, with one LUN: whoever is let in is let in to this volume only,
and ending its session touches no other. The content is a file, or a link to the volume's own thin
volume. Writes are through (fileio's default): what a disk has acknowledged outlives the machine's
power, or initiators that go on would destroy file systems. Thin volumes are shown by fileio for
that: the kernel's iblock would pass their write cache on to initiators (docs/adr/0014).

The disk's serial number, of which its world-wide name is made, comes from the volume's name.
Persistent reservations that were asked to outlive a power cut (APTPL) are put back from the file
that the kernel writes, before anybody can reach the disk.

Blocks as long as the kernel does (ending a session waits for its requests): runs in a helper
process. Each function may be cut off anywhere and called again. Errors are `HostError`.
"""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from volagent.host.errors import Busy, HostError
from volagent.host.lio.configfs import Configfs
from volagent.host.thin_names import group_of

LUN: Final = 0
_POOL: Final = "core/fileio_7000"
_SIZE: Final = re.compile(r"\bSize: (\d+)")
_SESSION: Final = "InitiatorName:"
_NO_SESSION: Final = "No active iSCSI Session"


@dataclass(frozen=True, slots=True)
class Chap:
    """What an initiator has to say."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Chap(user={self.user!r})"


@dataclass(frozen=True, slots=True)
class Target:
    """A volume's target and disk, of which any part may be there or not."""

    tree: Configfs
    volume: str
    iqn: str
    file: str

    @property
    def serial(self) -> str:
        """32 hexadecimal digits, the same for ever."""
        return make_serial(self.volume)

    @property
    def _disk(self) -> str:
        return f"{_POOL}/{self.volume}"

    @property
    def _group(self) -> str:
        return f"iscsi/{self.iqn}/tpgt_1"

    def _acl(self, initiator: str) -> str:
        return f"{self._group}/acls/{initiator}"

    # -- showing -----------------------------------------------------------------------------

    def make(self) -> None:
        """The disk and the target, which nobody reaches yet."""
        tree = self.tree
        lun = f"{self._group}/lun/lun_{LUN}"
        tree.make(_POOL)
        if tree.read(f"{self._disk}/enable") == "1" and not tree.links(lun):
            tree.remove(self._disk)  # somebody was cut off: its reservations may not be back
        tree.make(self._disk)
        if tree.read(f"{self._disk}/enable") != "1":
            size = self.read_size()
            tree.write(f"{self._disk}/control", f"fd_dev_name={self.file},fd_dev_size={size}")
            tree.write(f"{self._disk}/wwn/vpd_unit_serial", self.serial)
            tree.write(f"{self._disk}/enable", "1")
            with contextlib.suppress(HostError):  # where holes cannot be made, nothing is trimmed
                tree.write(f"{self._disk}/attrib/emulate_tpu", "1")
            self._restore_reservations()
        tree.make("iscsi")
        tree.make(f"iscsi/{self.iqn}")
        tree.make(self._group)
        tree.write(f"{self._group}/attrib/authentication", "1")
        tree.write(f"{self._group}/attrib/generate_node_acls", "0")
        tree.make(lun)
        if not tree.links(lun):
            tree.link(f"{lun}/{self.volume}", self._disk)

    def let_in(self, initiator: str, chap: Chap) -> None:
        """An initiator may log in, with these credentials."""
        tree, acl = self.tree, self._acl(initiator)
        tree.make(acl)
        tree.write(f"{acl}/auth/userid", chap.user)
        tree.write(f"{acl}/auth/password", chap.password)
        tree.make(f"{acl}/lun_{LUN}")
        if not tree.links(f"{acl}/lun_{LUN}"):
            tree.link(f"{acl}/lun_{LUN}/{self.volume}", f"{self._group}/lun/lun_{LUN}")

    def open_portals(self, portals: Sequence[str]) -> None:
        """Answer at these addresses, and at no others."""
        tree = self.tree
        for stale in set(tree.directories(f"{self._group}/np")) - set(portals):
            tree.remove(f"{self._group}/np/{stale}")
        for portal in portals:
            tree.make(f"{self._group}/np/{portal}")

    def enable(self) -> None:
        """Answer who is let in."""
        if self.tree.read(f"{self._group}/enable") != "1":
            self.tree.write(f"{self._group}/enable", "1")

    def initiators(self) -> list[str]:
        """Who is let in."""
        return self.tree.directories(f"{self._group}/acls")

    def has_session(self, initiator: str) -> bool:
        """Whether an initiator that is let in is logged in now."""
        said = self.tree.read(f"{self._acl(initiator)}/info")
        return _SESSION in said and _NO_SESSION not in said

    def has_let_in(self, initiator: str) -> bool:
        """Whether the kernel shows the disk to an initiator, as read back."""
        return bool(self.tree.links(f"{self._acl(initiator)}/lun_{LUN}"))

    # -- hiding ------------------------------------------------------------------------------

    def keep_out(self, initiator: str) -> None:
        """Hide the disk from an initiator and end its session. Raises `Busy` if that did not do."""
        tree, acl = self.tree, self._acl(initiator)
        if tree.has(acl):
            for lun in tree.directories(acl):
                if not lun.startswith("lun_"):
                    continue
                for link in tree.links(f"{acl}/{lun}"):
                    tree.unlink(f"{acl}/{lun}/{link}")
                tree.remove(f"{acl}/{lun}")
            tree.remove(acl)  # the kernel ends its sessions, and waits for them
        if tree.has(acl):
            raise Busy("rmdir", acl, 0, "the initiator is still let in")

    def remove(self) -> None:
        """Take all of it away; the content stays, its reservations go."""
        tree = self.tree
        if tree.has(self._group):
            for initiator in self.initiators():
                self.keep_out(initiator)
            for portal in tree.directories(f"{self._group}/np"):
                tree.remove(f"{self._group}/np/{portal}")
            tree.write(f"{self._group}/enable", "0")
            for link in tree.links(f"{self._group}/lun/lun_{LUN}"):
                tree.unlink(f"{self._group}/lun/lun_{LUN}/{link}")
            tree.remove(f"{self._group}/lun/lun_{LUN}")
            tree.remove(self._group)
        tree.remove(f"iscsi/{self.iqn}")
        tree.remove(self._disk)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._reservations_file)

    # -- size and reservations ---------------------------------------------------------------

    def has_content(self) -> bool:
        """Whether there is something to show: a file, or the device of the volume's own."""
        try:
            kind = os.stat(self.file).st_mode
            if not os.path.islink(self.file):
                return stat.S_ISREG(kind)
            return stat.S_ISBLK(kind) and bool(group_of(os.readlink(self.file), self.volume))
        except OSError:
            return False

    def read_size(self) -> int:
        """Of its content. Raises `OSError`."""
        fd = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)

    def resize(self) -> bool:
        """Let the disk have its content's size; False when it is not shown. Raises `HostError`.

        The kernel takes a new `fd_dev_size` at any time, and knows a device's own; initiators see
        it when they look again.
        """
        if self.tree.read(f"{self._disk}/enable") != "1":
            return False
        size = self.read_size()
        self.tree.write(f"{self._disk}/control", f"fd_dev_size={size}")
        found = _SIZE.search(self.tree.read(f"{self._disk}/info"))
        if found is None or int(found[1]) != size:
            said = found[1] if found is not None else "nothing"
            raise HostError("resize", self.file, 0, f"the kernel says {said}, not {size}")
        return True

    @property
    def _reservations_file(self) -> str:
        return f"{self.tree.read('dbroot')}/pr/aptpl_{self.serial}"

    def _restore_reservations(self) -> None:
        for registration in read_registrations(self._reservations_file):
            self.tree.write(f"{self._disk}/pr/res_aptpl_metadata", registration)


def make_serial(volume: str) -> str:
    """A disk's serial number: its claim's uid, or a digest of another name."""
    digits = volume.removeprefix("pvc-").replace("-", "")
    if re.fullmatch(r"[0-9a-f]{32}", digits):
        return digits
    return hashlib.sha256(volume.encode()).hexdigest()[:32]


def read_registrations(path: str) -> Iterator[str]:
    """Each registration in a file that the kernel has written, as the kernel wants it back."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().split()
    except FileNotFoundError:
        return
    fields: list[str] = []
    for line in lines:
        # `PR_REG_START: 0`, fields, `PR_REG_END: 0`; the numbers are words of their own.
        if line.startswith("PR_REG_START:"):
            fields = []
        elif line.startswith("PR_REG_END:"):
            yield ",".join(fields)
        elif "=" in line:
            fields.append(line)
