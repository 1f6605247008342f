"""Time that a hypervisor took away, by a real-time clock that is a file here."""

from datetime import UTC, datetime, timedelta

import pytest

from volagent.host.thaw import ThawingClock

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Guest:
    """A machine whose clocks and real-time clock are set by hand."""

    def __init__(self, tmp_path):
        self.path = tmp_path / "since_epoch"
        self.up_s, self.wall_s, self.rtc_s = 100.0, 0.0, 0.0
        self.clock = ThawingClock(self, str(self.path))

    def monotonic(self):
        return self.up_s

    def boottime(self):
        return self.up_s

    def wall(self):
        return EPOCH + timedelta(seconds=self.wall_s)

    def run(self, seconds):
        self.up_s += seconds
        self.wall_s += seconds
        self.rtc_s += seconds

    def look(self):
        self.path.write_text(f"{int(EPOCH.timestamp() + self.rtc_s)}\n")
        return self.clock.boottime()


@pytest.fixture
def guest(tmp_path):
    made = Guest(tmp_path)
    assert made.look() == 100.0
    return made


def test_time_of_a_machine_that_runs_is_its_own(guest):
    for _ in range(50):
        guest.run(0.7)
        assert guest.look() == guest.up_s


def test_time_of_being_held_is_counted_when_the_real_time_clock_went_on(guest):
    guest.run(0.5)
    guest.rtc_s += 15
    assert guest.look() == pytest.approx(guest.up_s + 15, abs=1)
    guest.run(0.5)
    assert guest.look() == pytest.approx(guest.up_s + 15, abs=1)


def test_nothing_is_counted_when_the_real_time_clock_was_set_by_the_wall_clock(guest):
    guest.wall_s += 86400
    guest.run(0.5)
    assert guest.look() == guest.up_s
    guest.rtc_s = guest.wall_s
    assert guest.look() == guest.up_s


def test_nothing_is_counted_when_the_real_time_clock_goes_back_or_there_is_none(guest):
    guest.rtc_s -= 3600
    assert guest.look() == guest.up_s
    guest.path.unlink()
    assert guest.clock.boottime() == guest.up_s
