"""The role of an NBD server: nbd-server with one file on the machine's disk for each export.

The files lie on the machine's first disk, so they outlive the server and the machine's power. The
server is a process that can be killed and started again; it listens on every address.
"""

from tests.cluster.lab.machine import Machine

PORT = 10809
_DATA = "/exports"
_CONFIG = "/etc/nbd-server/scenario"
_TLS = "/etc/nbd-server/tls"
_PID = "/run/nbd-server.pid"

_MOUNT = """
mkdir -p {data}
mountpoint -q {data} || {{
  blkid {disk} >/dev/null || mkfs.ext4 -q {disk}
  mount {disk} {data}
}}
"""
_START = """
nbd-server -C {config} -p {pid} </dev/null >/run/nbd-server.log 2>&1
for _ in $(seq 100); do
  if (exec 3<>/dev/tcp/{address}/{port}) 2>/dev/null; then exit 0; fi
  sleep 0.1
done
cat /run/nbd-server.log >&2
exit 1
"""
_KILL = """
pids=$(pgrep -x nbd-server) && kill -KILL $pids
while pgrep -x nbd-server >/dev/null; do sleep 0.05; done
"""


class NbdServer:
    """An NBD server on a machine."""

    def __init__(self, machine: Machine, disk: str) -> None:
        self.machine = machine
        self._disk = disk
        self._exports: dict[str, bool] = {}
        self.tls = False
        """Whether to insist on TLS, with the material of `_TLS`; counts at the next start."""

    @property
    def address(self) -> str:
        """Where clients find it."""
        return self.machine.address

    def serve(self, *names: str, size_mib: int = 64, read_only: bool = False) -> None:
        """Offer further exports, made when they are missing, and start or restart the server."""
        self.machine.run(_MOUNT.format(data=_DATA, disk=self._disk))
        for name in names:
            self.machine.run(f"[ -e {_DATA}/{name} ] || truncate -s {size_mib}M {_DATA}/{name}")
            self._exports[name] = read_only
        self._configure()
        self.kill()
        self.machine.run(_START.format(config=_CONFIG, pid=_PID, address=self.address, port=PORT))

    def kill(self) -> None:
        """`kill -9` of the server and all its connections, and wait until they are gone."""
        self.machine.run(f"pgrep -x nbd-server >/dev/null || exit 0\n{_KILL}")

    def grow(self, name: str, size_mib: int) -> None:
        """Make an export larger; connections that exist keep the size that they were told."""
        self.machine.run(f"truncate -s {size_mib}M {_DATA}/{name}")

    def clients(self) -> list[str]:
        """The addresses of the machines that are connected, one for each connection."""
        script = f"ss -Htn state established sport = :{PORT} | awk '{{print $NF}}'"
        peers = [peer.rpartition(":")[0] for peer in self.machine.run(script).out.split()]
        return sorted(peer.strip("[]").removeprefix("::ffff:") for peer in peers)

    def checksum(self, name: str) -> str:
        """Of an export, as the server sees it."""
        return self.machine.run(f"sha256sum <{_DATA}/{name}").out

    def _configure(self) -> None:
        lines = ["[generic]", "allowlist = true", f"port = {PORT}"]
        if self.tls:
            lines += [f"certfile = {_TLS}/tls.crt", f"keyfile = {_TLS}/tls.key"]
            lines += [f"cacertfile = {_TLS}/ca.crt", "force_tls = true"]
        for name, read_only in self._exports.items():
            lines += [f"[{name}]", f"exportname = {_DATA}/{name}", "flush = true", "fua = true"]
            lines += [f"readonly = {'true' if read_only else 'false'}"]
        self.machine.put_file(_CONFIG, "\n".join(lines) + "\n")

    def install_tls(self, material: dict[str, str]) -> None:
        """Put `ca.crt`, `tls.crt` and `tls.key` where the server reads them."""
        for name, text in material.items():
            self.machine.put_file(f"{_TLS}/{name}", text, mode=0o600)
