"""What the server knows of a pod that has a node: whether its disks are there. Read-only.

For `volagent explain`: asked at a server, a pod of another machine is explained by its attachments
and by what its node has written into its status; asked where its node runs too, the node's own
answer is completed by the reason why a disk is not attached.
"""

from collections.abc import Callable, Iterator

from volagent.client.shared import SharedCopies
from volagent.control.attach.run import AttachController
from volagent.control.schedule.view import binding_steps
from volagent.objects.meta import Document
from volagent.objects.pod import Pod

ExplainLost = Callable[[str, str], tuple[str, str]]
"""Node and disk → why, and a remedy; both "" when nothing keeps it."""
VOLUMES_READY = "volagent.dev/VolumesReady"


class AttachmentView:
    """Answers for pods that have a node."""

    def __init__(
        self, copies: SharedCopies, controller: AttachController, explain_lost: ExplainLost
    ) -> None:
        """`explain_lost` knows what keeps a disk with a lost node, and what helps."""
        self._copies = copies
        self._controller = controller
        self._explain_lost = explain_lost

    def explain(self, namespace: str, name: str) -> Document | None:
        """The steps of a pod with a node, as far as they show here; None for other pods."""
        pod = self._copies.pods.get(namespace, name)
        if pod is None or not pod.spec.node_name:
            return None
        node, created = pod.spec.node_name, pod.metadata.creation_timestamp
        attaching = list(self._attach_steps(pod))
        mounting = _mount_step(pod)
        waits = [step["error"] for step in attaching if step["state"] == "waiting"]
        return {
            "kind": "Explanation",
            "pod": f"{namespace}/{name}",
            "uid": pod.metadata.uid,
            "node": node,
            "phase": pod.status.phase or "Pending",
            "summary": "; ".join(waits) or mounting.get("error") or mounting["evidence"],
            "steps": [
                _step("declare", "", "done", evidence="durable in the store", startedAt=created),
                *binding_steps(self._copies, pod),
                _step("schedule", "", "done", evidence=f"on node {node}"),
                *attaching,
                mounting,
            ],
            "volumes": [],
            "timeline": [],
        }

    def complete(self, namespace: str, name: str, document: Document) -> None:
        """Give the reasons for disks that the node says it waits for."""
        pod = self._copies.pods.get(namespace, name)
        reasons = {} if pod is None else dict(self._explain(pod))
        for step in document["steps"]:
            if step["step"] == "attach" and step["state"] == "waiting":
                reason, remedy = reasons.get(step["volume"], ("", ""))
                step["error"] = reason or step["error"]
                step["remedy"] = remedy or step["remedy"]

    def _explain(self, pod: Pod) -> Iterator[tuple[str, tuple[str, str]]]:
        for use, (reason, remedy) in self._controller.explain(pod):
            node, volume = self._controller.find_holder(pod, use) if reason else ("", "")
            why, helps = self._explain_lost(node, volume) if node else ("", "")
            if why:
                reason = why if node == pod.spec.node_name else f"{reason}; {why}"
            yield use, (reason, helps or remedy)

    def _attach_steps(self, pod: Pod) -> Iterator[Document]:
        for volume, (reason, remedy) in self._explain(pod):
            if reason:
                yield _step("attach", volume, "waiting", error=reason, remedy=remedy)
            else:
                text = f"to node {pod.spec.node_name}"
                yield _step("attach", volume, "done", evidence=text)


def _mount_step(pod: Pod) -> Document:
    conditions = pod.status.conditions or ()
    told = next((each for each in conditions if each.type == VOLUMES_READY), None)
    remedy = f"on {pod.spec.node_name}, `volagent explain pod/{pod.metadata.name}` says more"
    if told is None:
        text = f"node {pod.spec.node_name} has not said anything about its volumes"
        return _step("mount", "", "pending", evidence=text, remedy=remedy)
    if told.status == "True":
        return _step("mount", "", "done", evidence="all volumes are mounted")
    state = "pending" if told.reason == "Working" else "failed"
    return _step("mount", "", state, evidence=told.message, error=told.message, remedy=remedy)


def _step(step: str, volume: str, state: str, **more: object) -> Document:
    return {"step": step, "volume": volume, "state": state, "startedAt": None, **more}
