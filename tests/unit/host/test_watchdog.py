"""The watchdog device, as far as it can be tried without one; tests/cluster has a real one."""

import os

import pytest

from volagent.host.errors import HostError, Unsupported
from volagent.host.watchdog import RealWatchdog, look_at, reset_now


def a_class(tmp_path, **facts):
    """A sysfs directory of the watchdog that /dev/null would be."""
    directory = tmp_path / f"watchdog{os.minor(os.stat('/dev/null').st_rdev)}"
    directory.mkdir()
    for name, value in facts.items():
        (directory / name).write_text(f"{value}\n")
    return str(tmp_path)


def test_machine_without_a_watchdog_is_told_what_to_load(tmp_path):
    dog = RealWatchdog(str(tmp_path / "watchdog"))
    with pytest.raises(Unsupported, match="softdog"):
        dog.arm(20)
    assert not dog.is_armed
    dog.feed()
    assert dog.disarm()


def test_device_that_is_no_watchdog_is_closed_again():
    before = os.listdir("/proc/self/fd")
    dog = RealWatchdog("/dev/null")
    with pytest.raises(HostError, match="does not take 20 s"):
        dog.arm(20)
    assert not dog.is_armed
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_facts_are_read_without_opening(tmp_path):
    sysfs = a_class(
        tmp_path, identity="iTCO_wdt", nowayout=1, state="inactive", max_timeout=613
    )  # fmt: skip
    facts = look_at("/dev/null", sysfs, "/nowhere")
    assert (facts.identity, facts.nowayout, facts.active) == ("iTCO_wdt", True, False)
    assert facts.longest_s == 613
    assert not facts.is_software
    assert not look_at(str(tmp_path / "none")).exists


def test_softdog_that_does_not_bite_is_recognised(tmp_path):
    sysfs = a_class(tmp_path, identity="Software Watchdog", nowayout=0, state="active")
    noboot = tmp_path / "soft_noboot"
    noboot.write_text("1\n")
    facts = look_at("/dev/null", sysfs, str(noboot))
    assert facts.toothless
    assert facts.is_software
    assert facts.active


def test_reset_is_one_letter_to_the_kernel(tmp_path):
    trigger = tmp_path / "sysrq-trigger"
    trigger.touch()
    reset_now(str(trigger))
    assert trigger.read_text() == "b"
    with pytest.raises(HostError):
        reset_now(str(tmp_path / "missing" / "trigger"))
