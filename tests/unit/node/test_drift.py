"""Drift with a record book that cannot be written for a while."""

import asyncio

from tests.simulation.virtual_time import VirtualClock, run_virtually
from volagent.drivers.contract import DriverName, HeldMount, VolumeKey
from volagent.host.contract import MountChanges, MountId
from volagent.node.actual import Actual
from volagent.node.drift import RECORD_RETRY_S, DriftWatch
from volagent.node.records import Held, RecordBook, UseRecord, VolumeRecord
from volagent.node.trace import Trace
from volagent.objects.meta import PodUid

KEY = VolumeKey("pod/u/v")
POD = PodUid("u")


class FullBook(RecordBook):
    full = False

    def put(self, record):
        if self.full:
            raise OSError(28, "No space left on device")
        super().put(record)


def test_lost_mount_is_mended_later_when_it_cannot_be_recorded_at_once(tmp_path):
    async def main():
        book = FullBook(str(tmp_path / "records"), boot_id="b")
        book.open()
        use = UseRecord(Held.YES, HeldMount("/pods/u/v", 7), "default/web")
        actual = Actual(book)
        actual.put(VolumeRecord(KEY, DriverName("d"), "v", uses={POD: use}))
        marked, told = [], []
        drift = DriftWatch(
            None, actual, Trace(), VirtualClock(), marked.append,
            lambda *lost: told.append(lost), lambda *_: None,
        )  # fmt: skip
        book.full = True
        drift.on_change(MountChanges(detached=frozenset({MountId(7)})))
        assert marked == []
        book.full = False
        await asyncio.sleep(RECORD_RETRY_S + 1)
        assert marked == [KEY]
        assert told == [(KEY, POD, "/pods/u/v")]
        assert actual.get(KEY).uses[POD].held is Held.NO
        book.close()

    run_virtually(main())
