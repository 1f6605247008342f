"""The units: what systemd says to them, and what must never be in them."""

import re
import shutil
import subprocess

import pytest

from package.units import ROLES, TEMPLATE, render_unit, write_units

NAMESPACING = (
    "PrivateTmp", "PrivateDevices", "PrivateMounts", "PrivateUsers", "ProtectSystem", "ProtectHome",
    "ProtectKernelTunables", "ProtectKernelModules", "ProtectKernelLogs", "ProtectControlGroups",
    "ProtectProc", "ProcSubset", "ProtectClock", "ReadWritePaths", "ReadOnlyPaths",
    "InaccessiblePaths", "ExecPaths", "NoExecPaths", "TemporaryFileSystem", "BindPaths",
    "BindReadOnlyPaths", "RootDirectory", "RootImage", "DynamicUser", "MountFlags", "MountAPIVFS",
    "RestrictSUIDSGID",
)  # fmt: skip


def _settings(role):
    text = re.sub(r"^[#;].*$", "", render_unit(TEMPLATE.read_text(), role), flags=re.M)
    return [line.split("=", 1) for line in text.splitlines() if "=" in line]


@pytest.fixture(params=ROLES, ids=lambda role: role.unit)
def role(request):
    return request.param


def test_unit_keeps_the_host_mount_namespace_and_setgid_bits(role):
    names = {name for name, _ in _settings(role)}
    assert names.isdisjoint(NAMESPACING)


def test_stopping_the_unit_leaves_helpers_and_records_alone(role):
    settings = dict(_settings(role))
    assert settings["KillMode"] == "process"
    assert settings["RuntimeDirectoryPreserve"] == "yes"


def test_unit_runs_its_role_and_conflicts_with_the_others(role):
    settings = dict(_settings(role))
    program, command, *_ = settings["ExecStart"].split()
    assert (program, command) == ("/usr/bin/volagent", role.command)
    others = {other.unit for other in ROLES} - {role.unit}
    assert set(settings["Conflicts"].split()) == others


def test_unit_has_every_place_of_the_template_filled(role):
    assert re.findall(r"@\w+@", render_unit(TEMPLATE.read_text(), role)) == []


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: install the package systemd",
)
def test_systemd_accepts_the_units_without_a_word(tmp_path):
    # The program is not installed where the tests run; everything else is judged as it is.
    write_units(tmp_path, "/bin/true")
    units = [str(tmp_path / role.unit) for role in ROLES]
    command = ["systemd-analyze", "verify", "--man=no", *units]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    about_us = [line for line in done.stderr.splitlines() if "volagent" in line]
    assert about_us == []
