"""Where volagent comes from on a machine, and who starts it: the checkout and a shell, or the
Debian package and systemd. See `machine.Installation`.
"""

import json
from pathlib import Path

from tests.cluster.lab.machine import PID_FILE, Machine

_CHECKOUT = Path(__file__).parents[3]
_GUEST = Path(__file__).parent / "guest"
_LOG = "/run/volagent.log"
_WAIT_ENDED = "while kill -0 $pid 2>/dev/null; do sleep 0.05; done"
_WAIT_GROUP_ENDED = "while kill -0 -- $pid 2>/dev/null; do sleep 0.05; done"


class CheckoutInstallation:
    """The checkout's own environment, on a machine that sees the host's files."""

    program = str(_CHECKOUT / ".venv/bin/volagent")
    python = str(_CHECKOUT / ".venv/bin/python")
    guest_files = str(_GUEST)
    show_log = f"tail -n 60 {_LOG}"

    def start(self, machine: Machine, verb: str, settings: str) -> None:
        """In a session of its own, in the machine's mount namespace."""
        config = "/etc/volagent/scenario.toml"
        machine.put_file(config, settings)
        machine.run(
            f"cd /\nsetsid {self.program} {verb} --config {config} </dev/null >>{_LOG} 2>&1 &\n"
            f"echo $! >{PID_FILE}"
        )

    def kill(self, machine: Machine, verb: str) -> None:
        """By its pid."""
        machine.run(f"pid=$(cat {PID_FILE}); kill -KILL $pid; {_WAIT_ENDED}")

    def stop(self, machine: Machine, verb: str) -> None:
        """By its pid."""
        machine.run(f"pid=$(cat {PID_FILE}); kill -TERM $pid; {_WAIT_ENDED}")


class SupervisedInstallation(CheckoutInstallation):
    """The same for one of several daemons on a machine; one that ends is started again.

    As `Restart=always` and `RestartSec=1s` of the unit do it, while who was killed by a scenario
    stays away: its supervisor goes with it, both are one process group.
    """

    _SUPERVISE = 'while code=0; "$0" "$@" || code=$?; [ $code != 2 ]; do sleep 1; done'

    def __init__(self, name: str) -> None:
        self.pid_file = f"/run/{name}.pid"
        self._config = f"/etc/volagent/{name}.toml"
        self.log = f"/run/{name}.log"
        self.show_log = f"tail -n 60 {self.log}"

    def start(self, machine: Machine, verb: str, settings: str) -> None:
        """In a session of its own, in the machine's mount namespace."""
        machine.put_file(self._config, settings)
        machine.run(
            f"cd /\nsetsid bash -c '{self._SUPERVISE}' {self.program} {verb}"
            f" --config {self._config} </dev/null >>{self.log} 2>&1 &\n"
            f"echo $! >{self.pid_file}"
        )

    def kill(self, machine: Machine, verb: str) -> None:
        """The whole group."""
        machine.run(f"pid=-$(cat {self.pid_file}); kill -KILL -- $pid; {_WAIT_GROUP_ENDED}")

    def stop(self, machine: Machine, verb: str) -> None:
        """The supervisor, lest it start another; then the daemon, in order."""
        machine.run(
            f"pid=-$(cat {self.pid_file}); kill -KILL ${{pid#-}}; kill -TERM -- $pid;"
            f" {_WAIT_GROUP_ENDED}"
        )


_UNITS = {
    "run": "volagent", "server": "volagent-server", "agent": "volagent-agent",
    "storage": "volagent-agent",  # by its settings
}  # fmt: skip
_DROP_IN = """[Service]
# Scenarios say when a daemon that was killed comes back, and an emulated processor is slow.
Restart=no
WatchdogSec=3min
TimeoutStartSec=10min
"""
_START = """
systemctl reset-failed {unit} 2>/dev/null || true
systemctl start --no-block {unit}
for try in $(seq 300); do
  pid=$(systemctl show -P MainPID {unit})
  [ "$pid" = 0 ] || { echo $pid >{pid_file}; exit 0; }
  sleep 0.1
done
systemctl status {unit} >&2
exit 1
"""


class PackageInstallation:
    """The Debian package, its daemons as services of systemd with the units that it brings."""

    program = "/usr/bin/volagent"
    python = "env PYTHONPATH=/usr/lib/volagent python3"
    guest_files = "/opt/volagent-lab"
    show_log = (
        "journalctl -q -n 60 -o cat -u volagent -u volagent-server -u volagent-agent | tail -n 60"
    )

    @classmethod
    def describe(cls) -> str:
        """All that `install` puts on a machine beside the package."""
        return json.dumps(cls._list_files())

    @classmethod
    def _list_files(cls) -> dict[str, str]:
        """Content by path."""
        return {
            f"{cls.guest_files}/{file.name}": file.read_text()
            for file in sorted(_GUEST.glob("*.py"))
        } | {f"/etc/systemd/system/{unit}.service.d/lab.conf": _DROP_IN for unit in _UNITS.values()}

    def install(self, machine: Machine, package: str) -> None:
        """Install the package, whose file is on the machine, and what scenarios use besides."""
        for path, content in self._list_files().items():
            machine.put_file(path, content)
        machine.run(f"dpkg --force-unsafe-io -i {package}", timeout_s=300.0)

    def start(self, machine: Machine, verb: str, settings: str) -> None:
        """`systemctl start`, and the pid that systemd has."""
        machine.put_file("/etc/volagent/volagent.toml", settings)
        script = _START.replace("{unit}", _UNITS[verb]).replace("{pid_file}", PID_FILE)
        machine.run(script)

    def kill(self, machine: Machine, verb: str) -> None:
        """`systemctl kill`."""
        machine.run(
            f"pid=$(cat {PID_FILE})\n"
            f"systemctl kill --kill-whom=main --signal=KILL {_UNITS[verb]}; {_WAIT_ENDED}"
        )

    def stop(self, machine: Machine, verb: str) -> None:
        """`systemctl stop`."""
        machine.run(f"systemctl stop {_UNITS[verb]}", timeout_s=180.0)
