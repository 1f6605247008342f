"""What Vagrant's machines need of the one that they run on, and what would help where it lacks it.

    python -m tests.cluster.lab.requirements

says it before minutes are spent on a package and a box.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.lab.hypervisor import TOOLS, URI, is_own

_CHECKOUT = Path(__file__).parents[3]
MEMORY_MIB = 4096
"""Four machines of 640 MiB, and what qemu adds to each."""
DISK_MIB = 4096
"""For the machines that run, in the directory of temporary files; and for the box and the copies of
machines, in the checkout."""
PYTHON = (3, 11)
"""Of the machines' Debian; a package is made for the Python of who builds it."""


@dataclass(frozen=True, slots=True)
class Room:
    """On one file system."""

    directories: tuple[str, ...]
    """What needs it there."""
    free_mib: int

    @property
    def needed_mib(self) -> int:
        """For all of them."""
        return DISK_MIB * len(self.directories)


@dataclass(frozen=True, slots=True)
class Facts:
    """What counts of a machine."""

    is_root: bool
    has_apt: bool
    python: tuple[int, int]
    has_tun: bool
    memory_mib: int
    """That programs could have now."""
    rooms: tuple[Room, ...]


def read_facts() -> Facts:
    """Of this machine."""
    return Facts(
        is_root=os.geteuid() == 0,
        has_apt=shutil.which("apt-get") is not None,
        python=sys.version_info[:2],
        has_tun=Path("/dev/net/tun").exists(),
        memory_mib=_read_available_mib(),
        rooms=_read_rooms(tempfile.gettempdir(), str(_CHECKOUT)),
    )


def judge(facts: Facts) -> str | None:
    """What a machine lacks and what would help, or None."""
    if not facts.is_root:
        return "needs root for libvirt: run `sudo make vagrant`"
    if not facts.has_apt:
        return "needs apt-get, for the box is made from a Debian mirror: use Debian 12"
    if facts.python != PYTHON:
        return (
            f"needs a package for Python {_dotted(PYTHON)}, which the machines have, and .venv has"
            f" {_dotted(facts.python)}: run `rm -r .venv; PATH=/usr/sbin:/usr/bin make setup`"
        )
    if not facts.has_tun:
        return "needs /dev/net/tun: load the kernel module tun"
    if facts.memory_mib < MEMORY_MIB:
        return (
            f"needs {MEMORY_MIB} MiB of memory, and {facts.memory_mib} are available: end what"
            " uses it, or take a larger machine"
        )
    for room in facts.rooms:
        if room.free_mib < room.needed_mib:
            return (
                f"needs {room.needed_mib} MiB in {' and '.join(room.directories)}, and"
                f" {room.free_mib} are free: make room (TMPDIR names another place than /tmp)"
            )
    return None


def find_missing_tool() -> str | None:
    """Which programs are not there, or do not answer, and what would help; or None."""
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        return f"needs the Debian packages {' '.join(missing)}: run `sudo make vagrant`"
    if is_own():
        return None
    done = subprocess.run(
        ["virsh", "-q", "-c", URI, "uri"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        return f"needs the system's libvirt ({said}): run `systemctl start libvirtd`"
    return None


def main() -> int:
    """The exit status: 1 when something is lacking."""
    obstacle = judge(read_facts())
    if obstacle is not None:
        fact, _, remedy = obstacle.rpartition(": ")
        print(f"volagent: vagrant: {fact}\nhint: {remedy}", file=sys.stderr)
        return 1
    return 0


def _read_rooms(*directories: str) -> tuple[Room, ...]:
    by_device: dict[int, list[str]] = {}
    for directory in directories:
        by_device.setdefault(os.stat(directory).st_dev, []).append(directory)
    return tuple(
        Room(tuple(names), shutil.disk_usage(names[0]).free >> 20) for names in by_device.values()
    )


def _read_available_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) >> 10
    raise ValueError("/proc/meminfo has no MemAvailable")


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


if __name__ == "__main__":
    sys.exit(main())
