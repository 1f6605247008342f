"""A volume that a process holds: named, waited for, never taken by force."""

import subprocess
from pathlib import Path

from tests.cluster.manifests import pod, scratch
from tests.kernel.daemon.harness import Daemon, until


def hold(directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], cwd=directory)


def test_process_that_holds_a_volume_is_named_and_the_pod_goes_with_it(daemon: Daemon) -> None:
    web = pod("web", [scratch("memory", "Memory"), scratch("disk")])
    (home,) = daemon.declare_ready(web)
    memory = home / "volumes/kubernetes.io~empty-dir/memory"
    with hold(memory) as holder:
        try:
            daemon.delete(web)
            message = daemon.wait_blocked(web, f"{holder.pid}", "sleep", str(memory))
            assert "EBUSY" in message
            assert "stop the process" in message
            event = daemon.wait_event(web, "FailedUnmount", f"{holder.pid}", "sleep")
            assert "EBUSY" in event
            assert str(memory) in daemon.mounts()
            assert "left" in daemon.ask_node("explain", web)["summary"]
        finally:
            holder.kill()
    until(lambda: not daemon.exists(web), told=daemon.read_log)
    assert not home.exists()


def test_busy_pod_keeps_no_other_from_going_or_coming(daemon: Daemon) -> None:
    busy, other = (pod(name, [scratch("memory", "Memory")]) for name in ("busy", "other"))
    (home, _) = daemon.declare_ready(busy, other)
    with hold(home / "volumes/kubernetes.io~empty-dir/memory") as holder:
        try:
            daemon.delete(busy)
            daemon.wait_blocked(busy, str(holder.pid))
            daemon.delete_gone(other)
            daemon.declare_ready(other)
            daemon.restart()
            daemon.wait_blocked(busy, str(holder.pid))
            daemon.delete_gone(other)
        finally:
            holder.kill()
    until(lambda: not daemon.exists(busy), told=daemon.read_log)
