"""A VM that has volumes: the daemon's root directory and mount table."""

import time
from dataclasses import dataclass
from typing import Any

from tests.cluster.lab.daemon import Daemon
from tests.cluster.lab.machine import Machine

Json = dict[str, Any]

_ROOT = "/data/kubelet"


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount below the root directory, from the machine's mount table."""

    mount_id: int
    device: str
    point: str
    fs_type: str
    options: frozenset[str]
    """Of the mount and of the file system together."""


class VolagentNode(Daemon):
    """volagent in one process on a machine that has its volumes."""

    def __init__(self, machine: Machine, *, settings: str = "") -> None:
        super().__init__(machine, settings=settings)
        self.options |= {"root_dir": _ROOT, "node_name": machine.name}

    def pod_directory(self, pod: Json) -> str:
        """The pod's directory below the root."""
        return f"{_ROOT}/pods/{self.uid(pod)}"

    def volume(self, pod: Json, kind: str, name: str) -> str:
        """A pod's directory of a volume; `kind` as on disk (`kubernetes.io~nfs`)."""
        return f"{self.pod_directory(pod)}/volumes/{kind}/{name}"

    def mounts(self) -> list[Mount]:
        """Every mount below the root directory, in the kernel's order."""
        table = self.machine.run(f"grep -F ' {_ROOT}/' /proc/self/mountinfo || true").out
        return [_parse_mount(line) for line in table.splitlines()]

    def unmount_by_hand(self, point: str, *, within_s: float = 20.0) -> float:
        """Unmount behind the daemon's back; milliseconds until it is mounted again."""
        within_s *= self.machine.patience
        guest_files = self.machine.installation.guest_files
        program = f"python3 -I -S {guest_files}/unmount.py {point} {within_s}"
        return float(self.machine.run(program, timeout_s=60.0 + within_s).out)

    def leftovers(self) -> list[str]:
        """What is below the directory of pods, deepest last; empty when all are gone."""
        return self.machine.run(
            f"if [ -d {_ROOT}/pods ]; then find {_ROOT}/pods -mindepth 1; fi"
        ).out.splitlines()

    def wait_clean(self, *, within_s: float = 10.0) -> None:
        """Until nothing of any pod is left: what is mounted for a whole machine goes after its last
        pod."""
        ends_s = time.monotonic() + within_s * self.machine.patience
        while (left := (self.mounts(), self.leftovers())) != ([], []):
            assert time.monotonic() < ends_s, (self.machine.name, left)
            time.sleep(0.1)


def _parse_mount(line: str) -> Mount:
    own, _, of_file_system = line.partition(" - ")
    mount_id, _, device, _, point, options, *_ = own.split()
    fs_type, _, super_options = of_file_system.split(" ", 2)
    return Mount(
        int(mount_id),
        device,
        point,
        fs_type,
        frozenset([*options.split(","), *super_options.split(",")]),
    )
