"""The SQLite file: its layout, how it is opened and checked, and what one commit is.

    facts(name, value)                      format version, the revision at the last purge
    objects(created, modified, key, value)  one row per life of a key; value NULL: deleted

`created` (the create revision) is the row's identity, so that a commit of any mix of creates,
updates and deletes is one multi-row INSERT OR REPLACE: a single call that leaves the interpreter
lock once, however many rows it has. Deleted rows stay until `purge`, which notes the revision they
stood for. WAL with synchronous=FULL: a commit returns after its fsync. `locking_mode=EXCLUSIVE`
keeps other processes out and needs no shared memory file.

Not for the event loop's thread, except `open_database` and `load` at start.
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from volagent.store.contract import Broken, Corrupt, NoSpace, Stored

FORMAT_VERSION = 1
APPLICATION_ID = 0x766F6C61
FILE_NAME = "objects.db"
ROWS_PER_STATEMENT = 128
PAGE_BYTES = 4096
WAL_LIMIT_BYTES = 16 * 2**20
"""The WAL file is cut back to this after it was folded in."""

Row = tuple[int, int, str, bytes | None]
"""created, modified, key, value."""

_LAYOUT = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE objects (created INTEGER PRIMARY KEY, modified INTEGER NOT NULL,"
    " key TEXT NOT NULL, value BLOB)",
    f"INSERT INTO facts VALUES ('format', {FORMAT_VERSION}), ('revision', 1)",
)
_SETTINGS = (
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}",
    "PRAGMA wal_autocheckpoint = 0",  # done in quiet moments: see Database.tidy
    "PRAGMA cache_size = -4096",
    "PRAGMA temp_store = MEMORY",
)
_INSERT = "INSERT OR REPLACE INTO objects VALUES "


class Database:
    """An open file. Use from one thread at a time."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._deleted: list[int] = []
        self._revision = 0
        self._grown_bytes = 0

    def load(self) -> tuple[list[Stored], int]:
        """Every object, and the revision to go on from; purges what was deleted."""
        stored: list[Stored] = []
        try:
            (revision,) = self._db.execute(
                "SELECT value FROM facts WHERE name = 'revision'"
            ).fetchone()
            for created, modified, key, value in self._db.execute("SELECT * FROM objects"):
                revision = max(revision, modified)
                if value is None:
                    self._deleted.append(created)
                else:
                    stored.append(Stored(key, value, created, modified))
        except sqlite3.DatabaseError as error:
            raise Corrupt(f"cannot read the store: {error}") from error
        self._revision = revision
        self.tidy()
        return stored, revision

    def commit(self, rows: Sequence[Row]) -> None:
        """Make rows durable, all or none. Raises `NoSpace` (none), `Broken` (unknown)."""
        try:
            if len(rows) <= ROWS_PER_STATEMENT:
                self._insert(rows)
            else:
                self._db.execute("BEGIN IMMEDIATE")
                for start in range(0, len(rows), ROWS_PER_STATEMENT):
                    self._insert(rows[start : start + ROWS_PER_STATEMENT])
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._give_up(error)
        self._revision = rows[-1][1]
        for created, _modified, _key, value in rows:
            if value is None:
                self._deleted.append(created)
                self._grown_bytes += PAGE_BYTES
            else:
                self._grown_bytes += len(value) + PAGE_BYTES

    @property
    def untidy_bytes(self) -> int:
        """Roughly how much the WAL has grown since it was last folded into the file."""
        return self._grown_bytes

    def tidy(self) -> None:
        """Purge deleted rows and fold the WAL into the file. Raises `Broken`."""
        try:
            self._purge()
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self._grown_bytes = 0
        except sqlite3.Error as error:
            try:
                self._give_up(error)
            except NoSpace:
                self._grown_bytes = 0  # try again after as much again was written

    def close(self) -> None:
        """Fold everything in and close."""
        self._db.close()

    def _insert(self, rows: Sequence[Row]) -> None:
        marks = ",".join(["(?,?,?,?)"] * len(rows))
        self._db.execute(_INSERT + marks, [field for row in rows for field in row])

    def _purge(self) -> None:
        if not self._deleted:
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("UPDATE facts SET value = ? WHERE name = 'revision'", (self._revision,))
        self._db.executemany("DELETE FROM objects WHERE created = ?", ((n,) for n in self._deleted))
        self._db.execute("COMMIT")
        self._deleted.clear()

    def _give_up(self, error: sqlite3.Error) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as second:
            raise Broken(f"cannot roll back: {second} (after: {error})") from second
        if _is_full(error):
            raise NoSpace("no space left for the store's file") from error
        raise Broken(f"cannot commit: {error}") from error


def open_database(directory: Path) -> Database:
    """Open or make the store's file in a directory that the caller has locked.

    Raises `Corrupt` when the file is damaged, foreign, or of a newer version.
    """
    path = directory / FILE_NAME
    fresh = not path.exists() or path.stat().st_size == 0
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=2 * ROWS_PER_STATEMENT,
    )
    try:
        for setting in _SETTINGS:
            connection.execute(setting).fetchone()
        if fresh:
            _lay_out(connection, directory)
        _check(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        if _is_full(error):
            raise NoSpace(f"no space left to open {path}") from error
        raise Corrupt(f"{path}: {error}") from error
    except Corrupt:
        connection.close()
        raise
    return Database(connection)


def _lay_out(connection: sqlite3.Connection, directory: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        for statement in _LAYOUT:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("COMMIT")
    # A new file's name must outlive a power cut as surely as its content does.
    for folder in (directory, directory.parent):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _check(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
        raise Corrupt(f"{path} is no volagent store: move it away, or choose another --state-dir")
    (version,) = connection.execute("SELECT value FROM facts WHERE name = 'format'").fetchone()
    if version != FORMAT_VERSION:
        raise Corrupt(f"{path} has format {version}, this volagent reads {FORMAT_VERSION}")
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise Corrupt(f"{path} is damaged ({verdict}): restore it from a backup")


def _is_full(error: sqlite3.Error) -> bool:
    code: int = getattr(error, "sqlite_errorcode", 0)  # absent on errors of the module itself
    return code & 0xFF == sqlite3.SQLITE_FULL
