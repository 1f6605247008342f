"""The four machines of the Vagrantfile: booted, installed and photographed once per test run.

The first boot takes minutes where the processor is emulated, and so does the installation. With a
libvirt of its own copies of the booted and of the installed machines are therefore kept in
`vagrant/.cache`; later runs begin with them, for as long as box, Vagrantfile and package stay as
they are.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cluster.lab import requirements
from tests.cluster.lab.directory import LabDirectory
from tests.cluster.lab.hypervisor import (
    Hypervisor,
    choose_domain_type,
    choose_patience,
    is_own,
)
from tests.cluster.lab.installation import PackageInstallation
from tests.cluster.lab.processes import Keeper
from tests.cluster.lab.secure_shell import SecureShell
from tests.cluster.lab.vagrant import (
    PREFIX,
    SNAPSHOT,
    Guest,
    VagrantLab,
    VagrantMachine,
    find_package,
)

_CHECKOUT = Path(__file__).parents[3]
_VAGRANTFILE = _CHECKOUT / "vagrant/Vagrantfile"
_CACHE = _CHECKOUT / "vagrant/.cache"
_BOX = _CACHE / "volagent.box"
_ADDRESSES = "addresses.json"
_BOOTED = "booted"
_BOX_NAME = "volagent/debian12"
_MACHINES = {
    "storage": ("10.77.0.11", 4),
    "server": ("10.77.0.12", 1),
    "node01": ("10.77.0.13", 1),
    "node02": ("10.77.0.14", 1),
}
"""As in the Vagrantfile: address and number of extra disks."""
_UP_TIMEOUT_S = 1800
_LET_ROOT_IN = "sudo install -d -m 0700 /root/.ssh; sudo cp ~/.ssh/authorized_keys /root/.ssh/"


def find_obstacle() -> str | None:
    """Why there cannot be machines here and what would help, or None."""
    lacking = requirements.judge(requirements.read_facts()) or requirements.find_missing_tool()
    if lacking is not None:
        return lacking
    if not _BOX.exists():
        return f"needs {_BOX.relative_to(_CHECKOUT)}: run `sudo make vagrant`"
    if find_package(_CHECKOUT) is None:
        return "needs a package in dist: run `make deb`"
    return None


class VagrantPool:
    """A context: inside, labs can be made one after the other; on exit nothing is left."""

    def __init__(self) -> None:
        self._directory = LabDirectory()
        self._keeper = Keeper()
        self._hypervisor: Hypervisor | None = None
        self._domain_type = choose_domain_type()
        self._patience = choose_patience(self._domain_type)
        self._guests: tuple[Guest, ...] = ()

    def __enter__(self) -> "VagrantPool":
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for guest in self._guests:
            guest.shell.disconnect()
        if self._hypervisor is not None:
            if not is_own():  # the system's libvirt goes on without us
                self._remove_guests()
            self._hypervisor.close()
        self._keeper.close()
        self._directory.close()

    def make_lab(self) -> VagrantLab:
        """A lab that has all the machines; the one before it is over."""
        return VagrantLab(self._guests, self._found, self._keeper)

    @property
    def _found(self) -> Hypervisor:
        assert self._hypervisor is not None
        return self._hypervisor

    def _open(self) -> None:
        """Have the machines as they were after the installation."""
        shutil.copyfile(_find_key(), self._key)
        self._key.chmod(0o600)
        if self._take_kept(SNAPSHOT):
            return
        if not self._take_kept(_BOOTED):
            self._hypervisor = Hypervisor(self._own, self._keeper)
            self._boot()
            self._keep(_BOOTED)
        self._in_parallel(self._install)
        self._keep(SNAPSHOT)

    @property
    def _key(self) -> Path:
        return self._directory.path / "key"

    @property
    def _own(self) -> Path:
        """What a libvirt of its own knows."""
        return self._directory.path / "libvirt"

    def _take_kept(self, stage: str) -> bool:
        """Begin with the copy that an earlier run kept, if it is of the same things."""
        kept = self._name_kept(stage)
        if not is_own() or not kept.exists():
            return False
        _copy(kept, self._own)
        self._hypervisor = Hypervisor(self._own, self._keeper)
        for network in ("private", "management"):
            self._hypervisor.virsh("net-start", f"{PREFIX}{network}")
        self._know_guests(json.loads((self._own / _ADDRESSES).read_text()))
        return True

    def _keep(self, stage: str) -> None:
        if not is_own():
            return
        for old in _CACHE.glob(f"{stage}-*"):
            shutil.rmtree(old)
        _copy(self._own, self._name_kept(stage))

    def _name_kept(self, stage: str) -> Path:
        return _CACHE / f"{stage}-{_fingerprint(self._domain_type, stage)}"

    def _boot(self) -> None:
        if not is_own():
            self._remove_guests()  # of a run that was killed
        self._vagrant("box", "add", "--force", "--name", _BOX_NAME, str(_BOX))
        one_by_one = ["--no-parallel"] if self._domain_type == "qemu" else []  # see docs/vagrant.md
        self._vagrant("up", "--provider=libvirt", "--no-provision", *one_by_one, *_MACHINES)
        addresses = self._read_addresses()
        if is_own():
            (self._own / _ADDRESSES).write_text(json.dumps(addresses))
        self._know_guests(addresses)

        def photograph(guest: Guest) -> None:
            self._vagrant("ssh", guest.name, "-c", _LET_ROOT_IN)
            self._found.virsh("snapshot-create-as", guest.domain, _BOOTED)
            self._found.virsh("destroy", guest.domain)

        self._in_parallel(photograph)

    def _know_guests(self, addresses: dict[str, str]) -> None:
        enter = self._found.enter
        self._guests = tuple(
            Guest(
                name, address, disks,
                SecureShell(
                    addresses[name], self._key, self._directory.path / f"ssh-{name}",
                    [*enter[:2], "--"] if enter else [],
                ),
                self._patience,
            )
            for name, (address, disks) in _MACHINES.items()
        )  # fmt: skip

    def _in_parallel(self, do: Callable[[Guest], None]) -> None:
        with ThreadPoolExecutor(len(self._guests)) as threads:
            list(threads.map(do, self._guests))

    def _read_addresses(self) -> dict[str, str]:
        text = self._vagrant("ssh-config")
        found = re.findall(r"^Host (\S+)\n\s+HostName (\S+)", text, re.MULTILINE)
        return dict(found)

    def _install(self, guest: Guest) -> None:
        package = find_package(_CHECKOUT)
        assert package is not None
        machine = VagrantMachine(
            guest.name, guest, self._found, self._keeper, guest.disks, snapshot=_BOOTED
        )
        machine.start()
        guest.shell.put(package.read_bytes(), "/root/volagent.deb", 0o644)
        PackageInstallation().install(machine, "/root/volagent.deb")
        machine.run("systemctl daemon-reload; sync")
        self._found.virsh("snapshot-create-as", guest.domain, SNAPSHOT)
        machine.power_cut()

    def _vagrant(self, *arguments: str) -> str:
        home = self._directory.path
        environment = {
            **os.environ,
            "VAGRANT_CWD": str(_VAGRANTFILE.parent),
            "VAGRANT_HOME": str(home / "vagrant"),
            "VAGRANT_DOTFILE_PATH": str(home / "machines"),
            "VAGRANT_DEFAULT_PROVIDER": "libvirt",
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VOLAGENT_BOX": _BOX_NAME,
            "VOLAGENT_DOMAIN_TYPE": self._domain_type,
            "VOLAGENT_VM_PREFIX": PREFIX,
        }
        log = home / f"vagrant-{arguments[0]}-{time.monotonic_ns()}.log"
        code: int | None = None
        with log.open("wb") as said, contextlib.suppress(subprocess.TimeoutExpired):
            code = subprocess.run(
                [*self._found.enter, "vagrant", *arguments, "--no-color", "--no-tty"],
                env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                timeout=_UP_TIMEOUT_S, check=False,
            ).returncode  # fmt: skip
        text = log.read_text(errors="replace")
        if code != 0:
            how = f"no end after {_UP_TIMEOUT_S} s" if code is None else f"exit status {code}"
            raise RuntimeError(
                f"vagrant {' '.join(arguments)}: {how}\n{text[-4000:]}\n{self._read_consoles()}"
            )
        return text

    def _read_consoles(self) -> str:
        """The end of what the machines' kernels said."""
        if not is_own():
            return ""
        logs = (self._directory.path / "libvirt/log").rglob("*-console.log")
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs
        )

    def _remove_guests(self) -> None:
        """From the system's libvirt, where nothing goes away by itself."""
        virsh = self._found.virsh
        for domain in virsh("list", "--all", "--name").split():
            if domain.removeprefix(PREFIX) not in _MACHINES:
                continue
            if virsh("domstate", domain).strip() != "shut off":
                virsh("destroy", domain)
            virsh("undefine", domain, "--snapshots-metadata", "--remove-all-storage")
        for network in virsh("net-list", "--name").split():
            if network in {f"{PREFIX}private", f"{PREFIX}management"}:
                virsh("net-destroy", network)
                virsh("net-undefine", network)


def _find_key() -> Path:
    listed = subprocess.run(
        ["dpkg", "-L", "vagrant"], capture_output=True, text=True, check=True
    ).stdout
    return next(Path(line) for line in listed.splitlines() if line.endswith("/keys/vagrant"))


def _fingerprint(domain_type: str, stage: str) -> str:
    """Of all that makes the machines what they are at a stage."""
    box = _BOX.stat()
    parts = [domain_type, str(box.st_size), str(box.st_mtime_ns), _VAGRANTFILE.read_text()]
    if stage == SNAPSHOT:
        package = find_package(_CHECKOUT)
        assert package is not None
        parts += [hashlib.sha256(package.read_bytes()).hexdigest(), PackageInstallation.describe()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _copy(source: Path, target: Path) -> None:
    """All at once, or not."""
    half = target.with_name(f"{target.name}.new")
    subprocess.run(["rm", "-rf", half], check=True)
    subprocess.run(["cp", "-a", "--sparse=always", "--reflink=auto", source, half], check=True)
    half.rename(target)
