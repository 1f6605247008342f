"""The operator's programs: who is asked, what counts as a proof, and how often."""

import asyncio

import pytest

from volagent.drivers.errors import Transient
from volagent.drivers.fencing.contract import NoProof
from volagent.drivers.fencing.hooks import FenceHooks, Machine
from volagent.host.process import Helpers

LOST = Machine("node01", "boot-1", {"INTERNAL_IP": "10.0.0.1"})


class Directory:
    """`fence.d` with programs that note that they were asked."""

    def __init__(self, path):
        self.path = path / "fence.d"
        self.path.mkdir()
        self.asked = path / "asked"

    def add(self, name, script, mode=0o755):
        program = self.path / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.asked}\n{script}\n')
        program.chmod(mode)

    def lines(self):
        return self.asked.read_text().splitlines() if self.asked.exists() else []


@pytest.fixture
def directory(tmp_path):
    return Directory(tmp_path)


@pytest.fixture
async def hooks(directory):
    helpers = Helpers()
    yield FenceHooks(helpers, str(directory.path), timeout_s=10.0)
    await helpers.close()


async def test_machine_is_off_when_a_program_says_so(directory, hooks):
    directory.add("10-cloud", "exit 2")
    directory.add("20-power", 'echo "$VOLAGENT_NODE at $VOLAGENT_INTERNAL_IP is off"')
    directory.add("30-other", "exit 0")
    assert hooks.has_programs()
    text = await hooks.switch_off(LOST)
    assert "20-power says that it is off: node01 at 10.0.0.1 is off" in text
    assert directory.lines() == ["10-cloud fence node01", "20-power fence node01"]


async def test_program_that_fails_proves_nothing_and_is_asked_again(directory, hooks):
    directory.add("power", "echo no route to it >&2; exit 1")
    for _ in range(2):
        with pytest.raises(Transient, match="no route to it") as caught:
            await hooks.switch_off(LOST)
        assert "confirm-off" in caught.value.remedy
    assert len(directory.lines()) == 2


async def test_program_that_hangs_is_killed_and_proves_nothing(directory, hooks):
    directory.add("power", "sleep 1000")
    quick = FenceHooks(hooks.helpers, str(directory.path), timeout_s=0.2)
    with pytest.raises(Transient, match=r"not done within 0\.2 s"):
        await quick.switch_off(LOST)


async def test_machine_that_is_nobodys_has_no_proof(directory, hooks):
    with pytest.raises(NoProof, match="there is no program"):
        await hooks.switch_off(LOST)
    directory.add("power", "exit 2")
    with pytest.raises(NoProof, match="not one of its machines"):
        await hooks.switch_off(LOST)


async def test_files_that_are_no_programs_of_roots_are_not_run(directory, hooks):
    directory.add("power.example", "exit 0")
    directory.add("notes", "exit 0", mode=0o644)
    directory.add("loose", "exit 0", mode=0o777)
    assert not hooks.has_programs()
    with pytest.raises(NoProof, match="loose can be changed by others"):
        await hooks.switch_off(LOST)
    assert directory.lines() == []


async def test_boot_is_ended_once_however_many_disks_it_had(directory, hooks):
    directory.add("power", "exit 0")
    first, second = await asyncio.gather(hooks.switch_off(LOST), hooks.switch_off(LOST))
    assert first == second
    assert len(directory.lines()) == 1
    await hooks.switch_off(Machine("node01", "boot-2"))
    assert len(directory.lines()) == 2
