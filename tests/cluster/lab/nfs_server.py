"""The role of an NFS server: the kernel's own, versions 3 to 4.2, one ext4 disk exported.

The export is the root of the version 4 name space (`fsid=0`: the machine's own root is an overlay,
which cannot be exported), so a directory `x` of it is `SERVER:/x` for version 4 and
`SERVER:/export/x` for version 3. Lease and grace time are 10 s, so that a server that comes back
serves again soon.
"""

from tests.cluster.lab.machine import Machine

_EXPORT = "/export"

_SERVE = """
modprobe -a sunrpc lockd nfsd
echo 10 >/proc/sys/fs/nfs/nlm_grace_period   # of version 3, but nobody gets a lock before it ends
mkdir -p {export} /var/lib/nfs/v4recovery /run/rpc_pipefs
blkid {disk} >/dev/null || mkfs.ext4 -q {disk}
mount {disk} {export}
mkdir -p {export}/.state
mount --bind {export}/.state /var/lib/nfs/v4recovery
mount -t rpc_pipefs rpc_pipefs /run/rpc_pipefs
mount -t nfsd nfsd /proc/fs/nfsd
echo 10 >/proc/fs/nfsd/nfsv4leasetime
echo 10 >/proc/fs/nfsd/nfsv4gracetime
rpcbind -w
exportfs -o rw,no_root_squash,fsid=0,insecure,no_subtree_check '*:{export}'
rpc.nfsd 4
rpc.mountd
"""


class NfsServer:
    """An NFS server on a machine; the disk's content outlives the machine's power."""

    def __init__(self, machine: Machine, disk: str) -> None:
        self.machine = machine
        self._disk = disk

    @property
    def address(self) -> str:
        """Where clients find it."""
        return self.machine.address

    def serve(self) -> None:
        """Start serving, on a machine that has just been started."""
        self.machine.run(_SERVE.format(export=_EXPORT, disk=self._disk))

    def make_directory(self, name: str) -> None:
        """A directory of the export, open to everybody, there after a power cut too."""
        self.machine.run(f"install -d -m 0777 {_EXPORT}/{name}; sync -f {_EXPORT}")

    def path(self, name: str, *, version: str = "4.2") -> str:
        """The path under which clients mount a directory of the export."""
        return f"{_EXPORT}/{name}" if version.startswith("3") else f"/{name}"

    def read(self, name: str) -> str:
        """A file of the export, as the server sees it."""
        return self.machine.run(f"cat {_EXPORT}/{name}").out
