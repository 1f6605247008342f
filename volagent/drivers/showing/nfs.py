"""Shows directories by the kernel's NFS server, each to the addresses of the nodes that have it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from volagent.drivers.errors import Rejected, Transient, Uncertain
from volagent.drivers.showing.contract import Peer
from volagent.host.errors import HostError
from volagent.host.nfs_exports import Nodes, ShownExports, check_addresses, find_clients
from volagent.host.process import Helpers

BACKEND: Final = "nfsd"
TIMEOUT_S: Final = 30.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class NfsShower:
    """The shower of `nfs.volagent.dev`."""

    helpers: Helpers
    exports: ShownExports

    async def restore(self) -> str:
        """What is on record; nothing is touched where nothing was ever shown."""
        records = await self._records()
        if records:
            await self._make_true()
        return f"{len(records)} directories shown"

    async def show(self, volume: str, peer: Peer) -> str:
        """Let a node's addresses in, and see that the server says so."""
        if not peer.addresses:
            raise Transient(f"node {peer.name} has told no address", remedy="does its agent run?")
        try:
            addresses = check_addresses(peer.addresses)
            nodes = dict(self.exports.read(volume))
            if nodes.get(peer.name, addresses) == []:
                raise Rejected(
                    f"node {peer.name} was fenced from {volume}",
                    remedy="it is let in again when it was detached",
                )
            self.exports.write(volume, {**nodes, peer.name: addresses})
        except (HostError, OSError) as error:
            raise _explain(error) from error
        path = self.exports.path(volume)
        missing = set(addresses) - await self._make_true(path)
        if missing:
            raise Uncertain(
                f"{path} is not shown to {', '.join(sorted(missing))}, says exportfs",
                remedy=f"see {self.exports.exports_file} and `exportfs -s` on the storage node;"
                " does the directory exist?",
            )
        return f"{path} for {', '.join(addresses)}"

    async def hide(self, volume: str, node: str) -> str:
        """Keep it out: the server asks for every request who may make it."""
        return await self._keep_out(volume, node, {})

    async def fence(self, volume: str, node: str) -> str:
        """Keep it out until it was detached."""
        return await self._keep_out(volume, node, {node: ()})

    async def _keep_out(self, volume: str, node: str, noted: Nodes) -> str:
        try:
            nodes: Nodes = self.exports.read(volume)
        except (HostError, OSError) as error:
            raise _explain(error) from error
        path, left = self.exports.path(volume), dict(nodes)
        addresses = left.pop(node, ())
        others = {each for more in left.values() for each in more}
        still = await self._make_true(path, without=(volume, node)) & set(addresses) - others
        if still:
            raise Uncertain(
                f"{path} is still shown to {', '.join(sorted(still))}, says exportfs",
                remedy="does another file of /etc/exports.d or /etc/exports show it?",
            )
        try:
            self.exports.write(volume, {**left, **noted})
        except OSError as error:
            raise _explain(error) from error
        if not addresses:
            return f"{path} is not shown to {node}, says exportfs"
        return f"{path} is not shown to {', '.join(addresses)} any more, says exportfs"

    async def list_shown(self) -> Mapping[str, Collection[str]]:
        """By the records."""
        return {volume: list(nodes) for volume, nodes in (await self._records()).items()}

    async def fetch_credentials(self, volume: str) -> Mapping[str, str]:
        """Nodes are known by their addresses."""
        return {}

    async def _records(self) -> Mapping[str, Nodes]:
        try:
            return await self.helpers.run_in_pool(self.exports.read_all)
        except (HostError, OSError) as error:
            raise _explain(error) from error

    async def _make_true(self, path: str = "", without: tuple[str, str] = ("", "")) -> set[str]:
        """Write the file, have the server follow it; the clients of a directory then."""
        try:
            self.exports.write_exports(without=without)
            await self._run("exportfs", "-r")
            return find_clients(await self._run("exportfs", "-s"), path)
        except (HostError, OSError) as error:
            raise _explain(error) from error

    async def _run(self, *argv: str) -> str:
        done = await self.helpers.run(argv, backend=BACKEND, timeout_s=TIMEOUT_S)
        if done.returncode:
            raise HostError(" ".join(argv), self.exports.directory, 0, done.complaint)
        return done.stdout.decode(errors="replace")


def _explain(error: HostError | OSError) -> Rejected | Uncertain:
    return Uncertain(
        f"the NFS server: {error}",
        remedy="is nfs-kernel-server installed and running on the storage node?",
    )
