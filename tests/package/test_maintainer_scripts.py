"""The maintainer scripts, on a directory that stands for / and a systemctl that takes notes."""

import shutil
import subprocess
from pathlib import Path

import pytest

ALL = ("volagent.service", "volagent-server.service", "volagent-agent.service")
SYSTEMCTL = """#!/bin/sh
case "$*" in
  is-active*)
    state=$(sed -n "s/^$2 //p" "$NOTES/states" 2>/dev/null)
    echo "${state:-inactive}"
    [ "$state" = active ]
    exit
    ;;
esac
echo "systemctl $*" >>"$NOTES/calls"
[ "$*" != "$(cat "$NOTES/fails" 2>/dev/null)" ]
"""
SYSUSERS = """#!/bin/sh
echo "systemd-sysusers $*" >>"$NOTES/calls"
"""


class Machine:
    """A root directory and stubs; `run` calls a script as dpkg would."""

    def __init__(self, directory: Path, scripts: Path) -> None:
        self.root = directory / "root"
        self._notes = directory / "notes"
        self._stubs = directory / "bin"
        self._scripts = scripts
        for path in (self.root / "run/systemd/system", self._notes, self._stubs):
            path.mkdir(parents=True)
        for name, text in (("systemctl", SYSTEMCTL), ("systemd-sysusers", SYSUSERS)):
            (self._stubs / name).write_text(text)
            (self._stubs / name).chmod(0o755)

    def note(self, name: str, *lines: str) -> None:
        (self._notes / name).write_text("".join(f"{line}\n" for line in lines))

    def put(self, place: str, text: str = "data") -> Path:
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, script: str, *arguments: str) -> tuple[list[str], str]:
        """What it had systemd do, and what it said."""
        calls = self._notes / "calls"
        calls.unlink(missing_ok=True)
        done = subprocess.run(
            [self._scripts / script, *arguments],
            env={
                "DPKG_ROOT": str(self.root), "NOTES": str(self._notes),
                "PATH": f"{self._stubs}:/usr/bin:/bin",
            },
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        made = calls.read_text().splitlines() if calls.exists() else []
        return [call for call in made if "sysusers" not in call], done.stdout + done.stderr


@pytest.fixture
def machine(tmp_path, control):
    return Machine(tmp_path, control)


def test_installation_starts_and_enables_nothing(machine):
    calls, said = machine.run("postinst", "configure", "")
    assert calls == ["systemctl daemon-reload"]
    assert "systemctl enable --now volagent" in said


def test_upgrade_restarts_what_runs_and_nothing_else(machine):
    machine.note("states", "volagent-agent.service active")
    assert machine.run("prerm", "upgrade", "0.2.0") == ([], "")
    calls, said = machine.run("postinst", "configure", "0.1.0")
    assert calls == ["systemctl daemon-reload", "systemctl restart volagent-agent.service"]
    assert "mounts stay" in said


def test_upgrade_of_a_stopped_daemon_leaves_it_stopped(machine):
    calls, _ = machine.run("postinst", "configure", "0.1.0")
    assert calls == ["systemctl daemon-reload"]


def test_upgrade_succeeds_and_says_so_when_the_daemon_does_not_come_back(machine):
    machine.note("states", "volagent.service active")
    machine.note("fails", "restart volagent.service")
    _, said = machine.run("postinst", "configure", "0.1.0")
    assert "did not come back" in said


def test_removal_stops_the_daemon_and_says_how_to_drain(machine):
    machine.note("states", "volagent.service active")
    calls, said = machine.run("prerm", "remove")
    assert calls == ["systemctl stop volagent.service"]
    assert "mounts stay" in said
    assert "drain_on_exit" in said
    assert machine.run("postrm", "remove")[0] == ["systemctl daemon-reload"]


@pytest.mark.parametrize(("script", "arguments", "verb"), [
    ("postinst", ["configure", "0.1.0"], "restart"),
    ("prerm", ["remove"], "stop"),
])  # fmt: skip
def test_daemon_that_starts_again_and_again_counts_as_running(machine, script, arguments, verb):
    machine.note("states", "volagent-server.service activating")
    calls, _ = machine.run(script, *arguments)
    assert f"systemctl {verb} volagent-server.service" in calls


def test_removal_keeps_what_the_operator_enabled_and_a_purge_does_not(machine):
    wants = "etc/systemd/system/multi-user.target.wants"
    links = [machine.put(f"{wants}/{unit}") for unit in ALL]
    other = machine.put(f"{wants}/other.service")
    machine.run("postrm", "remove")
    assert all(link.exists() for link in links)
    machine.run("postrm", "purge")
    assert not any(link.exists() for link in links)
    assert other.exists()


def test_purge_removes_no_data_and_says_what_is_left(machine):
    kept = [
        machine.put("var/lib/volagent/volagent.db"),
        machine.put("var/lib/volagent/images/database.img"),
        machine.put("var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/cache/file"),
    ]
    mount = "36 25 0:32 / /var/lib/kubelet/pods/1/volumes/x rw - tmpfs t rw"
    machine.put("proc/self/mountinfo", mount)
    _, said = machine.run("postrm", "purge")
    assert all(path.read_text() == "data" for path in kept)
    for word in ("/var/lib/volagent", "/var/lib/kubelet/pods", "still mounted"):
        assert word in said


def test_purge_of_a_clean_machine_says_nothing(machine):
    assert machine.run("postrm", "purge") == (["systemctl daemon-reload"], "")


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("postinst", ["configure", ""]), ("prerm", ["remove"]), ("postrm", ["purge"])],
)
def test_scripts_do_without_a_running_systemd(machine, script, arguments):
    shutil.rmtree(machine.root / "run/systemd")
    assert machine.run(script, *arguments) == ([], "")


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_shellcheck_has_nothing_to_say(control, script):
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is missing: install it to have the scripts judged")
    subprocess.run(["shellcheck", control / script], check=True)
