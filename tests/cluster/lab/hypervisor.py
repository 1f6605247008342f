"""A libvirt for the lab's machines.

Where systemd runs it is the system's. Elsewhere it is one of its own, started by hand below a shell
that is process 1 of new process-id, network and mount namespaces: its configuration, images and
sockets lie in the lab's directory, the host's libvirt (if there is one) is not touched, and when
the test run dies, the kernel kills all of it, the machines included.
"""

import os
import signal
import subprocess
from pathlib import Path

from tests.cluster.lab.processes import Keeper

TOOLS = {
    "vagrant": "vagrant-libvirt",
    "virsh": "libvirt-clients",
    "libvirtd": "libvirt-daemon-system",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "dnsmasq": "dnsmasq-base",
    "ssh": "openssh-client",
    "nsenter": "util-linux",
}
URI = "qemu:///system"

# bash is process 1: it must reap what libvirt's daemons leave, or a killed machine seems alive.
_HOLD = """
ip link set lo up
mkdir -p $0/lib/images $0/log /run/libvirt /var/lib/libvirt /var/log/libvirt
[ -d $0/etc ] || cp -a /etc/libvirt $0/etc
chmod 755 $0/lib
mount -t tmpfs run /run/libvirt
mount --bind $0/lib /var/lib/libvirt
mount --bind $0/log /var/log/libvirt
mount --bind $0/etc /etc/libvirt
virtlogd -d -p /run/libvirt/virtlogd.pid >&2
libvirtd -d -p /run/libvirt/libvirtd.pid >&2
for try in $(seq 100); do
  virsh -q -c qemu:///system uri >&2 && break
  sleep 0.2
done
virsh -q -c qemu:///system pool-info default >&2 ||
  virsh -q -c qemu:///system pool-define-as default dir --target /var/lib/libvirt/images >&2
virsh -q -c qemu:///system pool-list --name | grep -qw default ||  # of a copy it is active at once
  virsh -q -c qemu:///system pool-start default >&2
echo ready
while :; do sleep 3600 & wait $! || true; done
"""


class Hypervisor:
    """A running libvirt; `close` ends the one that was started here.

    `directory` (made when it is missing) is all that a libvirt of its own knows; a copy of it knows
    the same.
    """

    def __init__(self, directory: Path, keeper: Keeper) -> None:
        self._holder: subprocess.Popen[bytes] | None = None
        self.enter: list[str] = []
        """What precedes a command that is to see it and its machines."""
        if not is_own():
            return
        directory.mkdir(exist_ok=True)
        log = directory / "libvirt.log"
        with log.open("wb") as said:
            self._holder = keeper.start(
                ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                 "bash", "-ec", _HOLD, str(directory)],
                stdout=subprocess.PIPE,
                stderr=said,
            )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            raise RuntimeError(
                f"libvirt does not start in namespaces of its own:\n"
                f"{log.read_text(errors='replace')[-2000:]}\n"
                "hint: a container must be privileged for that"
            )
        spaces = f"/proc/{self._holder.pid}/ns"
        self.enter = [
            *("nsenter", f"--net={spaces}/net", f"--mount={spaces}/mnt"),
            *(f"--pid={spaces}/pid_for_children", "--"),
        ]

    def virsh(self, *arguments: str) -> str:
        """A command of virsh; what it said."""
        done = subprocess.run(
            [*self.enter, "virsh", "-q", "-c", URI, *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"virsh {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def close(self) -> None:
        """End everything that runs in the namespaces; idempotent."""
        if self._holder is None:
            return
        if self._holder.poll() is None:
            os.killpg(self._holder.pid, signal.SIGKILL)
            self._holder.wait()
        if self._holder.stdout is not None:
            self._holder.stdout.close()


def is_own() -> bool:
    """Whether the lab has a libvirt of its own."""
    return not Path("/run/systemd/system").exists()


def choose_domain_type() -> str:
    """`kvm`, or `qemu` (emulation) where this machine's processor cannot be lent to guests."""
    if given := os.environ.get("VOLAGENT_DOMAIN_TYPE"):
        return given
    flags = set(Path("/proc/cpuinfo").read_text().split())
    able = bool(flags & {"vmx", "svm"}) and os.access("/dev/kvm", os.R_OK | os.W_OK)
    return "kvm" if able else "qemu"


_PATIENCE = {"kvm": 2.0, "qemu": 6.0}
_MAX_PATIENCE = 100.0


def choose_patience(domain_type: str) -> float:
    """What the time limits of scenarios are multiplied with. Raises `ValueError`."""
    given = os.environ.get("VOLAGENT_PATIENCE")
    if given is None:
        return _PATIENCE[domain_type]
    try:
        patience = float(given)
    except ValueError:
        patience = 0.0
    if not 1.0 <= patience <= _MAX_PATIENCE:
        raise ValueError(f"VOLAGENT_PATIENCE is {given}: it may be 1 to {_MAX_PATIENCE:g}")
    return patience
