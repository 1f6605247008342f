"""docs/operations.md, from two empty VMs to a pod that moves: its commands, one after the other.

Both machines are on this kernel, each with directories of its own, and a directory stands for the
NFS server's export (the real one is in tests/cluster/test_nfs_between_nodes.py). What is replaced
in a command is its place: addresses, directories, and systemctl by starting the daemon.
"""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.daemon.harness import Daemon
from tests.kernel.daemon.test_access import free_port
from tests.kernel.daemon.test_agent import Agent, volagent
from tests.meta.source_tree import ROOT

SECTION = "## From two empty VMs and an NFS server to a pod that moves"
LISTEN = re.compile(r"sudo sed -i '1i (listen = .*)' /etc/volagent/volagent.toml")
EXAMPLES = "/usr/share/doc/volagent/examples"


def read_section() -> Iterator[tuple[str, str]]:
    """Each command, with the machine that it is for."""
    text = (ROOT / "docs/operations.md").read_text()
    _, found, rest = text.partition(SECTION)
    assert found
    where = ""
    for line in rest.partition("\n## ")[0].splitlines():
        told = re.match(r"On (both|`vm[12]`)", line)
        if told:
            where = told[1].strip("`")
        if line.startswith("    "):
            yield where or "both", line.strip()


class Walk:
    """Two machines, and an operator who does what is written."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.port = free_port()
        self.machines = {"vm1": Daemon(base / "vm1"), "vm2": Agent(base / "vm2")}
        self.export = base / "export"
        self.export.mkdir(parents=True)
        self.settings = ""
        self.printed = ""
        self.done: list[str] = []

    def do(self, where: str, command: str) -> None:
        """One command on one machine."""
        self.done.append(command)
        listen = LISTEN.fullmatch(command)
        match command.removeprefix("sudo ").split():
            case ["apt", "install", *_]:
                return  # tests/package and tests/cluster/test_package.py
            case ["systemctl", "enable", "--now", unit]:
                assert unit == {"vm1": "volagent", "vm2": "volagent-agent"}[where]
                self.machines[where].start(settings=self.settings if where == "vm1" else "")
            case ["sed", *_] if listen:
                self.settings = self._place(listen[1]) + "\n"
                assert tomllib.loads(self.settings)["listen"]
            case ["sed", *_]:
                self._write_manifest(command)
            case ["volagent", *arguments]:
                self._run(where, arguments)
            case _:
                raise AssertionError(f"what is {command!r}?")

    def _place(self, text: str) -> str:
        for old, new in (
            ("0.0.0.0:6443", f"127.0.0.1:{self.port}"),
            ("10.0.0.11:6443", f"127.0.0.1:{self.port}"), ("10.0.0.11", "127.0.0.1"),
            ("/run/volagent", str(self.machines["vm1"].run)),
            (EXAMPLES, str(ROOT / "config/examples")),
        ):  # fmt: skip
            text = text.replace(old, new)
        return text

    def _write_manifest(self, command: str) -> None:
        subprocess.run(["bash", "-ec", self._place(command)], check=True, cwd=self.base)
        manifest = self.base / "web.yaml"
        source = "nfs: {server: 10.0.0.5, path: /srv/shared}"
        text = manifest.read_text()
        assert source in text
        text = text.replace(source, f"hostPath: {{path: {self.export}}}")
        manifest.write_text(text.replace("  mountOptions: [vers=4.2, noatime]\n", ""))

    def _run(self, where: str, arguments: list[str]) -> None:
        daemon = self.machines[where]
        if arguments[0] == "join":
            assert [self._place(each) for each in arguments[:3]] == self.printed.split()[1:4]
            arguments = self.printed.split()[1:]
        elif arguments[0] == "doctor":
            return  # what it says is this machine's; tests/unit/cli/test_doctor.py
        arguments = [self._place(each) for each in arguments]
        arguments = [str(self.base / each) if each == "web.yaml" else each for each in arguments]
        if arguments[0] in ("init", "join"):
            arguments += ["--state-dir", str(daemon.state)]
            arguments += ["--node-name", "vm2"] if arguments[0] == "join" else []
        else:
            arguments += ["--run-dir", str(daemon.run)]
        done = volagent(*arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr, daemon.read_log())
        self.printed = done.stdout

    def home_of(self, where: str) -> Path:
        """Where the volume is, as `volagent mounts` on that machine says."""
        done = volagent("mounts", "pod/nfs-claim", "-o", "json", "--run-dir",
                        self.machines[where].run)  # fmt: skip
        assert f'"source": "{self.export}"' in done.stdout
        return self.export


@pytest.fixture
def walk(stopped: Daemon) -> Iterator[Walk]:
    walk = Walk(stopped.base)
    yield walk
    for daemon in reversed(walk.machines.values()):
        if daemon.running:
            assert daemon.stop() == 0, daemon.read_log()


@pytest.mark.timeout(300)
def test_operator_who_does_what_is_written_has_a_pod_that_moved(walk: Walk) -> None:
    for where, command in read_section():
        for machine in ("vm1", "vm2") if where == "both" else (where,):
            walk.do(machine, command.partition("  #")[0])
        if command.endswith("mounts pod/nfs-claim") and where == "vm1":
            (walk.home_of("vm1") / "note").write_text("from vm1")
    assert (walk.home_of("vm2") / "note").read_text() == "from vm1"
    assert walk.machines["vm1"].mounts() == {}
    assert len(walk.done) > 15
    pod = {"kind": "Pod", "metadata": {"name": "nfs-claim"}}
    assert walk.machines["vm1"].get(pod)["spec"]["nodeName"] == "vm2"
    walk.machines["vm1"].delete_gone(pod)
