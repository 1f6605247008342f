"""What containers need next: rules by example."""

from dataclasses import replace

import pytest

from tests.unit.runtime.pod_making import (
    created,
    ended,
    make_container,
    make_pod,
    make_specs,
    running,
)
from volagent.runtime.contract import SpecError
from volagent.runtime.lifecycle import (
    RemoveContainer,
    StartContainer,
    StopContainer,
    decide,
    decide_removal,
)
from volagent.runtime.memory import PodMemory, back_off_s

SIDECAR = make_container("side", restartPolicy="Always")


def decided(pod, observed, memory=None, now_s=100.0, specs=None):
    specs = make_specs(pod) if specs is None else specs
    return decide(pod, observed, specs, memory or PodMemory(), now_s)


def starts(decision):
    return [(a.spec.name, a.attempt) for a in decision.actions if isinstance(a, StartContainer)]


def stops(decision):
    return [(a.name, a.kill) for a in decision.actions if isinstance(a, StopContainer)]


def removals(decision):
    return [a.container_id for a in decision.actions if isinstance(a, RemoveContainer)]


def test_all_containers_are_started_when_there_are_none():
    pod = make_pod(make_container("a"), make_container("b"))
    assert starts(decided(pod, [])) == [("a", 0), ("b", 0)]


def test_nothing_is_started_when_volumes_are_not_ready():
    pod = make_pod(make_container())
    assert decide(pod, [], None, PodMemory(), 0.0).actions == ()


def test_nothing_is_started_when_its_spec_is_in_error_but_the_others_are():
    pod = make_pod(make_container("a"), make_container("b"))
    specs = {**make_specs(pod), "a": SpecError("a.env", "no")}
    assert starts(decided(pod, [], specs=specs)) == [("b", 0)]


def test_running_container_is_left_alone():
    pod = make_pod(make_container())
    decision = decided(pod, [running()])
    assert decision.actions == ()
    assert decision.retry_after_s is None


def test_container_that_never_started_is_made_again():
    assert starts(decided(make_pod(make_container()), [created(attempt=2)])) == [("main", 2)]


@pytest.mark.parametrize(
    ("policy", "exit_code", "again"),
    [
        ("Always", 0, True), ("Always", 1, True), ("OnFailure", 0, False),
        ("OnFailure", 1, True), ("Never", 0, False), ("Never", 1, False),
    ],
)  # fmt: skip
def test_ended_container_is_restarted_as_the_policy_says(policy, exit_code, again):
    pod = make_pod(make_container(), restartPolicy=policy)
    decision = decided(pod, [ended(exit_code=exit_code)])
    assert starts(decision) == ([("main", 1)] if again else [])


def test_delay_between_restarts_doubles_up_to_five_minutes():
    pod = make_pod(make_container())
    memory, now_s, delays = PodMemory(), 0.0, []
    for attempt in range(8):
        decision = decided(pod, [ended(exit_code=1, attempt=attempt)], memory, now_s)
        if decision.actions:
            delays.append(0.0)
        else:
            delays.append(decision.retry_after_s)
            now_s += decision.retry_after_s
            decision = decided(pod, [ended(exit_code=1, attempt=attempt)], decision.memory, now_s)
        assert starts(decision) == [("main", attempt + 1)]
        memory = decision.memory.with_start("main", attempt + 1)
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]


def test_delay_is_forgiven_when_it_ran_for_ten_minutes():
    pod = make_pod(make_container())
    memory = PodMemory()
    for attempt in (1, 2, 3):
        memory = memory.with_start("main", attempt)
    decision = decided(pod, [ended(exit_code=1, attempt=3, ran_s=601)], memory)
    assert starts(decision) == [("main", 4)]


def test_delay_is_taken_up_by_the_attempt_when_the_daemon_was_restarted():
    decision = decided(make_pod(make_container()), [ended(exit_code=1, attempt=3)])
    assert starts(decision) == []
    assert decision.retry_after_s == back_off_s(3) == 40


def test_failed_start_is_tried_again_later_and_at_once_when_its_spec_changes():
    pod = make_pod(make_container())
    spec = make_specs(pod)["main"]
    memory = PodMemory().with_failure(spec, "ErrImagePull", "no", 100.0)
    waiting = decided(pod, [], memory, 104.0)
    assert (waiting.actions, waiting.retry_after_s) == ((), 6.0)
    assert starts(decided(pod, [], memory, 110.0)) == [("main", 0)]
    changed = {"main": replace(spec, image="app:2")}
    assert starts(decided(pod, [], memory, 104.0, changed)) == [("main", 0)]


def test_failures_in_a_row_are_counted_for_the_same_spec_only():
    pod = make_pod(make_container())
    spec = make_specs(pod)["main"]
    memory = PodMemory()
    for _ in range(3):
        memory = memory.with_failure(spec, "ErrImagePull", "no", 0.0)
    assert memory.of("main").failure.due_s == 40
    other = memory.with_failure(replace(spec, image="app:2"), "ErrImagePull", "no", 0.0)
    assert other.of("main").failure.due_s == 10


def test_init_containers_go_one_by_one():
    pod = make_pod(make_container(), init=[make_container("i"), make_container("j")])
    assert starts(decided(pod, [])) == [("i", 0)]
    assert starts(decided(pod, [running("i")])) == []
    assert starts(decided(pod, [ended("i")])) == [("j", 0)]
    assert starts(decided(pod, [ended("i"), ended("j")])) == [("main", 0)]


def test_init_container_that_fails_is_retried_unless_the_policy_is_never():
    init = [make_container("i")]
    failed = [ended("i", exit_code=1)]
    assert starts(decided(make_pod(make_container(), init=init), failed)) == [("i", 1)]
    never = make_pod(make_container(), init=init, restartPolicy="Never")
    assert decided(never, failed).actions == ()


def test_init_containers_are_done_when_others_have_run_and_they_were_removed():
    pod = make_pod(make_container(), init=[make_container("i")])
    assert decided(pod, [running()]).actions == ()
    assert starts(decided(pod, [ended(exit_code=1)])) == [("main", 1)]


def test_sidecar_runs_beside_the_others_and_holds_back_only_until_it_is_up():
    pod = make_pod(make_container(), init=[SIDECAR, make_container("i")])
    assert starts(decided(pod, [])) == [("side", 0)]
    assert starts(decided(pod, [running("side")])) == [("i", 0)]
    assert starts(decided(pod, [running("side"), ended("i")])) == [("main", 0)]
    crashed = [ended("side", exit_code=1), ended("i"), running()]
    assert starts(decided(pod, crashed)) == [("side", 1)]


def test_sidecar_is_stopped_when_the_pod_s_work_is_over():
    pod = make_pod(make_container(), init=[SIDECAR], restartPolicy="Never")
    decision = decided(pod, [running("side"), ended()])
    assert stops(decision) == [("side", False)]
    assert decision.retry_after_s == 30
    later = decided(pod, [running("side"), ended()], decision.memory, 130.0)
    assert stops(later) == [("side", True)]


def test_finished_pod_is_not_started_again_when_its_containers_were_removed():
    pod = make_pod(make_container(), restartPolicy="Never", status={"phase": "Succeeded"})
    assert decided(pod, []).actions == ()


def test_ended_container_is_remembered_by_the_status_when_somebody_removed_it():
    status = {
        "phase": "Running",
        "containerStatuses": [
            {"name": "a", "restartCount": 2, "state": {"terminated": {"exitCode": 0}}}
        ],
    }
    pod = make_pod(
        make_container("a"), make_container("b"), restartPolicy="OnFailure", status=status
    )
    assert decided(pod, [running("b")]).actions == ()


def test_last_ended_attempt_is_kept_and_older_ones_are_removed():
    pod = make_pod(make_container())
    observed = [ended(attempt=0), ended(attempt=1), running(attempt=2)]
    assert removals(decided(pod, observed)) == ["main-0"]


def test_removal_asks_first_and_kills_when_the_grace_is_over():
    pod = make_pod(make_container(), terminationGracePeriodSeconds=7)
    asked = decide_removal(pod, [running()], PodMemory(), 100.0)
    assert (stops(asked), asked.retry_after_s) == ([("main", False)], 7.0)
    waiting = decide_removal(pod, [running()], asked.memory, 103.0)
    assert (waiting.actions, waiting.retry_after_s) == ((), 4.0)
    killing = decide_removal(pod, [running()], waiting.memory, 107.0)
    assert stops(killing) == [("main", True)]
    again = decide_removal(pod, [running()], killing.memory, 108.0)
    assert (again.actions, again.retry_after_s) == ((), 4.0)
    lost = decide_removal(pod, [running()], again.memory, 112.0)
    assert stops(lost) == [("main", True)]
    gone = decide_removal(pod, [ended()], lost.memory, 113.0)
    assert removals(gone) == ["main-0"]


def test_removal_kills_at_once_when_there_is_no_grace():
    pod = make_pod(make_container(), metadata={"deletionGracePeriodSeconds": 0})
    assert stops(decide_removal(pod, [running()], PodMemory(), 0.0)) == [("main", True)]


def test_removal_kills_at_once_when_the_grace_is_cut_short_later():
    asked = decide_removal(make_pod(make_container()), [running()], PodMemory(), 0.0)
    cut = make_pod(make_container(), metadata={"deletionGracePeriodSeconds": 0})
    assert stops(decide_removal(cut, [running()], asked.memory, 1.0)) == [("main", True)]


def test_removal_stops_sidecars_last():
    pod = make_pod(make_container(), init=[SIDECAR], terminationGracePeriodSeconds=5)
    first = decide_removal(pod, [running("side"), running()], PodMemory(), 0.0)
    assert stops(first) == [("main", False)]
    then = decide_removal(pod, [running("side"), ended()], first.memory, 1.0)
    assert stops(then) == [("side", False)]
    overdue = decide_removal(pod, [running("side"), running()], first.memory, 5.0)
    assert stops(overdue) == [("main", True), ("side", True)]


def test_every_action_describes_itself():
    pod = make_pod(make_container())
    (start,) = decided(pod, []).actions
    assert start.describe() == "start container main (attempt 0)"
    assert StopContainer("x", "main", kill=True).describe() == "kill container main"
    assert RemoveContainer("x", "main").describe() == "remove container main"
