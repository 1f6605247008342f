"""Where a pod goes, or why it cannot go anywhere. Pure.

`decide_pod` answers again and again from what is stored until the pod has its node: (1) volumes
that exist are reserved for its claims, (2) the others are asked for on the chosen node, (3) when
all claims are bound the pod is assigned. Each step is derived from the world alone, so that it goes
on wherever it was interrupted: a claim that has its volume, or waits for one on a node, holds the
pod to where that is.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from volagent.control.schedule.filters import (
    Refusal,
    Wish,
    find_refusal,
    plan_volumes,
    read_wish,
)
from volagent.control.schedule.scores import Option, choose_best
from volagent.control.schedule.volumes import NoPlan
from volagent.control.schedule.world import NodeState, World, is_finished
from volagent.objects.annotations import SELECTED_NODE
from volagent.objects.pod import Pod
from volagent.objects.scheduling import DEFAULT_SCHEDULER
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

NO_NODES = "no nodes available to schedule pods"


@dataclass(frozen=True, slots=True)
class Outlook:
    """What speaks against one node; nothing, if it would do."""

    node: str
    reasons: tuple[str, ...] = ()
    detail: str = ""

    @property
    def fits(self) -> bool:
        """Whether the pod could go there."""
        return not self.reasons

    def describe(self) -> str:
        """`node02: node(s) had volume node affinity conflict`."""
        text = ", ".join(self.reasons) or "would do"
        return f"{self.node}: {text} ({self.detail})" if self.detail else f"{self.node}: {text}"


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No node will do now."""

    message: str
    """Kubernetes' sentence: `0/2 nodes are available: ...`."""
    outlooks: tuple[Outlook, ...] = ()
    may_pass: bool = False
    """Its claims are the reason, and may be on their way."""

    def describe(self) -> str:
        """The sentence, and what each node said."""
        if len(self.outlooks) < 2 and not any(each.detail for each in self.outlooks):
            return self.message
        return f"{self.message} [{'; '.join(each.describe() for each in self.outlooks)}]"


@dataclass(frozen=True, slots=True)
class Prepare:
    """The pod is to go to a node as soon as its claims are bound; what is left to write."""

    node: str
    reserve: tuple[tuple[PersistentVolumeClaim, PersistentVolume], ...] = ()
    provision: tuple[PersistentVolumeClaim, ...] = ()
    waiting: tuple[str, ...] = ()
    """The claims that are not bound yet."""


@dataclass(frozen=True, slots=True)
class Assign:
    """The pod can go."""

    node: str


Verdict = Nowhere | Prepare | Assign


def is_ours(pod: Pod) -> bool:
    """Whether a pod waits for this scheduler to give it a node."""
    spec = pod.spec
    return (
        not spec.node_name
        and not spec.scheduling_gates
        and spec.scheduler_name in ("", DEFAULT_SCHEDULER)
        and pod.metadata.deletion_timestamp is None
        and not is_finished(pod)
    )


def decide_pod(pod: Pod, world: World, *, preferred: str = "") -> Verdict:
    """The next thing to be done for a pod; `preferred` is the node chosen for it before."""
    wish = read_wish(pod, world)
    if not world.nodes:
        return Nowhere(NO_NODES)
    if wish.volumes.problem:
        return Nowhere(
            f"0/{len(world.nodes)} nodes are available: {wish.volumes.problem}.", may_pass=True
        )
    options, outlooks = _ask_nodes(wish)
    if not options:
        return Nowhere(_summarize(outlooks), tuple(outlooks), wish.volumes.lost)
    best = _choose(wish, options, preferred)
    if not wish.volumes.waiting:
        return Assign(best.state.name)
    node = best.state.name
    return Prepare(
        node,
        tuple((c, volume) for c, volume in best.plan.reserve if not _is_reserved(volume, c)),
        tuple(claim for claim in best.plan.provision if _selected_node(claim) != node),
        tuple(claim.metadata.name for claim in wish.volumes.waiting),
    )


def explain_placement(pod: Pod, world: World) -> tuple[Outlook, ...]:
    """What each node says about a pod, by name."""
    wish = read_wish(pod, world)
    if wish.volumes.problem:
        return tuple(Outlook(name, (wish.volumes.problem,)) for name in sorted(world.nodes))
    options, outlooks = _ask_nodes(wish)
    outlooks += [Outlook(option.state.name) for option in options]
    return tuple(sorted(outlooks, key=lambda outlook: outlook.node))


def _ask_nodes(wish: Wish) -> tuple[list[Option], list[Outlook]]:
    options, outlooks = [], []
    for name in sorted(wish.world.nodes):
        state = wish.world.nodes[name]
        found = _ask(wish, state)
        if isinstance(found, Option):
            options.append(found)
        else:
            outlooks.append(Outlook(name, found.reasons, found.detail))
    return options, outlooks


def _ask(wish: Wish, state: NodeState) -> Option | Refusal:
    refusal = find_refusal(wish, state)
    if refusal is not None:
        return refusal
    plan = plan_volumes(wish, state)
    return Refusal((plan.reason,), plan.detail) if isinstance(plan, NoPlan) else Option(state, plan)


def _choose(wish: Wish, options: Sequence[Option], preferred: str) -> Option:
    """A node where a volume is being made, else the one chosen before, else the best."""
    by_name = {option.state.name: option for option in options}
    held = [_selected_node(claim) for claim in wish.volumes.waiting]
    for name in (*held, preferred):
        if name in by_name:
            return by_name[name]
    return choose_best(wish, options)


def _summarize(outlooks: Iterable[Outlook]) -> str:
    """Source: kube-scheduler `framework.FitError.Error`."""
    listed = tuple(outlooks)
    counts = Counter(reason for outlook in listed for reason in outlook.reasons)
    reasons = sorted(f"{count} {reason}" for reason, count in counts.items())
    return f"0/{len(listed)} nodes are available: {', '.join(reasons)}."


def _selected_node(claim: PersistentVolumeClaim) -> str:
    return (claim.metadata.annotations or {}).get(SELECTED_NODE, "")


def _is_reserved(volume: PersistentVolume, claim: PersistentVolumeClaim) -> bool:
    reference = volume.spec.claim_ref
    return reference is not None and reference.uid == claim.metadata.uid
