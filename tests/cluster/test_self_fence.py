"""A node that fences itself: a real disk, a real watchdog (softdog), a real reset.

The server and the array are one machine. Times are counted from when the node's silence begins;
what it has promised counts from its last renewal, which is at most a period earlier.
"""

import json
import time

import pytest

from tests.cluster import manifests
from tests.cluster.lab.cluster import Agent, Server, on
from tests.cluster.lab.iscsi_initiator import IscsiInitiator, source
from tests.cluster.lab.iscsi_target import IscsiTarget
from tests.cluster.lab.machine import PID_FILE, CommandTimedOut, Hardware, MachineError

LEASE = "[lease]\nperiod_s = 2.0\ntimeout_s = 6.0\n"
FENCE = '[fence]\nself = "on"\ngive_up_s = 24.0\nwatchdog = "{device}"\n'
PROMISE_S = 2 + 30 + 1
SLACK_S = 6.0
"""Of the test's own looks at a machine that is busy."""
LOOK_S = 1.0
FENCES_ITSELF = "volagent.dev/fences-itself"
NODE = "/api/v1/nodes/node01"


class Site:
    """The machines, and the one pod with a disk."""

    def __init__(self, lab):
        base = lab.add_machine("server", Hardware(memory_mib=768, disks_mib=(128,)))
        machine = lab.add_machine("node01", Hardware(memory_mib=640, disks_mib=(256,)))
        lab.start_all()
        self.target = IscsiTarget(base)
        self.target.serve()
        self.target.make_disk("data", 64)
        self.target.show(1, "data")
        self.server = Server(base, settings=LEASE)
        self.server.start()
        self.machine = machine
        device = self.load_watchdog()
        self.node = Agent(machine, settings=LEASE + FENCE.format(device=device))
        self.node.join(self.server.make_join_command())
        self.initiator = IscsiInitiator(machine)
        self.initiator.start(patience_s=120)
        self.node.start()
        disk = {"iscsi": source(self.target, 1, fsType="ext4")}
        pair = manifests.bound_pair("data", disk, access_mode="ReadWriteOnce")
        self.server.declare(*pair)
        pod = manifests.pod("web", [manifests.claim_volume("data", "data")])
        self.pod = on(pod, self.node)
        self.server.declare_ready(self.pod, within_s=60)
        self.home = self.node.volume(self.pod, "kubernetes.io~iscsi", "pv-data")
        machine.run(f"echo precious >{self.home}/note; sync -f {self.home}")

    def load_watchdog(self) -> str:
        """softdog; User-Mode-Linux has the old device's number for a watchdog of its host."""
        found = "modprobe softdog; ls -1 /dev/watchdog? /dev/watchdog 2>/dev/null | head -n 2"
        names = self.machine.run(found).out.split()
        return "/dev/watchdog1" if "/dev/watchdog1" in names else "/dev/watchdog"

    def revive(self) -> None:
        """After a reset: as an operator's machine boots."""
        self.machine.power_cut()
        self.machine.start()
        self.load_watchdog()
        self.initiator.start(patience_s=120)
        self.node.start()
        self.server.wait_ready(self.pod, within_s=90)

    def promise(self):
        node = self.server.call("GET", NODE)
        text = (node["metadata"].get("annotations") or {}).get(FENCES_ITSELF)
        return json.loads(text) if text else None

    def boot(self, timeout_s: float = 60.0) -> str:
        script = "cat /proc/sys/kernel/random/boot_id"
        return self.machine.run(script, timeout_s=timeout_s).out.strip()

    def await_reset(self, boot: str, within_s: float) -> float:
        """Seconds until the machine went down, or is another boot.

        One that was reset says nothing at first: it counts from the look that was not answered.
        """
        began = time.monotonic()
        silent_s: float | None = None
        while (now_s := time.monotonic() - began) < within_s * self.machine.patience:
            try:
                if self.boot(timeout_s=LOOK_S) != boot:
                    return now_s if silent_s is None else silent_s
                silent_s = None
            except CommandTimedOut:
                silent_s = now_s if silent_s is None else silent_s
            except MachineError:
                return now_s if silent_s is None else silent_s
            time.sleep(0.2)
        raise AssertionError(f"not reset within {within_s} s")


@pytest.fixture(scope="module")
def site(lab):
    return Site(lab)


def test_node_promises_what_its_watchdog_does(site):
    promise = site.promise()
    assert promise["withinSeconds"] == PROMISE_S
    assert promise["by"].startswith("/dev/watchdog")
    assert promise["bootID"] == site.boot()
    said = site.node.metrics()
    assert "volagent_fence_armed 1.0" in said


def test_nothing_happens_when_the_agent_is_killed_and_started_again(site, figure):
    boot, mounts = site.boot(), site.node.mounts()
    began = time.monotonic()
    site.node.kill()
    site.node.start()
    figure("agent killed to serving again", (time.monotonic() - began) * 1000)
    site.machine.run(f"sleep {PROMISE_S + 2}")
    assert site.boot() == boot
    assert site.node.mounts() == mounts
    assert site.promise()["withinSeconds"] == PROMISE_S


def test_machine_is_reset_when_it_is_cut_off_from_server_and_disk(site, figure):
    boot = site.boot()
    site.machine.run(f"echo dirty >{site.home}/dirty")
    site.machine.partition()
    # What is not written yet cannot be written out, so giving up does not end.
    took_s = site.await_reset(boot, PROMISE_S + SLACK_S)
    figure("cut off from all, to machine reset", took_s * 1000)
    site.machine.heal()
    site.revive()
    assert site.machine.run(f"cat {site.home}/note").out == "precious\n"


def test_disk_is_given_up_in_order_when_only_the_server_is_silent(site, figure):
    boot = site.boot()
    site.machine.run(f"echo dirty >{site.home}/dirty")
    site.server.kill()
    began = time.monotonic()
    site.machine.run(
        'until [ -z "$(ls /sys/class/iscsi_session)" ]; do sleep 0.1; done',
        timeout_s=PROMISE_S + SLACK_S,
    )
    figure("server silent to disk given up", (time.monotonic() - began) * 1000)
    assert "/dev/sd" not in site.machine.run("cat /proc/self/mountinfo").out
    site.machine.run(f"sleep {PROMISE_S}")
    assert site.boot() == boot
    site.server.start()
    site.machine.run(  # its word of before is still there: the server was silent too
        f"until grep -q ' {site.home} ' /proc/self/mountinfo; do sleep 0.1; done", timeout_s=90
    )
    site.server.wait_ready(site.pod, within_s=90)
    assert site.machine.run(f"cat {site.home}/note {site.home}/dirty").out == "precious\ndirty\n"


def test_machine_is_reset_when_its_agent_is_stopped_with_a_disk_in_use(site, figure):
    boot = site.boot()
    site.machine.run(f"kill -STOP $(cat {PID_FILE})")
    took_s = site.await_reset(boot, PROMISE_S + SLACK_S)
    figure("agent stopped to machine reset", took_s * 1000)
    assert took_s < PROMISE_S + SLACK_S
    site.revive()
    assert site.machine.run(f"cat {site.home}/note").out == "precious\n"


def test_machine_is_reset_when_something_keeps_the_disk_busy(site, figure):
    boot = site.boot()
    site.machine.run(f"cd {site.home}; setsid sleep 1000 >/dev/null 2>&1 </dev/null &")
    site.server.kill()
    took_s = site.await_reset(boot, PROMISE_S + SLACK_S)
    figure("server silent, disk busy, to machine reset", took_s * 1000)
    site.server.start()
    site.revive()
