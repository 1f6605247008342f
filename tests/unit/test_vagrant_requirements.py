"""What is said where Vagrant's machines cannot run."""

import dataclasses

import pytest

from tests.cluster.lab.hypervisor import choose_patience
from tests.cluster.lab.requirements import (
    DISK_MIB,
    MEMORY_MIB,
    PYTHON,
    Facts,
    Room,
    judge,
    read_facts,
)

ENOUGH = Facts(
    is_root=True,
    has_apt=True,
    python=PYTHON,
    has_tun=True,
    memory_mib=MEMORY_MIB,
    rooms=(Room(("/tmp",), DISK_MIB), Room(("/checkout",), DISK_MIB)),
)


def test_nothing_is_said_when_there_is_enough():
    assert judge(ENOUGH) is None


@pytest.mark.parametrize(
    ("lacking", "fact", "remedy"),
    [
        ({"is_root": False}, "root", "sudo make vagrant"),
        ({"has_apt": False}, "apt-get", "Debian 12"),
        ({"python": (3, 13)}, ".venv has 3.13", "make setup"),
        ({"has_tun": False}, "/dev/net/tun", "module tun"),
        ({"memory_mib": 3000}, "4096 MiB of memory, and 3000", "end what uses it"),
        ({"rooms": (Room(("/x",), 100),)}, "4096 MiB in /x, and 100", "make room"),
        ({"rooms": (Room(("/x", "/y"), 5000),)}, "8192 MiB in /x and /y, and 5000", "make room"),
    ],
)
def test_what_is_lacking_is_told_with_a_remedy(lacking, fact, remedy):
    said, _, hint = (judge(dataclasses.replace(ENOUGH, **lacking)) or "").rpartition(": ")
    assert fact in said
    assert remedy in hint


def test_facts_are_of_this_machine():
    facts = read_facts()
    assert facts.memory_mib > 0
    assert all(room.free_mib > 0 for room in facts.rooms)


def test_patience_is_that_of_the_machines_unless_it_is_given(monkeypatch):
    monkeypatch.delenv("VOLAGENT_PATIENCE", raising=False)
    assert choose_patience("kvm") < choose_patience("qemu")
    monkeypatch.setenv("VOLAGENT_PATIENCE", "20")
    assert choose_patience("qemu") == 20.0
    for wrong in ("much", "0.5", "nan", "1e9"):
        monkeypatch.setenv("VOLAGENT_PATIENCE", wrong)
        with pytest.raises(ValueError, match=f"VOLAGENT_PATIENCE is {wrong}: it may be 1 to 100"):
            choose_patience("qemu")
