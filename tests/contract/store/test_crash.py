"""The SQLite store under `kill -9`, bad disks and second processes."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from volagent.store.contract import AlreadyRunning, Broken, Corrupt, NoSpace
from volagent.store.database import FILE_NAME, Database, open_database
from volagent.store.lock import DirectoryLock
from volagent.store.sqlite import SqliteStore, open_store

WRITER = Path(__file__).with_name("crash_writer.py")
ROOT = Path(__file__).parents[3]


def write_until_killed(directory, acknowledgements):
    """Run the writer, kill it in full swing; every acknowledged write as (key, revision, value)."""
    child = subprocess.Popen(
        [sys.executable, str(WRITER), str(directory)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = [child.stdout.readline() for _ in range(acknowledgements)]
    child.kill()
    lines += child.stdout.read().splitlines(keepends=True)
    child.wait()
    child.stdout.close()
    return [tuple(line.decode().split()) for line in lines if line.endswith(b"\n")]


async def test_all_acknowledged_writes_are_there_after_kill_9(tmp_path):
    expected = {}
    for round_number in range(3):
        acknowledged = write_until_killed(tmp_path, 200 + 150 * round_number)
        for key, revision, value in acknowledged:
            expected[key] = (int(revision), value)
        last = max(revision for revision, _ in expected.values())

        store = open_store(tmp_path)
        assert store.revision >= last
        for key, (revision, value) in expected.items():
            stored = await store.get(key)
            if stored is None:
                # Deleted, if only just: that write's acknowledgement was lost with the process.
                assert value == "-" or int(key.rpartition("/")[2]) % 3 == 0
            elif stored.mod_revision == revision:
                assert stored.value.decode() == value
            else:
                assert stored.mod_revision > revision
        await store.close()


async def test_second_store_on_the_same_directory_is_refused_and_names_the_holder(tmp_path):
    store = open_store(tmp_path)

    with pytest.raises(AlreadyRunning, match=rf"in use by process {os.getpid()}\b"):
        open_store(tmp_path)

    await store.close()
    await open_store(tmp_path).close()


async def test_directory_is_free_again_when_opening_fails(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, and long enough to be seen as none")
    for _ in range(2):
        with pytest.raises(Corrupt):
            open_store(tmp_path)


async def test_files_are_for_their_owner_only(tmp_path):
    directory = tmp_path / "state"
    store = open_store(directory)
    await store.create("/things/a", b"secret")

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    await store.close()


async def test_foreign_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / FILE_NAME
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE theirs (x)")
    foreign.close()

    with pytest.raises(Corrupt, match="no volagent store"):
        open_store(tmp_path)


async def test_newer_format_is_refused(tmp_path):
    await open_store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("UPDATE facts SET value = 99 WHERE name = 'format'")
    database.close()

    with pytest.raises(Corrupt, match="format 99"):
        open_store(tmp_path)


async def test_damaged_file_is_refused(tmp_path):
    store = open_store(tmp_path)
    for number in range(200):
        await store.create(f"/things/{number}", b"x" * 1000)
    await store.close()
    with (tmp_path / FILE_NAME).open("r+b") as file:
        for page in range(2, 40):
            file.seek(page * 4096)
            file.write(os.urandom(4096))

    with pytest.raises(Corrupt):
        open_store(tmp_path)


async def test_full_disk_fails_the_write_and_not_the_store(tmp_path):
    await open_store(tmp_path).close()
    connection = sqlite3.connect(
        tmp_path / FILE_NAME, isolation_level=None, check_same_thread=False
    )
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    store = SqliteStore(tmp_path, DirectoryLock(tmp_path), Database(connection))
    revision = await store.create("/things/small", b"1")

    results = await asyncio.gather(
        store.create("/things/big", b"x" * 100_000),
        store.update("/things/small", b"2", revision),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [NoSpace, NoSpace]
    assert await store.get("/things/big") is None
    assert await store.update("/things/small", b"3", revision) > revision
    await store.close()


class BreakingDatabase:
    """A database whose commits fail from a moment on, as with a dying disk."""

    def __init__(self, database, good_commits):
        self._database = database
        self._good_commits = good_commits
        self.attempts = 0
        self.untidy_bytes = 0

    def load(self):
        return self._database.load()

    def commit(self, rows):
        self.attempts += 1
        if self.attempts > self._good_commits:
            raise Broken("cannot commit: disk I/O error")
        self._database.commit(rows)

    def close(self):
        self._database.close()


async def test_store_is_broken_for_good_when_a_commit_fails(tmp_path):
    database = BreakingDatabase(open_database(tmp_path), good_commits=1)
    store = SqliteStore(tmp_path, DirectoryLock(tmp_path), database)
    revision = await store.create("/things/a", b"1")
    watcher = asyncio.ensure_future(anext(store.watch("/things/", store.revision)))
    broken = asyncio.ensure_future(store.wait_broken())
    await asyncio.sleep(0)

    results = await asyncio.gather(
        store.update("/things/a", b"2", revision),
        store.create("/things/b", b"1"),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [Broken, Broken]
    with pytest.raises(Broken):
        await watcher
    with pytest.raises(Broken):
        await broken
    with pytest.raises(Broken):
        await store.create("/things/c", b"1")
    assert database.attempts == 2
    assert store.revision == revision
    await store.close()


async def test_writes_under_way_are_finished_when_the_store_closes(tmp_path):
    store = open_store(tmp_path)
    writes = [asyncio.ensure_future(store.create(f"/things/{n}", b"")) for n in range(20)]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)

    store = open_store(tmp_path)
    assert len((await store.list("/things/"))[0]) == 20
    await store.close()


async def test_deleted_rows_are_purged_and_the_revision_kept(tmp_path):
    store = open_store(tmp_path)
    for number in range(50):
        await store.delete(f"/things/{number}", await store.create(f"/things/{number}", b"x"))
    last = store.revision
    await store.close()
    await open_store(tmp_path).close()

    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        (rows,) = database.execute("SELECT count(*) FROM objects").fetchone()
    database.close()
    store = open_store(tmp_path)
    assert (rows, store.revision) == (0, last)
    await store.close()
