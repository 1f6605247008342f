"""The package on a machine with systemd: installed, started, upgraded, removed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from package.deb import build
from tests.cluster.lab.machine import Hardware, Lab, Machine
from tests.package.same_python import needs_same_python
from volagent import __version__

NEXT = f"{__version__}+next"
EXAMPLES = "/usr/share/doc/volagent/examples"
PODS, STATE = "/var/lib/kubelet/pods", "/var/lib/volagent"
# The disk is memory, and man-db's index of the host's pages takes longer than all the rest.
DPKG = "dpkg --force-unsafe-io --no-triggers"
_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The package, and the same of a later version."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is missing: Debian packages are built on Debian and its kin")
    directory = tmp_path_factory.mktemp("packages")
    first = build(directory, "zstd")
    tree, later = directory / "tree", directory / "later.deb"
    subprocess.run(["dpkg-deb", "-R", first, tree], check=True)
    for changed, old, new in (
        (tree / "DEBIAN/control", f"Version: {__version__}", f"Version: {NEXT}"),
        (tree / "usr/lib/volagent/volagent/__init__.py", __version__, NEXT),
    ):
        changed.write_text(changed.read_text().replace(old, new))
    for compiled in (tree / "usr/lib/volagent/volagent/__pycache__").glob("__init__.*"):
        compiled.unlink()
    command = ["dpkg-deb", "--root-owner-group", "-Zzstd", "--build", tree, later]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return first, later


@pytest.fixture(scope="module")
def machine(lab: Lab, packages: tuple[Path, Path]) -> Machine:
    hardware = Hardware(memory_mib=768, disks_mib=(256,), init="systemd")
    made = lab.add_machine("vm", hardware)
    lab.start_all()
    # Images want a disk below: the machine's root is memory.
    made.run(f"mkfs.ext4 -q {made.disks[0]}; mkdir -p {STATE}; mount {made.disks[0]} {STATE}")
    return made


def install(machine: Machine, package: Path) -> str:
    return ask(machine, f"{DPKG} -i {package} 2>&1")


def ask(machine: Machine, command: str) -> str:
    return machine.run(command, timeout_s=_TIMEOUT_S).out.strip()


def volume_mounts(machine: Machine) -> list[str]:
    """Lines of the mount table, each with the mount's id."""
    return ask(machine, f"grep -F ' {PODS}/' /proc/1/mountinfo").splitlines()


@needs_same_python
@pytest.mark.only_on("uml", reason="there every machine has the package from the start")
def test_mounts_outlive_upgrade_and_removal_of_the_package(machine, packages, figure):
    first, later = packages
    assert "nothing was started" in install(machine, first)
    assert ask(machine, "systemctl is-active volagent || true") == "inactive"
    assert ask(machine, "systemctl is-enabled volagent || true") == "disabled"

    started = machine.run("systemctl start volagent", timeout_s=_TIMEOUT_S)
    figure("systemctl start volagent until it is ready", started.took_s * 1000)
    assert ask(machine, "systemctl is-active volagent") == "active"
    for example in ("empty-dir", "image-claim"):
        said = ask(machine, f"volagent apply --wait -f {EXAMPLES}/{example}.yaml 2>&1")
        assert f"pod default/{example} is ready after" in said
    mounts = volume_mounts(machine)
    pid = ask(machine, "systemctl show -P MainPID volagent")
    assert {"tmpfs", "ext4"} <= {line.partition(" - ")[2].split()[0] for line in mounts}
    assert ask(machine, "getent group volagent").startswith("volagent:")

    assert "restarting volagent.service" in install(machine, later)
    assert ask(machine, "systemctl show -P MainPID volagent") != pid
    assert NEXT in ask(machine, "volagent version").splitlines()[1]
    assert volume_mounts(machine) == mounts
    pods = ask(machine, "volagent get pods -o name").split()
    assert pods == ["pod/empty-dir", "pod/image-claim"]

    said = ask(machine, f"{DPKG} -P volagent 2>&1")
    assert "mounts stay" in said
    assert f"left as it is: {STATE}" in said
    assert volume_mounts(machine) == mounts
    assert ask(machine, f"ls {STATE}/images").split() == ["database.img"]
    assert ask(machine, "pgrep -f /usr/bin/volagent || true") == ""
