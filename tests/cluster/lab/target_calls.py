"""The kernel's target on a machine, asked by `host/lio/calls.py` of this checkout: no daemon."""

import itertools
import json
from typing import Any

from tests.cluster.lab.machine import Machine

Json = dict[str, Any]

VOLUME = "pvc-12345678-1234-4234-9234-123456789abc"
_POOL = "/pool"
_CORE = f"/sys/kernel/config/target/core/fileio_7000/{VOLUME}"
_SERVE = """
modprobe -a target_core_mod target_core_file iscsi_target_mod
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
mkdir -p {pool}
blkid {disk} >/dev/null || mkfs.ext4 -q {disk}
mount {disk} {pool}
mkdir -p {pool}/{volume}
[ -e {pool}/{volume}/disk.img ] || truncate -s 64M {pool}/{volume}/disk.img
sync -f {pool}
"""
_ASK = (
    "import json; from volagent.host.lio import calls;"
    " print(json.dumps(calls.perform(json.load(open({file!r})))))"
)


class TargetCalls:
    """One volume, shown to whom it is asked for."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.iqn_base = "iqn.2026-01.dev.volagent:lab"
        self.iqn = f"{self.iqn_base}.{VOLUME}"
        self.portal = f"{machine.address}:3260"
        self._requests = itertools.count()

    def serve(self) -> None:
        """Have the disk and the kernel's modules, on a machine that has just been started."""
        disk = self.machine.disks[0]
        self.machine.run(_SERVE.format(disk=disk, pool=_POOL, volume=VOLUME))

    def ask(self, do: str, **request: Any) -> Json:
        """One request."""
        asked = {
            "do": do, "path": _POOL, "iqn_base": self.iqn_base, "portals": [self.portal],
            "configfs": "/sys/kernel/config/target", "volume": VOLUME, **request,
        }  # fmt: skip
        file = f"/run/target-{next(self._requests)}.json"
        self.machine.put_file(file, json.dumps(asked))
        code = _ASK.format(file=file)
        said = self.machine.run(f'{self.machine.installation.python} -c "{code}"')
        answer: Json = json.loads(said.out)
        return answer

    def grow(self, size_mib: int) -> None:
        """Make the file larger."""
        self.machine.run(f"truncate -s {size_mib}M {_POOL}/{VOLUME}/disk.img")

    def registrations(self) -> str:
        """Who has which key, and the reservation, as the kernel says it."""
        return self.machine.run(
            f"cat {_CORE}/pr/res_pr_registered_i_pts {_CORE}/pr/res_pr_type"
        ).out

    def login(self, chap: Json) -> str:
        """A script that logs a machine in."""
        node = f"iscsiadm -m node -T {self.iqn} -p {self.portal}"
        given = {"authmethod": "CHAP", "username": chap["user"], "password": chap["password"]}
        settings = [f"{node} -o update -n node.session.auth.{k} -v {v}" for k, v in given.items()]
        return "\n".join([f"{node} -o new", *settings, f"{node} --login", "udevadm settle"])
