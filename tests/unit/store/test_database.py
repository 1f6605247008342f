"""The SQLite file by itself: big commits, purging and folding."""

import sqlite3

import pytest

from volagent.store.contract import NoSpace
from volagent.store.database import (
    FILE_NAME,
    ROWS_PER_STATEMENT,
    Database,
    open_database,
)


def rows(first, count, value=b"v"):
    return [(n, n, f"/things/{n:06}", value) for n in range(first, first + count)]


def keys_in(directory):
    database = open_database(directory)
    stored, revision = database.load()
    database.close()
    return sorted(one.key for one in stored), revision


@pytest.mark.parametrize("count", [1, ROWS_PER_STATEMENT, ROWS_PER_STATEMENT + 1, 1000])
def test_commit_of_any_size_is_there_after_reopening(tmp_path, count):
    database = open_database(tmp_path)
    database.load()
    database.commit(rows(2, count))
    database.close()

    keys, revision = keys_in(tmp_path)
    assert (len(keys), revision) == (count, count + 1)


def test_commit_that_does_not_fit_leaves_nothing_of_itself(tmp_path):
    open_database(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 50}")
    database = Database(connection)
    database.load()
    database.commit(rows(2, 3))

    with pytest.raises(NoSpace):
        database.commit(rows(100, 2 * ROWS_PER_STATEMENT, b"x" * 2000))
    database.commit(rows(10, 1))
    database.close()

    assert keys_in(tmp_path)[0] == ["/things/000002", "/things/000003", "/things/000004",
                                    "/things/000010"]  # fmt: skip


def test_tidying_purges_deleted_rows_and_keeps_their_revision(tmp_path):
    database = open_database(tmp_path)
    database.load()
    database.commit(rows(2, 5))
    database.commit([(n, n + 10, f"/things/{n:06}", None) for n in range(2, 7)])
    assert database.untidy_bytes > 0

    database.tidy()

    assert database.untidy_bytes == 0
    database.close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    assert connection.execute("SELECT count(*) FROM objects").fetchone() == (0,)
    connection.close()
    assert keys_in(tmp_path) == ([], 16)


def test_tidying_folds_the_write_ahead_log_into_the_file(tmp_path):
    database = open_database(tmp_path)
    database.load()
    before = (tmp_path / FILE_NAME).stat().st_size
    database.commit(rows(2, 100, b"x" * 4000))

    database.tidy()

    assert (tmp_path / FILE_NAME).stat().st_size > before + 100 * 4000
    database.close()
