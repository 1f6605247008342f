"""What the doctor says of a node's fence."""

from dataclasses import replace

import pytest

from volagent.cli.checks import FAIL, OK, WARN
from volagent.cli.fence_checks import FenceFacts, check_fence
from volagent.host.watchdog import WatchdogFacts
from volagent.settings import FenceSettings

ON = FenceSettings(self="on", reset_after_s=20.0)
OFF = FenceSettings(reset_after_s=20.0)
DOG = WatchdogFacts("/dev/watchdog", exists=True, identity="iTCO_wdt", longest_s=613)
BARE = FenceFacts(DOG, sysrq=True, virtual=False, sessions=2)


def findings(settings, facts):
    return {each.name: each for each in check_fence(settings, facts)}


def test_all_is_well_on_bare_metal_with_its_own_watchdog():
    assert {each.level for each in check_fence(ON, BARE)} == {OK}


def test_nothing_is_demanded_of_a_node_that_does_not_fence_itself():
    without = replace(BARE, watchdog=WatchdogFacts("/dev/watchdog", exists=False), virtual=True)
    assert {each.level for each in check_fence(OFF, without)} == {OK}
    assert all(not each.remedy for each in check_fence(OFF, without))


@pytest.mark.parametrize(
    ("dog", "word"),
    [
        (WatchdogFacts("/dev/watchdog", exists=False), "modprobe softdog"),
        (replace(DOG, toothless=True), "without soft_noboot"),
        (replace(DOG, longest_s=8), "shorten"),
    ],
)
def test_watchdog_that_will_not_do_fails_with_a_remedy(dog, word):
    found = findings(ON, replace(BARE, watchdog=dog))["watchdog"]
    assert found.level == FAIL
    assert word in found.remedy


def test_software_watchdog_and_virtual_machine_are_told():
    soft = replace(DOG, identity="Software Watchdog", longest_s=65535)
    found = findings(ON, replace(BARE, watchdog=soft, virtual=True, sysrq=False))
    assert found["software watchdog"].level == WARN
    assert found["virtual machine"].level == WARN
    assert found["sysrq"].level == WARN
    assert found["watchdog"].level == OK


def test_watchdog_that_cannot_be_stopped_is_told():
    found = findings(ON, replace(BARE, watchdog=replace(DOG, nowayout=True)))
    assert "cannot be stopped" in found["watchdog"].detail
