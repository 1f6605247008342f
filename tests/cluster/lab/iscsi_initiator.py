"""The role of a machine with iSCSI disks: open-iscsi, udev and multipath-tools on it.

`drive` takes volumes through their life with the driver of this checkout, in a process of its own
each time, as a daemon that was restarted would. Silence of a portal is noticed within seconds here,
not within the half minute of the defaults.
"""

import itertools
import json
from typing import Any

from tests.cluster.lab.iscsi_target import IscsiTarget
from tests.cluster.lab.machine import Machine

Json = dict[str, Any]


_START = """
modprobe -a iscsi_tcp sd_mod dm_mod dm_multipath dm_service_time dm_round_robin
mkdir -p /run/lock/iscsi
echo InitiatorName=iqn.2026-01.lab:{name} >/etc/iscsi/initiatorname.iscsi
sed -i 's/^\\(node.*noop_out_.*\\) = .*/\\1 = 2/' /etc/iscsi/iscsid.conf
sed -i 's/^\\(node.*replacement_timeout\\) = .*/\\1 = {patience_s}/' /etc/iscsi/iscsid.conf
pgrep -f systemd-udevd >/dev/null || /lib/systemd/systemd-udevd --daemon
udevadm trigger --subsystem-match=block
udevadm settle
pgrep -x iscsid >/dev/null || iscsid
"""
_START_MULTIPATH = """
multipathd -d -s >/run/multipathd.log 2>&1 &
for try in $(seq 600); do
  grep -q /org/kernel/linux/storage/multipathd /proc/net/unix && exit 0
  sleep 0.05
done
exit 1
"""

_NOTE_ARGUMENTS = """
mv /usr/sbin/iscsiadm /usr/sbin/iscsiadm.real
cat >/usr/sbin/iscsiadm <<'END'
#!/bin/sh
echo "$@" >>/run/arguments
exec /usr/sbin/iscsiadm.real "$@"
END
chmod 755 /usr/sbin/iscsiadm
"""


class IscsiInitiator:
    """A machine that logs in to targets."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._requests = itertools.count()

    def start(self, *, patience_s: int = 5) -> None:
        """Start udev and iscsid, on a machine that has just been started.

        `patience_s` is how long I/O waits for a target that is silent, before it fails.
        """
        self.machine.run(_START.format(name=self.machine.name, patience_s=patience_s))

    def start_multipath(self) -> None:
        """Start multipathd."""
        self.machine.run(_START_MULTIPATH)

    def stop_multipath(self) -> None:
        """End multipathd; maps stay."""
        self.machine.run("multipathd shutdown; while pgrep -x multipathd; do sleep 0.05; done")

    def drive(self, *steps: Json | list[Json], timeout_s: float = 150.0) -> list[Json]:
        """Do steps one after the other (those of a list within at once) with the driver."""
        file = f"/run/steps-{next(self._requests)}.json"
        self.machine.put_file(file, json.dumps(steps))
        here = self.machine.installation
        said = self.machine.run(
            f"{here.python} {here.guest_files}/iscsi_volume.py {file}",
            timeout_s=timeout_s,
        )
        answers: list[Json] = json.loads(said.out)
        return answers

    def note_arguments(self) -> None:
        """From now on note what iscsiadm is called with."""
        self.machine.run(_NOTE_ARGUMENTS)

    def forget_arguments(self) -> str:
        """Undo `note_arguments`; what was noted."""
        self.machine.run("mv /usr/sbin/iscsiadm.real /usr/sbin/iscsiadm")
        return self.machine.run("cat /run/arguments; rm /run/arguments").out

    def sessions(self) -> list[str]:
        """The kernel's sessions, by their target's name."""
        return self.machine.run(
            "cat /sys/class/iscsi_session/*/targetname 2>/dev/null || true"
        ).out.split()

    def disks(self) -> list[str]:
        """The kernel's scsi disks and maps, by name."""
        return self.machine.run(
            "for d in /sys/block/sd* /sys/block/dm-*; do [ -e $d ] && basename $d; done; true"
        ).out.split()

    def records(self) -> str:
        """What open-iscsi has on disk, with the rights of each file."""
        return self.machine.run(
            "find /etc/iscsi/nodes /etc/iscsi/send_targets /etc/iscsi/ifaces -type f"
            " -printf '%m %p\\n' 2>/dev/null || true"
        ).out

    def links(self) -> list[str]:
        """The links that open-iscsi has to records of nodes."""
        return self.machine.run("find /etc/iscsi/static -type l 2>/dev/null || true").out.split()


def source(target: IscsiTarget, lun: int, **more: Any) -> Json:
    """The `iscsi` of a volume on a target's first portal."""
    return {"targetPortal": target.portals[0], "iqn": target.iqn, "lun": lun, **more}
