"""The role of an iSCSI storage array: the kernel's own target (LIO), set up through configfs.

One target with numbered disks (LUNs) behind two portals. A disk is a sparse file behind a loop
device (LIO takes a file's size once and for all, a device's always anew), with a serial number,
from which LIO makes its world-wide name. The files lie in the machine's memory, or on one of its
disks; then `serve` after a power cut shows everything again.
"""

import base64
import zlib

from tests.cluster.lab.machine import Machine

_ROOT = "/sys/kernel/config/target"
_DISKS = "/srv/luns"
_IN_MEMORY = "mount -t tmpfs -o size=900M luns {disks}"
_ON_DISK = "{{ blkid {disk} >/dev/null || mkfs.ext4 -q {disk}; mount -o sync {disk} {disks}; }}"
"""`sync`: as an array's cache that has a battery. One that forgets what it has acknowledged, while
an initiator goes on, destroys file systems: that one writes nothing twice."""
_PORT = 3260

_SERVE = """
modprobe -a loop target_core_mod target_core_iblock iscsi_target_mod
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
mkdir -p {disks}
for place in /var/target/pr /etc/target/pr; do [ -L $place ] || mkdir -p $place; done
mountpoint -q {disks} || {mount}
port=$(ip -o -4 addr show to {first} | cut -d " " -f 2)
echo 1 >/proc/sys/net/ipv4/conf/$port/promote_secondaries
ip addr replace {second}/24 dev $port
mkdir -p {tpg}/np/{first}:{port} {tpg}/np/{second}:{port}
echo 0 >{tpg}/attrib/authentication
echo 1 >{tpg}/attrib/generate_node_acls
echo 0 >{tpg}/attrib/demo_mode_write_protect
echo 1 >{tpg}/attrib/cache_dynamic_acls
"""

# What the kernel writes for APTPL lies with the disks, and is given back before a LUN shows one.
_KEEP_RESERVATIONS = """
mkdir -p {disks}/pr
for place in /var/target/pr /etc/target/pr; do rm -rf $place; ln -s {disks}/pr $place; done
"""
_RESTORE = """
file={disks}/pr/aptpl_{serial}
[ -s $file ] && sed -n '/^PR_REG_START/,/^PR_REG_END/p' $file | awk '
  /^PR_REG_START/ {{ text = ""; next }}
  /^PR_REG_END/ {{ print text; next }}
  {{ text = text (text == "" ? "" : ",") $0 }}
' | while read -r line; do echo -n "$line" >{core}/{name}/pr/res_aptpl_metadata; done
true
"""

_MAKE_DISK = """
truncate -s {size_mib}M {disks}/{name}.img
mkdir -p {core}/{name}
echo udev_path=$(losetup --find --show {disks}/{name}.img) >{core}/{name}/control
echo {serial} >{core}/{name}/wwn/vpd_unit_serial
echo 1 >{core}/{name}/enable
"""


class IscsiTarget:
    """A target on a machine, reached at the machine's address and at a second one."""

    def __init__(
        self, machine: Machine, *, iqn: str = "iqn.2026-01.lab:array", disk: str = ""
    ) -> None:
        self.machine = machine
        self._disks = f"{_DISKS}/{iqn.rpartition(':')[2]}"
        self._mount = (_ON_DISK if disk else _IN_MEMORY).format(disk=disk, disks=self._disks)
        self._made: dict[str, int] = {}
        self._numbers: dict[str, int] = {}
        self._shown: dict[int, str] = {}
        self._unreserved: set[str] = set()
        self.iqn = iqn
        base, _, host = machine.address.rpartition(".")
        self.portals = (f"{machine.address}:{_PORT}", f"{base}.{100 + int(host)}:{_PORT}")
        self._tpg = f"{_ROOT}/iscsi/{iqn}/tpgt_1"
        self._core = f"{_ROOT}/core/iblock_0"
        self._family = zlib.crc32(iqn.encode()) & 0xFFFF

    def serve(self) -> None:
        """Start serving, on a machine that has just been started; anybody may log in.

        What was made and shown before is again, blank if it lay in memory.
        """
        self.machine.run(
            _SERVE.format(
                tpg=self._tpg, disks=self._disks, mount=self._mount, port=_PORT,
                first=self.machine.address, second=self.portals[1].rpartition(":")[0],
            )
        )  # fmt: skip
        self.machine.run(_KEEP_RESERVATIONS.format(disks=self._disks))
        made, shown = dict(self._made), dict(self._shown)
        for name, size_mib in made.items():
            self.make_disk(name, size_mib)
        for lun, name in shown.items():
            self.show(lun, name)
        # Last: who logs in again before its disk is there is told that there is none.
        self.machine.run(f"echo 1 >{self._tpg}/enable")

    def make_disk(self, name: str, size_mib: int) -> None:
        """A blank disk that no LUN shows yet."""
        self._made[name] = size_mib
        number = self._numbers.setdefault(name, len(self._numbers) + 1)
        script = _MAKE_DISK + _RESTORE
        self.machine.run(
            script.format(
                disks=self._disks, core=self._core, name=name, size_mib=size_mib,
                serial=f"{self._family:04x}{number:04x}",
            )
        )  # fmt: skip
        if name in self._unreserved:
            self.machine.run(f"echo 0 >{self._core}/{name}/attrib/emulate_pr")

    def remove_disk(self, name: str) -> None:
        """Lose a disk that no LUN shows any more, and its room; its serial number stays taken."""
        del self._made[name]
        self.machine.run(
            f"disk=$(losetup -n -O NAME -j {self.file(name)})\n"
            f"rmdir {self._core}/{name}; losetup -d $disk; rm {self.file(name)}"
        )

    def forbid_reservations(self, name: str) -> None:
        """The disk of this name, which is made after, knows no persistent reservations."""
        self._unreserved.add(name)

    def show(self, lun: int, name: str) -> None:
        """Show a disk under a number."""
        self._shown[lun] = name
        where = f"{self._tpg}/lun/lun_{lun}"
        self.machine.run(f"mkdir -p {where}; ln -s {self._core}/{name} {where}/{name}")

    def swap(self, lun: int, name: str) -> None:
        """Show another disk under the same number, as an administrator's slip does."""
        self.hide(lun)
        self.show(lun, name)

    def hide(self, lun: int) -> None:
        """Show nothing under a number any more."""
        self._shown.pop(lun, None)
        where = f"{self._tpg}/lun/lun_{lun}"
        self.machine.run(f"find {where} -maxdepth 1 -type l -delete; rmdir {where}")

    def grow(self, name: str, size_mib: int) -> None:
        """Make a disk larger while it is in use."""
        self._made[name] = size_mib
        file = self.file(name)
        self.machine.run(
            f"truncate -s {size_mib}M {file}; losetup -c $(losetup -n -O NAME -j {file})"
        )

    def require_chap(self, user: str, password: str) -> None:
        """From now on a login needs these credentials."""
        self.machine.run(
            f"echo -n {user} >{self._tpg}/auth/userid\n"
            f"echo -n {password} >{self._tpg}/auth/password\n"
            f"echo 1 >{self._tpg}/attrib/authentication"
        )

    def allow_everybody(self) -> None:
        """Undo `require_chap`."""
        self.machine.run(f"echo 0 >{self._tpg}/attrib/authentication")

    def require_discovery_chap(self, user: str, password: str) -> None:
        """From now on whoever asks for targets needs these credentials."""
        where = f"{_ROOT}/iscsi/discovery_auth"
        self.machine.run(
            f"echo -n {user} >{where}/userid\necho -n {password} >{where}/password\n"
            f"echo 1 >{where}/enforce_discovery_auth"
        )

    def allow_discovery(self) -> None:
        """Undo `require_discovery_chap`."""
        self.machine.run(f"echo 0 >{_ROOT}/iscsi/discovery_auth/enforce_discovery_auth")

    def cut_portal(self, index: int) -> None:
        """Take the address of a portal away."""
        self._change_portal("del", index)

    def heal_portal(self, index: int) -> None:
        """Give it back."""
        self._change_portal("add", index)

    def _change_portal(self, change: str, index: int) -> None:
        address, other = (self.portals[i].rpartition(":")[0] for i in (index, 1 - index))
        self.machine.run(
            f"port=$(ip -o -4 addr show to {other} | cut -d ' ' -f 2)\n"
            f"ip addr {change} {address}/24 dev $port"
        )

    def file(self, name: str) -> str:
        """Where a disk's content is on the machine."""
        return f"{self._disks}/{name}.img"

    def read(self, name: str, length: int) -> bytes:
        """The first bytes of a disk, as the array has it."""
        script = f"sync; head -c {length} {self.file(name)} | base64 -w0"
        said = self.machine.run(script).out
        return base64.b64decode(said)

    def checksum(self, name: str) -> str:
        """Of a whole disk, as the array has it."""
        return self.machine.run(f"sync; sha256sum <{self.file(name)}").out
