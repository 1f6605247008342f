"""By which method a disk is proved free, what comes after one that failed, and when all stops."""

import pytest

from volagent.control.failover.decide import (
    ANSWER_S,
    ROUND_S,
    Means,
    Prove,
    Start,
    Stay,
    Wait,
    Watchdog,
    Way,
    decide_fencing,
    find_brake,
    find_ways,
    order_executors,
)
from volagent.objects.fencing import (
    HOOK,
    IMPOSSIBLE,
    PENDING,
    PROVEN,
    STORAGE,
    WATCHDOG,
    Fencing,
    FencingSpec,
    FencingStatus,
    TriedMethod,
)

ARMED, OVER = Watchdog("dog", 20, 9.0), Watchdog("dog", 20, -0.1)
ALL = Means(("a", "b"), hook=True, watchdog=ARMED)
READY = {"a", "b"}


def a_fencing(phase=PENDING, method=STORAGE, executor="a", *, tried=(), attempts=0, message=""):
    spec = FencingSpec(method=method, executor=executor, tried=list(tried))
    return Fencing(spec=spec, status=FencingStatus(phase, message, attempts))


def test_fastest_way_comes_first():
    ways = [Way(STORAGE, "a"), Way(STORAGE, "b"), Way(HOOK), Way(WATCHDOG)]
    assert find_ways(ALL) == ways
    over = Means(("a", "b"), hook=True, watchdog=OVER)
    assert find_ways(over) == [ways[3], *ways[:3]]
    assert decide_fencing(None, ALL, READY, 0) == Start(ways[0])


def test_nothing_is_begun_and_the_reason_told_when_there_is_no_way():
    assert decide_fencing(None, Means(lacking="no dog"), READY, 0) == Stay("no dog")


def test_nothing_more_is_done_when_there_is_a_proof():
    for means in (ALL, Means(watchdog=OVER), Means()):
        assert decide_fencing(a_fencing(PROVEN), means, (), 1e6) == Wait()


@pytest.mark.parametrize(
    ("fencing", "ready", "age_s", "failure"),
    [
        (a_fencing(IMPOSSIBLE, message="no keys"), READY, 0, "no keys"),
        (a_fencing(attempts=3, message="refused"), READY, 0, "refused"),
        (a_fencing(), {"b"}, 0, "node a is not ready itself"),
        (a_fencing(), READY, ANSWER_S[STORAGE], "no answer"),
    ],
)
def test_next_way_is_taken_when_one_does_not_lead_on(fencing, ready, age_s, failure):
    step = decide_fencing(fencing, ALL, ready, age_s)
    tried = (TriedMethod(STORAGE, "a", failure),)
    assert step == Start(Way(STORAGE, "b"), tried, fencing)


def test_way_that_may_lead_on_is_waited_for_until_it_had_its_time():
    assert decide_fencing(a_fencing(attempts=2), Means(("a",)), READY, 3) == Wait(17.0)
    assert decide_fencing(a_fencing(), ALL, READY, 3) == Wait(9.0)


def test_everything_is_tried_again_after_a_while():
    tried = [TriedMethod(STORAGE, "a", "x"), TriedMethod(HOOK, "", "y")]
    last = a_fencing(IMPOSSIBLE, executor="b", tried=tried, message="z")
    means = Means(("a", "b"), hook=True, lacking="no dog")
    stay = decide_fencing(last, means, READY, 10)
    assert stay == Stay(
        "Storage by a: x; Hook by a server: y; Storage by b: z; no dog", ROUND_S - 10
    )
    assert decide_fencing(last, means, READY, ROUND_S) == Start(Way(STORAGE, "a"), (), last)


def test_time_is_a_proof_with_an_armed_watchdog_only():
    fencing = a_fencing(method=WATCHDOG, executor="")
    assert decide_fencing(fencing, Means(watchdog=OVER), (), 0) == Prove(fencing, OVER)
    assert isinstance(decide_fencing(fencing, Means(watchdog=ARMED), (), 1e6), Wait)
    disarmed = decide_fencing(fencing, Means(lacking="no dog"), (), 1e6)
    assert disarmed == Stay(
        "Watchdog by a server: nothing says now when a watchdog resets it; no dog", ROUND_S
    )


def test_watchdog_is_turned_to_when_its_time_is_over_before_another_proof_is_there():
    fencing = a_fencing()
    step = decide_fencing(fencing, Means(("a",), watchdog=OVER), READY, 5)
    assert isinstance(step, Start)
    assert (step.way, step.instead) == (Way(WATCHDOG), fencing)
    failed = a_fencing(tried=[TriedMethod(WATCHDOG, "", "renewed")])
    assert isinstance(decide_fencing(failed, Means(("a",), watchdog=OVER), READY, 5), Wait)


@pytest.mark.parametrize(
    ("lost", "total", "held"),
    [(1, 1, False), (1, 2, False), (2, 2, True), (1, 3, False), (2, 3, True), (2, 6, False),
     (3, 6, True), (34, 100, False), (35, 100, True), (0, 0, False)],
)  # fmt: skip
def test_brake_holds_when_a_larger_share_is_lost_than_may_be(lost, total, held):
    assert bool(find_brake([f"n{n}" for n in range(lost)], total, 0.34)) is held


def test_node_where_a_pod_waits_is_asked_first_and_the_others_in_turn():
    ready = {"a", "b", "c"}
    assert order_executors(ready, {"c", "gone"}, "disk")[0] == "c"
    assert {order_executors(ready, (), f"disk{n}")[0] for n in range(20)} == ready
    assert order_executors((), (), "disk") == []
