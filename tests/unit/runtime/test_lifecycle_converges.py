"""From whatever a crash left, deciding and acting again and again leads where it should.

The judge is the modelled world (which containers exist and run), never what `decide` says of it.
"""

from dataclasses import dataclass, field, replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.runtime.pod_making import BEGAN, REF, make_container, make_pod, make_specs
from volagent.runtime.contract import ContainerState, Stage
from volagent.runtime.lifecycle import (
    RemoveContainer,
    StartContainer,
    StopContainer,
    decide,
    decide_removal,
)
from volagent.runtime.memory import PodMemory

INIT, SIDE, MAINS = "init", "side", ("a", "b")
EVERY = (INIT, SIDE, *MAINS)
POLICIES = ("Always", "OnFailure", "Never")
LONG_S = 3600.0
STUBBORN, POLITE = "ignores signals", "ends when asked"


@dataclass
class World:
    """Containers as they are, with programs that end as they were told to."""

    programs: dict[str, list]
    """By container: exit codes of its coming runs; then it runs on for ever."""
    manner: str = POLITE
    containers: dict[str, ContainerState] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def apply(self, action) -> bool:
        """Act; whether a start succeeded."""
        match action:
            case StartContainer(spec, attempt):
                self._start(spec.name, attempt)
                return True
            case StopContainer(container_id, name, kill):
                self.stopped.append(name)
                if kill or self.manner == POLITE:
                    self._end(container_id, 137 if kill else 0)
            case RemoveContainer(container_id):
                assert self.containers[container_id].stage is not Stage.RUNNING
                del self.containers[container_id]
        return False

    def running(self):
        return sorted(s.name for s in self.containers.values() if s.stage is Stage.RUNNING)

    def _start(self, name, attempt):
        assert name not in self.running(), f"{name} runs twice"
        if name in MAINS:
            assert self._initialized(), f"{name} started before the init container was done"
        self.started.append(name)
        container_id = f"{name}-{attempt}"
        self.containers[container_id] = ContainerState(
            container_id, REF, name, attempt, Stage.RUNNING, started_at=BEGAN
        )
        if self.programs.get(name):
            self._end(container_id, self.programs[name].pop(0))

    def _initialized(self):
        states = self.containers.values()
        if any(s.name in MAINS and s.stage is not Stage.CREATED for s in states):
            return True
        init = max((s for s in states if s.name == INIT), key=lambda s: s.attempt, default=None)
        return init is not None and init.exit_code == 0 and any(s.name == SIDE for s in states)

    def _end(self, container_id, exit_code):
        state = self.containers[container_id]
        self.containers[container_id] = replace(
            state, stage=Stage.EXITED, exit_code=exit_code,
            finished_at=BEGAN + timedelta(seconds=1),
        )  # fmt: skip


def states(name):
    return st.builds(
        lambda stage, attempt, code: ContainerState(
            f"{name}-{attempt}", REF, name, attempt, stage,
            code if stage is Stage.EXITED else None, started_at=BEGAN,
            finished_at=BEGAN + timedelta(seconds=1),
        ),
        st.sampled_from(Stage), st.integers(0, 4), st.sampled_from([0, 1, 137]),
    )  # fmt: skip


leftovers = st.fixed_dictionaries({}, optional={name: states(name) for name in EVERY})
programs = st.fixed_dictionaries({
    INIT: st.lists(st.just(1), max_size=3).map(lambda codes: [*codes, 0]),
    SIDE: st.lists(st.sampled_from([0, 1]), max_size=3),
    **{name: st.lists(st.sampled_from([0, 1]), max_size=4) for name in MAINS},
})  # fmt: skip


def pod_with(policy):
    return make_pod(
        *(make_container(name) for name in MAINS),
        init=[make_container(INIT), make_container(SIDE, restartPolicy="Always")],
        restartPolicy=policy,
    )


def drive(pod, world, choose, *, forget_every=0):
    """Decide and act until nothing is to be done for a long time; the daemon may forget."""
    memory, now_s = PodMemory(), 0.0
    for turn in range(200):
        if forget_every and turn % forget_every == 0:
            memory = PodMemory()
        decision = choose(pod, list(world.containers.values()), memory, now_s)
        memory = decision.memory
        for action in decision.actions:
            if world.apply(action):
                memory = memory.with_start(action.spec.name, action.attempt)
        if not decision.actions:
            if decision.retry_after_s is None:
                return
            now_s += decision.retry_after_s
    raise AssertionError("never comes to rest")


def bring_up(pod, observed, memory, now_s):
    return decide(pod, observed, make_specs(pod), memory, now_s)


@settings(deadline=None)
@given(leftovers, programs, st.sampled_from(POLICIES))
def test_pod_comes_to_rest_as_its_policy_says(left, ending, policy):
    world = World(ending, containers={s.container_id: s for s in left.values()})
    had_begun = any(name in MAINS and s.stage is not Stage.CREATED for name, s in left.items())
    init_hangs = INIT in world.running() and not had_begun
    drive(pod_with(policy), world, bring_up)
    latest = {}
    for state in world.containers.values():
        if state.name not in latest or latest[state.name].attempt < state.attempt:
            latest[state.name] = state
    mains = [latest.get(name) for name in MAINS]
    over = all(
        state is not None and state.stage is Stage.EXITED
        and (policy == "Never" or (policy == "OnFailure" and state.exit_code == 0))
        for state in mains
    )  # fmt: skip
    init_failed = (
        policy == "Never"
        and all(state is None or state.stage is Stage.CREATED for state in mains)
        and INIT in latest
        and latest[INIT].exit_code not in (0, None)
    )
    if over or init_failed:
        assert SIDE not in world.running()
    elif init_hangs:
        assert {*world.started} <= {SIDE}
    else:
        assert SIDE in world.running()
        for name, state in zip(MAINS, mains, strict=True):
            if policy == "Always":
                assert name in world.running()
            elif policy == "OnFailure":
                assert state.stage is Stage.RUNNING or state.exit_code == 0
    if not (over or init_failed):
        assert world.stopped == [], "a running container was touched"


@settings(deadline=None)
@given(
    leftovers, st.sampled_from(POLICIES), st.sampled_from([POLITE, STUBBORN]),
    st.sampled_from([0, 7]),
)  # fmt: skip
def test_nothing_is_left_when_a_pod_is_removed(left, policy, manner, forget_every):
    world = World({}, manner, {s.container_id: s for s in left.values()})
    drive(pod_with(policy), world, decide_removal, forget_every=forget_every)
    assert world.containers == {}
    assert world.started == []
