"""The planner, judged by a small world that applies its steps: never by the planner itself."""

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from volagent.drivers.contract import (
    DriverName,
    HeldDevice,
    HeldMount,
    Options,
    Phase,
    Publication,
    VolumeKey,
    VolumeSource,
    VolumeSpec,
)
from volagent.node.plan import (
    Attach,
    Detach,
    Expand,
    Prepare,
    Publish,
    Refresh,
    Stage,
    Step,
    Unpublish,
    Unstage,
    Wanted,
    plan,
)
from volagent.node.records import Held, UseRecord, VolumeRecord
from volagent.objects.meta import PodUid

KEY = VolumeKey("pv/data")
DRIVER = DriverName("image.volagent.dev")
BLOCK = (Phase.ATTACH, Phase.PREPARE, Phase.STAGE, Phase.PUBLISH)
FILE = (Phase.PUBLISH,)
PODS = tuple(PodUid(name) for name in ("a", "b"))
replace = msgspec.structs.replace


def a_use(pod: PodUid, fingerprint: str = "") -> Publication:
    from volagent.host.contract import Payload

    payload = Payload((), fingerprint) if fingerprint else None
    return Publication(pod, f"default/{pod}", f"/pods/{pod}/data", payload=payload)


def wanted_by(*pods: PodUid, phases=BLOCK, fingerprint="") -> Wanted:
    spec = VolumeSpec(KEY, DRIVER, "data", Options())
    uses = {pod: a_use(pod, fingerprint) for pod in pods}
    return Wanted(spec, VolumeSource("csi", {}), phases, uses)


class World:
    """What is really there. Refuses every step that would hurt."""

    def __init__(self):
        self.attached = self.prepared = self.staged = False
        self.published: dict[PodUid, str] = {}

    def apply(self, step: Step, wanted: Wanted | None) -> None:
        match step:
            case Attach():
                self.attached = True
            case Prepare():
                assert self.attached
                self.prepared = True
            case Stage():
                assert self.prepared, "staged a device that nobody looked at"
                self.staged = True
            case Publish(pod=pod) | Refresh(pod=pod):
                assert wanted is not None
                assert self.staged or Phase.STAGE not in wanted.phases
                self.published[pod] = wanted.uses[pod].fingerprint
            case Expand():
                assert self.staged
            case Unpublish(pod=pod):
                self.published.pop(pod, None)
            case Unstage():
                assert not self.published, "unstaged under a publication"
                self.staged = False
            case Detach():
                assert not self.staged, "detached a mounted device"
                self.attached = self.prepared = False

    def agrees_with(self, wanted: Wanted | None) -> bool:
        uses = wanted.uses if wanted is not None else {}
        if set(self.published) != set(uses):
            return False
        if not uses:
            return not self.attached and not self.staged
        assert wanted is not None
        return self.staged or Phase.STAGE not in wanted.phases


def record_of(world: World, unknown: set[str]) -> VolumeRecord | None:
    """A record that is true, except where it honestly says that it does not know."""

    def held(what: str, there: bool) -> Held:
        return Held.UNKNOWN if what in unknown else Held.YES if there else Held.NO

    uses = {
        pod: UseRecord(held(f"use {pod}", pod in world.published), HeldMount(f"/pods/{pod}"))
        for pod in PODS
        if pod in world.published or f"use {pod}" in unknown
    }
    uses = {
        pod: replace(use, mount=replace(use.mount, fingerprint=world.published.get(pod, "")))
        for pod, use in uses.items()
    }
    attached = held("attach", world.attached)
    record = VolumeRecord(
        KEY,
        DRIVER,
        "data",
        attached=attached,
        device=HeldDevice("/dev/loop0", "7:0", "x") if world.attached else None,
        prepared=world.prepared,
        staged=held("stage", world.staged),
        stage=HeldMount("/global") if world.staged or "stage" in unknown else None,
        uses=uses,
    )
    return None if record.empty else record


def converge(world: World, wanted: Wanted | None, unknown: set[str]) -> int:
    """Plan and apply until the plan is empty; how many steps it took."""
    for count in range(40):
        steps = plan(wanted, record_of(world, unknown))
        if not steps:
            return count
        step = steps[0]
        world.apply(step, wanted)
        unknown -= {
            f"use {getattr(step, 'pod', '')}",
            {Attach: "attach", Detach: "attach", Stage: "stage", Unstage: "stage"}.get(
                type(step), ""
            ),
        }
    raise AssertionError("does not converge")


worlds = st.builds(
    lambda depth, pods: (depth, pods),
    st.integers(0, 3),
    st.sets(st.sampled_from(PODS)),
)
wishes = st.one_of(
    st.none(),
    st.sets(st.sampled_from(PODS), min_size=1).map(lambda pods: wanted_by(*sorted(pods))),
)


def a_world(depth: int, pods: set[PodUid]) -> World:
    world = World()
    world.attached, world.prepared, world.staged = depth > 0, depth > 1, depth > 2
    if world.staged:
        world.published = dict.fromkeys(pods, "")
    return world


@given(worlds, wishes, st.sets(st.sampled_from(["attach", "stage", "use a", "use b"])))
def test_plan_converges_from_every_state_when_some_of_it_is_unknown(start, wanted, unknown):
    world = a_world(*start)
    converge(world, wanted, set(unknown))
    assert world.agrees_with(wanted)


@given(worlds, wishes, wishes, st.integers(0, 6), st.booleans())
def test_plan_converges_when_interrupted_after_any_step_and_the_wish_changes(
    start, first, second, stop_after, lost
):
    world = a_world(*start)
    steps = plan(first, record_of(world, set()))[:stop_after]
    for step in steps:
        world.apply(step, first)
    unknown = set()
    if lost and steps:  # killed before the outcome was noted
        last = steps[-1]
        unknown = {
            {Attach: "attach", Detach: "attach", Stage: "stage", Unstage: "stage"}.get(
                type(last), f"use {getattr(last, 'pod', 'a')}"
            )
        }
    converge(world, second, unknown)
    assert world.agrees_with(second)


def test_plan_is_empty_when_world_and_wish_agree():
    for pods in ((), PODS[:1], PODS):
        world = a_world(3 if pods else 0, set(pods))
        assert plan(wanted_by(*pods) if pods else None, record_of(world, set())) == ()


def test_plan_never_takes_from_a_kept_pod_when_its_declaration_cannot_be_resolved():
    record = record_of(a_world(3, set(PODS)), set())
    assert plan(None, record, kept=PODS) == ()
    assert plan(wanted_by("a"), record, kept=PODS) == ()


def test_plan_leaves_the_stage_when_one_of_two_pods_goes():
    record = record_of(a_world(3, set(PODS)), set())
    assert plan(wanted_by("a"), record) == (Unpublish(KEY, PodUid("b")),)


def test_plan_refreshes_in_place_when_only_the_content_changed():
    mount = HeldMount("/pods/a/data", 7, fingerprint="old")
    record = VolumeRecord(KEY, DRIVER, "s", uses={PodUid("a"): UseRecord(Held.YES, mount)})
    wanted = wanted_by(PodUid("a"), phases=FILE, fingerprint="new")
    assert plan(wanted, record) == (Refresh(KEY, PodUid("a")),)


def test_plan_only_publishes_again_when_somebody_unmounted_the_publication():
    world = a_world(3, {PodUid("a")})
    record = record_of(world, set())
    assert record is not None
    lost = replace(record, uses={PodUid("a"): UseRecord(Held.NO, HeldMount("/pods/a/data"))})
    assert plan(wanted_by(PodUid("a")), lost) == (Publish(KEY, PodUid("a")),)


def test_plan_expands_when_the_volume_outgrew_its_device():
    record = record_of(a_world(3, {PodUid("a")}), set())
    assert record is not None
    record = replace(record, device=HeldDevice("/dev/loop0", "7:0", "x", size_bytes=100))
    wanted = wanted_by(PodUid("a"))
    grown = Wanted(
        replace(wanted.spec, capacity_bytes=200), wanted.source, wanted.phases, wanted.uses
    )
    assert plan(grown, record) == (Expand(KEY),)


def test_plan_finds_out_which_device_it_is_when_an_unwanted_attach_was_interrupted():
    record = VolumeRecord(KEY, DRIVER, "data", attached=Held.UNKNOWN)
    assert plan(None, record) == (Attach(KEY), Detach(KEY))


def test_steps_describe_themselves_in_one_phrase():
    steps = (
        *(kind(KEY) for kind in (Attach, Prepare, Stage, Expand, Unstage, Detach)),
        *(kind(KEY, PodUid("a")) for kind in (Publish, Refresh, Unpublish)),
    )
    texts = [step.describe() for step in steps]
    assert len(set(texts)) == len(texts)
    for one, other in itertools.pairwise(texts):
        assert "\n" not in one + other
