"""What whoever keeps nodes out of a disk has to do, asked of any storage with reservations.

A test module gives the fixture `storage`; every call is made anew, and what stands is read from the
storage's side or tried by the node itself. One disk for each test.
"""

from typing import Protocol


class Storage(Protocol):
    """A disk, two nodes that reach it, and what they say to it."""

    def attach(self, node: str, uid: str) -> str:
        """A node takes the disk for an attachment; what it was told."""

    def attach_unknown(self, node: str) -> None:
        """The same, without the storage being told who has it."""

    def fence(self, node: str, uid: str) -> str:
        """The other node keeps it out; the evidence."""

    def give_back(self, node: str) -> str:
        """A node gives the disk back; what was done, in words."""

    def writes(self, node: str) -> bool:
        """Whether a write of a node gets through."""

    def reads(self, node: str) -> bool:
        """Whether a read does."""

    def registered(self) -> list[str]:
        """What is registered, one for each session."""

    def cut_power(self) -> None:
        """Of the storage, and back."""


class FenceContract:
    """The suite."""

    def test_fenced_node_reads_and_does_not_write(self, storage: Storage) -> None:
        assert "reserved (type 5)" in storage.attach("node01", "a1")
        assert storage.writes("node01")
        evidence = storage.fence("node01", "a1")
        assert "removed, its commands aborted" in evidence
        assert "asked again" in evidence
        assert "type 5 by 0x7647" in evidence
        assert not storage.writes("node01")
        assert storage.reads("node01")
        again = storage.fence("node01", "a1")
        assert "no key of the node was registered" in again
        assert not storage.writes("node01")
        assert len(storage.registered()) == 1
        assert "unwritten" in storage.give_back("node01")

    def test_fenced_node_stays_out_when_the_next_one_has_given_the_disk_back(
        self, storage: Storage
    ) -> None:
        storage.attach("node01", "a1")
        storage.fence("node01", "a1")
        assert "guarded" in storage.attach("node02", "a2")
        assert [key[:6] for key in storage.registered()] == ["0x7661"]
        assert storage.writes("node02")
        assert not storage.writes("node01")
        assert "guarded by 0x7647" in storage.give_back("node02")
        assert not storage.writes("node01")
        assert "unwritten" in storage.give_back("node01")

    def test_node_that_registered_nothing_is_kept_out_too(self, storage: Storage) -> None:
        storage.attach_unknown("node01")
        assert storage.writes("node01")
        assert "all commands under way aborted" in storage.fence("node01", "a1")
        assert not storage.writes("node01")
        storage.give_back("node01")

    def test_disk_that_nobody_fenced_is_left_open(self, storage: Storage) -> None:
        storage.attach("node01", "a1")
        assert "no longer reserved" in storage.give_back("node01")
        assert storage.registered() == []
        assert "guarded" not in storage.attach("node02", "a2")
        storage.give_back("node02")

    def test_fence_outlives_a_power_cut_of_the_storage(self, storage: Storage) -> None:
        storage.attach("node01", "a1")
        storage.fence("node01", "a1")
        before = storage.registered()
        storage.cut_power()
        assert storage.registered() == before
        assert not storage.writes("node01")
        assert "unwritten" in storage.give_back("node01")
