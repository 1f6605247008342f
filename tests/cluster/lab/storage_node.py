"""The role of a storage node: `volagent storage`, with the kernel's own iSCSI target.

Its volumes lie on the machine's second disk, with the file system that is asked for; or, of a
`ThinStorageNode`, the content of its disks in a thin pool on the third.
"""

import json

from tests.cluster.lab.cluster import Agent
from tests.cluster.lab.machine import Machine

_POOL = "/pool"
_MOUNT_POOL = """
mkdir -p {pool}
mountpoint -q {pool} || {{
  blkid {disk} >/dev/null || mkfs.{fs_type} -q {disk}
  mount {disk} {pool}
}}
"""

_SERVE_NFS = """
modprobe -a sunrpc lockd nfsd
mkdir -p /var/lib/nfs/v4recovery
touch /var/lib/nfs/etab
mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd
pgrep -x rpcbind >/dev/null || rpcbind -w
exportfs -r
rpc.nfsd 4
pgrep -x rpc.mountd >/dev/null || rpc.mountd
"""


_THIN_GROUP, _THIN_POOL = "disks", "thin"
_START_UDEV = """
modprobe dm_mod
pgrep -f systemd-udevd >/dev/null || /lib/systemd/systemd-udevd --daemon
udevadm trigger --subsystem-match=block
udevadm settle
"""
_MAKE_THIN_POOL = """
vgs {group} >/dev/null 2>&1 || {{
  vgcreate -q {group} {disk}
  lvcreate -q --type thin-pool --extents 90%FREE --name {pool} {group} 2>&1
}}
"""


class StorageNode(Agent):
    """`volagent storage`, of a machine that has joined; `start` again after a power cut."""

    verb = "storage"

    def __init__(
        self, machine: Machine, *, fs_type: str = "ext4", settings: str = "", thin_pool: str = ""
    ) -> None:
        storage = {"directory": f"{_POOL}/volumes", "address": machine.address}
        if thin_pool:
            storage["thin_pool"] = thin_pool
        lines = [f"{name} = {json.dumps(value)}" for name, value in storage.items()]
        super().__init__(
            machine, settings="\n".join([settings, "[storage]", "enabled = true", *lines, ""])
        )
        self._fs_type = fs_type

    def mount_data(self) -> None:
        """Both disks: the daemon's own, and that of the volumes."""
        super().mount_data()
        disk = self.machine.disks[1]
        self.machine.run(_MOUNT_POOL.format(pool=_POOL, disk=disk, fs_type=self._fs_type))
        self.machine.run(f"mkdir -p {_POOL}/volumes; sync -f {_POOL}")

    def start_without_server(self) -> None:
        """Start the daemon, and do not wait until a server has told it everything."""
        top = "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.options.items())
        self.machine.installation.start(self.machine, self.verb, top + self._settings)

    def volagent(self, arguments: str) -> str:
        """What the command line says to an administrator here."""
        return self.machine.run(f"{self.machine.installation.program} {arguments}").out

    def serve_nfs(self) -> None:
        """Start the kernel's NFS server, as the machine's own service would at a boot."""
        self.machine.run(_SERVE_NFS)

    def shown_to(self, path: str) -> list[str]:
        """The addresses that a directory is exported to."""
        found = self.machine.run("exportfs -s || true").out.splitlines()
        lines = [line.split() for line in found if line.split()[:1] == [path]]
        return sorted(client.partition("(")[0] for line in lines for client in line[1:])

    def file(self, volume: str) -> str:
        """Where a volume's content is."""
        return f"{_POOL}/volumes/{volume}/disk.img"

    def targets(self) -> list[str]:
        """The names of the targets that the kernel has."""
        return self.machine.run(
            "ls -d /sys/kernel/config/target/iscsi/iqn.* 2>/dev/null | xargs -rn1 basename || true"
        ).out.split()

    def let_in(self) -> list[str]:
        """The initiators that the kernel lets in to any target."""
        return self.machine.run(
            "ls -d /sys/kernel/config/target/iscsi/iqn.*/tpgt_1/acls/* 2>/dev/null"
            " | xargs -rn1 basename || true"
        ).out.split()


class ThinStorageNode(StorageNode):
    """One with a thin pool. udev runs there, as on any machine with LVM; nothing else activates."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, thin_pool=f"{_THIN_GROUP}/{_THIN_POOL}")

    def mount_data(self) -> None:
        """And udev, and the thin pool when it is not there yet."""
        super().mount_data()
        disk = self.machine.disks[2]
        self.machine.run(
            _START_UDEV + _MAKE_THIN_POOL.format(group=_THIN_GROUP, pool=_THIN_POOL, disk=disk)
        )

    def device(self, volume: str) -> str:
        """Where a volume's content is."""
        return f"/dev/{_THIN_GROUP}/volagent-{volume}"

    def thin_volumes(self) -> list[str]:
        """The volumes with content in the pool."""
        said = self.machine.run(
            f"lvs --noheadings -o lv_name --select pool_lv={_THIN_POOL} {_THIN_GROUP}"
        )
        return sorted(each.removeprefix("volagent-") for each in said.out.split())

    def taken_kib(self) -> int:
        """How much of the pool's data has been given to volumes."""
        said = self.machine.run(
            f"dmsetup status {_THIN_GROUP}-{_THIN_POOL}-tpool;"
            f" dmsetup table {_THIN_GROUP}-{_THIN_POOL}-tpool"
        )
        status, table = said.out.splitlines()[:2]
        blocks = int(status.split()[5].partition("/")[0])
        return blocks * int(table.split()[5]) // 2
