"""What people are told of a lost node's disks: a condition of its Node, Events, `explain`."""

from collections.abc import Mapping, Sequence

from volagent.aio.clock import Clock, format_time
from volagent.client.contract import NODES, Client
from volagent.client.events import EventRecorder, subject_of
from volagent.control.failover.decide import Stay, Step
from volagent.control.failover.documents import condition_patch
from volagent.control.failover.world import Stranded
from volagent.objects.fencing import FAIL_OVER, PROVEN, Fencing
from volagent.objects.storage import Node
from volagent.observe.failover import braked
from volagent.observe.logs import get_logger

SHOWN_DISKS = 3

_log = get_logger("failover")
_Told = tuple[str, str, str]


class Teller:
    """Writes a condition when its text changes, and an Event with it."""

    def __init__(self, client: Client, events: EventRecorder, clock: Clock) -> None:
        self._client = client
        self._events = events
        self._clock = clock
        self._told: dict[str, _Told | None] = {}

    async def tell_progress(
        self, node: Node, disks: Sequence[Stranded], stays: Mapping[str, str], held: str
    ) -> None:
        """How far the disks of a lost node are. Raises `ApiError`."""
        free = sum(disk.free for disk in disks)
        name = node.metadata.name
        if held:
            told = ("False", "Held", f"{held}; {_release(name)}")
        elif stays:
            shown = [f"{volume}: {reason}" for volume, reason in sorted(stays.items())]
            more = f" and {len(shown) - SHOWN_DISKS} more" if len(shown) > SHOWN_DISKS else ""
            text = f"without proof: {' | '.join(shown[:SHOWN_DISKS])}{more}; {_confirm(name)}"
            told = ("False", "NoProof", text)
        elif free < len(disks):
            told = ("Unknown", "Fencing", f"{free} of {len(disks)} disks are proved free")
        else:
            told = ("True", "Free", "no exclusive disk can be written to from it")
        await self._tell(node, told)

    async def tell_back(self, node: Node, proven: Sequence[Fencing]) -> None:
        """It is heard of again. Raises `ApiError`."""
        if proven:
            text = f"{len(proven)} disk(s) were taken from it; it has not given all of them up yet"
            await self._tell(node, ("False", "Cleaning", text))
        else:
            await self._tell(node, None)

    async def _tell(self, node: Node, told: _Told | None) -> None:
        name = node.metadata.name
        annotated = told is None and FAIL_OVER in (node.metadata.annotations or {})
        if name in self._told and self._told[name] == told and not annotated:
            return
        if told is None and name not in self._told and not annotated and not _has_condition(node):
            self._told[name] = None
            return
        document = await self._client.get(NODES, name)
        now = format_time(self._clock.wall())
        change = condition_patch(document, told, now)
        if change is not None:
            await self._client.patch(NODES, name, change, subresource="status")
            self._report(node, told)
        if annotated:
            await self._client.patch(NODES, name, {"metadata": {"annotations": {FAIL_OVER: None}}})
        self._told[name] = told

    def _report(self, node: Node, told: _Told | None) -> None:
        subject = subject_of("Node", node.metadata)
        if told is None:
            return
        status, reason, text = told
        if status == "False":
            self._events.warning(subject, f"FailOver{reason}", text)
            _log.warning("fail-over", node=node.metadata.name, reason=reason, text=text)
            if reason == "Held":
                braked.inc()
        else:
            self._events.normal(subject, f"FailOver{reason}", text)
            _log.info("fail-over", node=node.metadata.name, reason=reason, text=text)

    def explain(self, node: Node, disk: Stranded, step: Step, held: str) -> tuple[str, str]:
        """Why a disk is not free, and what helps."""
        name = node.metadata.name
        head = f"node {name} is lost and has the disk; "
        if held:
            return head + held, _release(name)
        if isinstance(step, Stay):
            return head + f"nothing proves that it cannot write: {step.reason}", _confirm(name)
        fencing = disk.fencing
        if fencing is None or fencing.status.phase == PROVEN:
            return head + "it is about to be kept out", ""
        by = f" by {fencing.spec.executor}" if fencing.spec.executor else ""
        text = f": {fencing.status.message}" if fencing.status.message else ""
        return head + f"it is being kept out ({fencing.spec.method}{by}){text}", _confirm(name)

    def explain_unheard(self, node: Node) -> tuple[str, str]:
        """Why a disk stays with a node of which nothing was ever heard, and what helps."""
        name = node.metadata.name
        why = (
            f"node {name} has the disk and has told nothing since its Node was declared, so it is"
            " not taken for lost, and nobody keeps it out"
        )
        return why, f"start its agent; {_confirm(name)}"


def _confirm(name: str) -> str:
    return f"if the machine is off, say so: volagent node confirm-off {name}"


def _release(name: str) -> str:
    return (
        f"if these nodes are really lost: volagent node fail-over {name}; if it is off:"
        f" volagent node confirm-off {name}"
    )


def _has_condition(node: Node) -> bool:
    return any(each.type == "volagent.dev/FailOver" for each in node.status.conditions or ())
