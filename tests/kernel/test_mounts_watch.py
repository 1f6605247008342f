"""Mount events: both ways in which the kernel tells, and what happens when it tells too much."""

import asyncio
import os

import pytest

from volagent.host.contract import MountChanges, TmpfsOptions
from volagent.host.mountinfo import MountinfoReader
from volagent.host.mounts import RealMounts
from volagent.host.mountwatch import FanotifyWatch, PollWatch, watch_mount_table
from volagent.host.statmount import StatmountReader, statmount_is_complete

_PATIENCE_S = 5.0


class Recorder:
    """Collects changes, and lets a test wait for a state of affairs."""

    def __init__(self):
        self.calls: list[MountChanges] = []
        self.attached = set()
        self.detached = set()
        self._told = asyncio.Event()

    def __call__(self, changes):
        self.calls.append(changes)
        self.attached |= changes.attached
        self.detached |= changes.detached
        self._told.set()

    async def until(self, condition):
        async with asyncio.timeout(_PATIENCE_S):
            while not condition():
                self._told.clear()
                await self._told.wait()


def make_fanotify(table, on_change):
    try:
        return FanotifyWatch(table, on_change)
    except OSError as error:
        pytest.skip(f"no mount events before Linux 6.15: {error}")


_WAYS = {
    "fanotify": (StatmountReader, make_fanotify),
    "poll and statmount": (StatmountReader, PollWatch),
    "poll and mountinfo": (MountinfoReader, PollWatch),
}


@pytest.fixture(params=_WAYS)
def way(request):
    reader, watch = _WAYS[request.param]
    if reader is StatmountReader and not statmount_is_complete():
        pytest.skip("statmount tells too little before Linux 6.13")
    return reader(), watch


@pytest.fixture
def watched(way, helpers):
    return RealMounts(helpers=helpers, reader=way[0])


@pytest.fixture
async def recorder(way):
    recorder = Recorder()
    watch = way[1](way[0], recorder)
    yield recorder
    watch.close()
    watch.close()


@pytest.fixture
def targets(scratch):
    made = [scratch / f"target-{number}" for number in range(20)]
    for path in made:
        path.mkdir()
    return [str(path) for path in made]


async def test_watch_names_each_mount_that_comes_and_goes(watched, recorder, targets):
    made = {watched.mount_tmpfs(target, TmpfsOptions()) for target in targets}
    await recorder.until(lambda: recorder.attached >= made)
    for target in targets:
        watched.unmount(target)
    await recorder.until(lambda: recorder.detached >= made)
    assert recorder.attached == recorder.detached == made


async def test_watch_says_that_a_mount_is_gone_when_it_was_replaced_at_once(
    watched, recorder, targets
):
    """The small ids of mountinfo are given out again immediately."""
    first = watched.mount_tmpfs(targets[0], TmpfsOptions())
    await recorder.until(lambda: first in recorder.attached)
    watched.unmount(targets[0])
    second = watched.mount_tmpfs(targets[1], TmpfsOptions())
    await recorder.until(lambda: first in recorder.detached and second in recorder.attached)
    watched.unmount(targets[1])


@pytest.mark.parametrize("way", ["fanotify", "poll and mountinfo"], indirect=True)
async def test_watch_tells_that_a_mount_is_there_when_it_was_moved(watched, recorder, targets):
    made = watched.mount_tmpfs(targets[0], TmpfsOptions())
    await recorder.until(lambda: made in recorder.attached)
    recorder.calls.clear()
    process = await asyncio.create_subprocess_exec("mount", "--move", targets[0], targets[1])
    await process.wait()
    await recorder.until(lambda: recorder.calls)
    watched.unmount(targets[1])
    assert made in recorder.calls[0].attached


async def test_watch_is_silent_when_nothing_is_mounted(watched, recorder, targets):
    marker = watched.mount_tmpfs(targets[0], TmpfsOptions())
    await recorder.until(lambda: marker in recorder.attached)
    os.mkdir(f"{targets[0]}/directory")
    open(f"{targets[0]}/file", "w").close()
    heard = len(recorder.calls)
    watched.unmount(targets[0])
    await recorder.until(lambda: marker in recorder.detached)
    assert len(recorder.calls) == heard + 1


async def test_poll_reads_the_table_a_few_times_only_when_mounts_come_in_bulk(
    reader, mounts, targets
):
    class Counting:
        id_mask = reader.id_mask
        readings = 0

        def read_identities(self):
            self.readings += 1
            return reader.read_identities()

    table, recorder = Counting(), Recorder()
    watch = PollWatch(table, recorder)
    made = set()
    for target in targets:
        made.add(mounts.mount_tmpfs(target, TmpfsOptions()))
        await asyncio.sleep(0)
    await recorder.until(lambda: recorder.attached >= made)
    watch.close()
    for target in targets:
        mounts.unmount(target)
    assert table.readings < 2 + len(targets) // 2


async def test_fanotify_loses_nothing_when_its_queue_overflows(mounts, targets):
    with open("/proc/sys/fs/fanotify/max_queued_events") as file:
        most = int(file.read())
    if most > 20_000:
        pytest.skip(f"filling a queue of {most} events takes too long")
    recorder = Recorder()
    watch = make_fanotify(StatmountReader(), recorder)
    kept = mounts.mount_tmpfs(targets[0], TmpfsOptions())
    replaced = mounts.mount_tmpfs(targets[1], TmpfsOptions())
    for _ in range(most // 2 + 10):
        mounts.mount_tmpfs(targets[2], TmpfsOptions())
        mounts.unmount(targets[2])
    mounts.unmount(targets[1])
    late = mounts.mount_tmpfs(targets[1], TmpfsOptions())
    await recorder.until(
        lambda: {kept, late} <= recorder.attached and replaced in recorder.detached
    )
    watch.close()
    mounts.unmount(targets[0])
    mounts.unmount(targets[1])


async def test_choice_is_fanotify_when_the_kernel_has_it_and_the_ids_fit(reader):
    watch = watch_mount_table(reader, lambda changes: None)
    watch.close()
    fallback = watch_mount_table(MountinfoReader(), lambda changes: None)
    fallback.close()
    try:
        FanotifyWatch(reader, lambda changes: None).close()
        expected = FanotifyWatch
    except OSError:
        expected = PollWatch
    assert type(watch) is expected
    assert type(fallback) is PollWatch
