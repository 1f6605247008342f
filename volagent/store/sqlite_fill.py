"""Fill a new SQLite file from a backup: beside its place, then renamed there, so all or nothing."""

import os
import shutil
from pathlib import Path

from volagent.objects.backup import Snapshot
from volagent.store.contract import NotEmpty
from volagent.store.database import FILE_NAME, Row, open_database
from volagent.store.lock import DirectoryLock

ROWS_AT_ONCE = 1000


def fill_sqlite(directory: Path, snapshot: Snapshot) -> None:
    """Make the store of a state directory. Raises `NotEmpty`, `AlreadyRunning`, `OSError`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = DirectoryLock(directory)
    aside = directory / ".restore"
    try:
        if (directory / FILE_NAME).exists():
            raise NotEmpty(f"{directory / FILE_NAME} is there already")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        _write(aside, snapshot)
        (aside / FILE_NAME).rename(directory / FILE_NAME)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        lock.release()


def _write(aside: Path, snapshot: Snapshot) -> None:
    database = open_database(aside)
    try:
        rows: list[Row] = [
            (revision, revision, key, value)
            for revision, (key, value) in enumerate(snapshot.objects, snapshot.resume_after + 1)
        ]
        for start in range(0, len(rows), ROWS_AT_ONCE):
            database.commit(rows[start : start + ROWS_AT_ONCE])
        database.tidy()
    finally:
        database.close()
