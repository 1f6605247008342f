"""The circuit breaker on a clock that only the test moves."""

from datetime import UTC, datetime, timedelta

import pytest

from volagent.host.breaker import FORGET_AFTER_S, OPEN_AFTER_TIMEOUTS, OPEN_FOR_S, Breaker


class HandClock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def wall(self):
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.now)


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def breaker(clock):
    return Breaker("nfs:10.0.0.5", clock)


@pytest.fixture
def opened(breaker):
    for _ in range(OPEN_AFTER_TIMEOUTS):
        assert breaker.refuse() == ""
        breaker.note_timeout()
    return breaker


def test_circuit_is_closed_while_calls_are_answered(breaker):
    for _ in range(10):
        assert breaker.refuse() == ""
        breaker.note_answer()
    assert breaker.state == "closed"
    assert breaker.healthy
    assert breaker.describe() == ""


def test_circuit_stays_closed_when_an_answer_comes_between_timeouts(breaker):
    for _ in range(5):
        for _ in range(OPEN_AFTER_TIMEOUTS - 1):
            breaker.note_timeout()
        assert breaker.refuse() == ""
        breaker.note_answer()
    assert breaker.state == "closed"


def test_circuit_opens_when_enough_calls_in_a_row_time_out(opened):
    assert opened.state == "open"
    assert opened.refuse() == (
        "nfs:10.0.0.5 has not answered since 2026-01-01T00:01:40Z, next try in 15 s"
    )


def test_silence_is_told_before_the_circuit_opens(breaker):
    breaker.note_timeout()
    assert breaker.state == "closed"
    assert breaker.describe() == "nfs:10.0.0.5 has not answered since 2026-01-01T00:01:40Z"


def test_open_circuit_lets_one_call_try_when_its_time_is_over(opened, clock):
    clock.now += OPEN_FOR_S - 0.1
    assert opened.refuse()
    clock.now += 0.2
    assert opened.state == "open"
    assert opened.refuse() == ""
    assert opened.state == "half-open"
    assert "a trial call is under way" in opened.refuse()


def test_circuit_closes_when_the_trial_is_answered(opened, clock):
    clock.now += OPEN_FOR_S
    assert opened.refuse() == ""
    opened.note_answer()
    assert opened.state == "closed"
    assert opened.healthy


def test_circuit_opens_again_when_the_trial_times_out(opened, clock):
    clock.now += OPEN_FOR_S
    assert opened.refuse() == ""
    clock.now += 30
    opened.note_timeout()
    assert opened.state == "open"
    assert "since 2026-01-01T00:01:40Z, next try in 15 s" in opened.refuse()


def test_silence_is_outdated_when_nobody_has_tried_for_long(opened, clock):
    clock.now += FORGET_AFTER_S
    assert not opened.outdated
    clock.now += 1
    assert opened.outdated
    opened.note_timeout()
    assert not opened.outdated
    opened.note_answer()
    assert not opened.outdated


def test_another_call_may_try_when_the_trial_was_cancelled(opened, clock):
    clock.now += OPEN_FOR_S
    assert opened.refuse() == ""
    opened.note_cancelled()
    assert opened.refuse() == ""
