"""What is to be done about one networked disk, from who wants it and where it is. Pure.

A disk is on a node from the moment its VolumeAttachment exists until that is gone, whatever its
status says. The way there: the attachment is made, the storage attaches, the node's Node names the
disk. The way back: the attachment is deleted (which a finalizer makes last), the Node names the
disk no more, the storage detaches, the finalizer goes. Nothing is taken from a node that says that
it uses the disk, or of which nobody knows, unless there is a proof that it cannot write; a timer is
none. Steps are derived again after every change, and each is safe to repeat.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from volagent.control.attach.wants import Want
from volagent.objects.attachments import OUT_OF_SERVICE, AttachmentSource, is_out_of_service
from volagent.objects.fencing import Fencing, is_withheld
from volagent.objects.storage import Node

PODS_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """A disk that is on a node, or is coming there or going."""

    node: str
    attachment: str
    """The VolumeAttachment's name; "": only the Node names the disk."""
    uid: str
    source: AttachmentSource
    exclusive: bool
    attached: bool
    """The storage has attached it."""
    going: bool
    """The VolumeAttachment is being deleted."""
    told: bool
    """The Node's `status.volumesAttached` has the disk."""
    in_use: bool
    """The Node's `status.volumesInUse` has it, or nobody can say."""
    proof: str
    """Why the node cannot use the disk, whatever it said; "": there is no proof."""

    @property
    def off(self) -> bool:
        """Whether the proof is a person's word that the node is off."""
        return OUT_OF_SERVICE in self.proof

    @property
    def must_stay(self) -> bool:
        """Whether the disk may not be taken from the node."""
        return self.in_use and not self.proof


@dataclass(frozen=True, slots=True)
class Create:
    """Make the VolumeAttachment: from now on the disk is that node's."""

    want: Want


@dataclass(frozen=True, slots=True)
class Attach:
    """Have the storage attach it."""

    standing: Standing
    wants: tuple[Want, ...]


@dataclass(frozen=True, slots=True)
class Tell:
    """Name the disk in the Node: the node's permission."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class Release:
    """Delete the VolumeAttachment, which begins the way back."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take the disk out of the Node, unless it is in use by then; have the storage detach it; let
    the VolumeAttachment go."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class Refuse:
    """A pod cannot have the disk now; it is told why."""

    want: Want
    reason: str


@dataclass(frozen=True, slots=True)
class Await:
    """The disk is to leave its node, which does not let it go yet."""

    standing: Standing


Step = Create | Attach | Tell | Release | Withdraw | Refuse | Await


def decide_disk(
    wants: Sequence[Want], standings: Sequence[Standing], barred: Mapping[str, str]
) -> list[Step]:
    """The next step for each node that has the disk or wants it.

    `wants` in the order in which they are served, `barred` the nodes that get no disks, and why.
    """
    steps: list[Step] = []
    for standing in standings:
        steps += _decide_standing(standing, [w for w in wants if w.node == standing.node])
    nodes = {standing.node for standing in standings if standing.attachment}
    taken = list(standings)
    for want in wants:
        if want.leaving:
            continue
        if want.node in barred and want.node not in nodes:
            text = f'volume "{want.label}" is not attached to node {want.node}: '
            steps.append(Refuse(want, text + barred[want.node]))
            continue
        if want.node in nodes:
            reason = _explain_other(
                want, [s for s in taken if s.node == want.node and s.attachment]
            )
            steps += [Refuse(want, reason)] if reason else []
            continue
        reason = explain_conflict(want, taken, wants)
        if reason:
            steps.append(Refuse(want, reason))
            continue
        steps.append(Create(want))
        nodes.add(want.node)
        taken.append(_as_standing(want))
    return steps


def _decide_standing(standing: Standing, wants: Sequence[Want]) -> list[Step]:
    stays = any(_fits(want, standing) and not want.leaving for want in wants)
    if not standing.attachment or standing.going:
        return [Await(standing) if standing.must_stay else Withdraw(standing)]
    if stays and not standing.proof:
        if not standing.attached:
            return [Attach(standing, tuple(want for want in wants if not want.leaving))]
        return [] if standing.told else [Tell(standing)]
    return [Await(standing)] if standing.must_stay else [Release(standing)]


def _fits(want: Want, standing: Standing) -> bool:
    return want.exclusive == standing.exclusive and want.source == standing.source


def _as_standing(want: Want) -> Standing:
    return Standing(
        want.node, "new", "", want.source, want.exclusive,
        attached=False, going=False, told=False, in_use=False, proof="",
    )  # fmt: skip


def explain_conflict(want: Want, standings: Collection[Standing], wants: Sequence[Want]) -> str:
    """Why a pod cannot have a disk that is elsewhere, in Kubernetes' words; "": it can."""
    others = [each for each in standings if each.node != want.node]
    if not others or not (want.exclusive or any(each.exclusive for each in others)):
        return ""
    other = others[0]
    users = [each for each in wants if each.node == other.node]
    return f'Multi-Attach error for volume "{want.label}" {_describe_holder(want, other, users)}'


def _describe_holder(want: Want, other: Standing, users: Sequence[Want]) -> str:
    if not users:
        return (
            "Volume is already exclusively attached to one node and can't be attached to another"
            f" ({_describe_wait(other)})"
        )
    near = [user.pod[1] for user in users if user.pod[0] == want.pod[0]]
    far = len(users) - len(near)
    parts = []
    if near:
        more = f" and {len(near) - PODS_NAMED} more" if len(near) > PODS_NAMED else ""
        parts.append(f"pod(s) {', '.join(near[:PODS_NAMED])}{more}")
    if far:
        parts.append(f"{far} pod(s) in different namespaces")
    return f"Volume is already used by {' and '.join(parts)} (on node {other.node})"


def _describe_wait(standing: Standing) -> str:
    if standing.must_stay:
        return f"node {standing.node} still uses it, or cannot be asked"
    return f"it is being detached from node {standing.node}"


def _explain_other(want: Want, here: Sequence[Standing]) -> str:
    """Why a pod cannot have a disk that its own node has otherwise; "": it can."""
    standing = here[0]
    if want.source != standing.source:
        name = standing.source.persistent_volume_name
        known = f"PersistentVolume {name}" if name else "a volume that a pod declares itself"
        return (
            f'volume "{want.label}" is the same disk as {known}, which is attached to node'
            f" {standing.node}"
        )
    if want.exclusive != standing.exclusive:
        return f'volume "{want.label}" has other access modes now than when it was attached'
    return ""


def find_proof(node: Node | None, fencing: Fencing | None = None) -> str:
    """Why a node cannot write to a disk, whatever it said last; "": nobody knows.

    `fencing` is that of the node's own attachment. It proves something only while the node has not
    been given permission for the disk since: what was fenced before that says nothing.
    """
    if node is not None and is_out_of_service(node):
        return f"it is off, by somebody's word (taint {OUT_OF_SERVICE})"
    if fencing is not None and fencing.proven and (node is None or is_withheld(node, fencing)):
        return f"it was kept out of the disk ({fencing.spec.method}: {fencing.status.message})"
    return ""


def is_in_use(node: Node | None, volume: str) -> bool:
    """Whether a node says so, or nobody can say: it has not told anything since it is known."""
    if node is None or not node.status.node_info.boot_id:
        return True
    return volume in (node.status.volumes_in_use or ())
