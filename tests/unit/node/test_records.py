import os
import resource

import pytest

from volagent.drivers.contract import DriverName, HeldMount, VolumeKey
from volagent.node.records import COMPACT_AFTER_LINES, Held, RecordBook, UseRecord, VolumeRecord
from volagent.objects.meta import PodUid


def a_record(name: str, held: Held = Held.YES) -> VolumeRecord:
    use = UseRecord(held, HeldMount(f"/pods/u/{name}", 42, fingerprint="f"), "default/web")
    return VolumeRecord(
        VolumeKey(f"pod/u/{name}"),
        DriverName("kubernetes.io/secret"),
        name,
        uses={PodUid("u"): use},
    )


@pytest.fixture
def book(tmp_path):
    book = RecordBook(str(tmp_path / "records"), boot_id="boot-1")
    book.open()
    yield book
    book.close()


def reopen(book: RecordBook, tmp_path, boot_id="boot-1") -> RecordBook:
    book.close()
    again = RecordBook(str(tmp_path / "records"), boot_id=boot_id)
    again.open()
    return again


def test_book_remembers_the_last_record_of_each_key_when_opened_again(book, tmp_path):
    book.put(a_record("one", Held.UNKNOWN))
    book.put(a_record("one"))
    book.put(a_record("two"))
    again = reopen(book, tmp_path)
    assert [again.get(key) for key in again.keys()] == [a_record("one"), a_record("two")]  # noqa: SIM118
    again.close()


def test_book_drops_a_record_when_nothing_is_left_of_it(book, tmp_path):
    book.put(a_record("one"))
    book.put(VolumeRecord(VolumeKey("pod/u/one"), DriverName("kubernetes.io/secret"), "one"))
    again = reopen(book, tmp_path)
    assert again.keys() == []
    again.close()


def test_book_is_empty_when_it_is_of_another_boot(book, tmp_path):
    book.put(a_record("one"))
    again = reopen(book, tmp_path, boot_id="boot-2")
    assert again.keys() == []
    again.close()


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_book_loses_only_the_torn_line_when_killed_in_the_middle_of_a_write(book, tmp_path, cut):
    book.put(a_record("one"))
    book.put(a_record("two"))
    book.close()
    path = tmp_path / "records"
    os.truncate(path, path.stat().st_size - cut)
    again = reopen(book, tmp_path)
    assert again.keys() == [VolumeKey("pod/u/one")]
    again.put(a_record("three"))
    third = reopen(again, tmp_path)
    assert len(third.keys()) == 2
    third.close()


@pytest.fixture
def limit_files():
    """As on a full disk: a write stops short at this size, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 40])
def test_book_stays_readable_when_a_write_stopped_short(book, tmp_path, limit_files, room):
    book.put(a_record("one"))
    limit_files((tmp_path / "records").stat().st_size + room)
    with pytest.raises(OSError, match=r"records|too large"):
        book.put(a_record("two"))
    limit_files(1 << 20)
    book.put(a_record("three"))
    again = reopen(book, tmp_path)
    assert again.keys() == [VolumeKey("pod/u/one"), VolumeKey("pod/u/three")]
    again.close()


def test_book_stays_small_when_one_record_changes_very_often(book, tmp_path):
    for _ in range(COMPACT_AFTER_LINES + 10):
        book.put(a_record("one"))
    assert (tmp_path / "records").stat().st_size < 20_000


def test_book_is_readable_by_its_owner_only(book, tmp_path):
    assert (tmp_path / "records").stat().st_mode & 0o777 == 0o600
