"""The unit: what systemd says to it, and what must never be in it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "volagent.service"
NAMESPACING = (
    "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateUsers", "ProtectSystem", "ProtectHome",
    "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups",
    "ProtectProc", "ProcSubset", "ProtectClock", "ReadWritePaths", "ReadOnlyPaths",
    "InaccessiblePaths", "ExecPaths", "NoExecPaths", "TemporaryFileSystem", "BindPaths",
    "BindReadOnlyPaths", "RootDirectory", "RootImage", "DynamicUser", "MountFlags", "MountAPIVFS",
    "RestrictSUIDSGID",
)  # fmt: skip


def _settings():
    text = re.sub(r"^[#;].*$", "", UNIT.read_text(), flags=re.M)
    return [line.split("=", 1) for line in text.splitlines() if "=" in line]


def test_unit_keeps_the_host_mount_namespace_and_setgid_bits():
    names = {name for name, _ in _settings()}
    assert names.isdisjoint(NAMESPACING)


def test_stopping_the_unit_leaves_helpers_and_records_alone():
    settings = dict(_settings())
    assert settings["KillMode"] == "process"
    assert settings["RuntimeDirectoryPreserve"] == "yes"


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: install the package systemd",
)
def test_systemd_accepts_the_unit_without_a_word(tmp_path):
    # The program is not installed where the tests run; everything else is judged as it is.
    text = UNIT.read_text().replace("/usr/local/bin/volagent run", "/bin/true run")
    unit = tmp_path / "volagent.service"
    unit.write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    about_us = [line for line in done.stderr.splitlines() if "volagent" in line]
    assert about_us == []
