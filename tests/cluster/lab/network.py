"""A private network: a bridge and one tap per machine in a network namespace without a name.

The namespace lives as long as the process that holds it, so nothing can be left behind. The
machines' addresses are not reachable from the host's own namespace, nor the other way round.
"""

import os
import signal
import subprocess

from tests.cluster.lab.processes import Keeper

_BRIDGE = "br0"
_SUBNET = "10.77.0"
_FIRST_HOST = 11

_HOLD = f"""
ip link set lo up
ip link add {_BRIDGE} type bridge forward_delay 0
ip addr add {_SUBNET}.1/24 dev {_BRIDGE}
ip link set {_BRIDGE} up
echo ready
exec sleep infinity
"""


class Network:
    """The lab's network. `close` removes it together with every tap."""

    def __init__(self, keeper: Keeper) -> None:
        self._holder = keeper.start(
            ["unshare", "--net", "sh", "-ec", _HOLD],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"ready\n":
            raise RuntimeError(f"no network for the lab: {self._holder.stderr.read().decode()}")
        self._ports = 0

    @property
    def enter(self) -> list[str]:
        """The command prefix that runs a program inside the network's namespace."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]

    def add_port(self) -> "Port":
        """A new tap on the bridge, and the address of the machine behind it."""
        index = self._ports
        self._ports += 1
        tap = f"tap{index}"
        # vnet_hdr lets segments of 64 KiB pass whole; without it TCP between machines crawls.
        self._ip("tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr")
        self._ip("link", "set", tap, "master", _BRIDGE, "up")
        host = _FIRST_HOST + index
        return Port(self, tap, f"{_SUBNET}.{host}", f"02:00:00:00:00:{host:02x}")

    def connect(self, tap: str) -> None:
        """Join a tap to the bridge."""
        self._ip("link", "set", tap, "master", _BRIDGE)

    def disconnect(self, tap: str) -> None:
        """Take a tap off the bridge: its machine keeps its carrier but reaches nobody."""
        self._ip("link", "set", tap, "nomaster")

    def _ip(self, *arguments: str) -> None:
        subprocess.run([*self.enter, "ip", *arguments], check=True, stdin=subprocess.DEVNULL)

    def close(self) -> None:
        """End the holder and with it the namespace; idempotent."""
        if self._holder.poll() is None:
            os.killpg(self._holder.pid, signal.SIGKILL)
            self._holder.wait()
        for stream in (self._holder.stdout, self._holder.stderr):
            if stream is not None:
                stream.close()


class Port:
    """A machine's place on the network."""

    prefix_length = 24

    def __init__(self, network: Network, tap: str, address: str, hardware_address: str) -> None:
        self._network = network
        self.tap = tap
        self.address = address
        self.hardware_address = hardware_address

    def connect(self) -> None:
        """Join the network."""
        self._network.connect(self.tap)

    def disconnect(self) -> None:
        """Leave the network."""
        self._network.disconnect(self.tap)
