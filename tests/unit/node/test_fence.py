"""What a node owes the cluster at each moment: a table of times, without a clock."""

from dataclasses import replace

import pytest

from volagent.node.fence import (
    Contact,
    Duty,
    FenceRules,
    judge,
    look,
    may_feed,
    may_touch,
    renew,
)

RULES = FenceRules(True, period_s=3.0, lease_s=10.0, give_up_s=10.0, reset_after_s=20)
OFF = replace(RULES, fences_itself=False)
MET = Contact(renewed_s=100.0, met=True, promised=True)


@pytest.mark.parametrize(
    ("now_s", "holds", "duty"),
    [
        (100.0, True, Duty.KEEP),
        (109.9, True, Duty.KEEP),
        (110.0, True, Duty.GIVE_UP),
        (119.9, True, Duty.GIVE_UP),
        (120.0, True, Duty.RESET),
        (700.0, True, Duty.RESET),
        (110.0, False, Duty.RETURN),
        (700.0, False, Duty.RETURN),
    ],
)
def test_duty_follows_from_the_time_since_the_last_renewal(now_s, holds, duty):
    assert judge(RULES, MET, now_s, holds=holds) is duty


def test_machine_is_not_reset_when_nothing_was_promised():
    unarmed = replace(MET, promised=False)
    assert judge(RULES, unarmed, 700.0, holds=True) is Duty.GIVE_UP


def test_disks_are_kept_when_the_node_does_not_fence_itself():
    assert judge(OFF, MET, 700.0, holds=True) is Duty.RETURN
    assert may_touch(OFF, look(OFF, MET, 700.0), 700.0)


def test_giving_up_goes_on_when_it_has_begun_and_a_renewal_comes_late():
    late = renew(RULES, MET, sent_s=112.0, now_s=112.5)
    assert late.lapsed
    assert judge(RULES, late, 113.0, holds=True, begun=True) is Duty.GIVE_UP
    assert judge(RULES, late, 113.0, holds=False, begun=True) is Duty.RETURN


def test_disks_are_kept_unused_until_the_server_is_asked_when_nothing_was_begun():
    late = renew(RULES, MET, sent_s=112.0, now_s=112.5)
    assert judge(RULES, late, 113.0, holds=True) is Duty.RETURN
    assert not may_touch(RULES, late, 113.0)


def test_renewal_that_was_sent_in_time_is_a_lapse_when_its_answer_comes_late():
    assert renew(RULES, MET, sent_s=109.0, now_s=110.5).lapsed
    assert not renew(RULES, MET, sent_s=109.0, now_s=109.5).lapsed


def test_nothing_is_permitted_before_the_server_was_met():
    assert not may_touch(RULES, replace(MET, met=False), 100.0)
    assert not may_touch(OFF, replace(MET, met=False), 100.0)
    assert judge(OFF, replace(MET, met=False), 100.0, holds=True) is Duty.RETURN


def test_permission_ends_at_the_very_moment_the_lease_is_over():
    assert may_touch(RULES, MET, 109.999)
    assert not may_touch(RULES, MET, 110.0)


def test_watchdog_is_not_fed_when_time_is_up_and_something_is_held():
    assert may_feed(RULES, MET, 119.0, holds=True)
    assert not may_feed(RULES, MET, 120.0, holds=True)
    assert may_feed(RULES, MET, 700.0, holds=False)


def test_promise_counts_the_time_an_answer_takes():
    assert RULES.promise_s(20) == 24
    # The last feeding is at most a period after the renewal was sent; then the watchdog's time.
    assert RULES.promise_s(20) > RULES.period_s + 20
