"""Why a pod has no node yet, as `volagent explain` prints it. Read-only."""

from collections.abc import Iterator

from volagent.client.shared import SharedCopies
from volagent.control.schedule.decide import NO_NODES, Outlook, is_ours
from volagent.control.schedule.run import Scheduler
from volagent.objects.meta import Document
from volagent.objects.pod import Pod
from volagent.objects.pod_claims import claim_source_of


class PlacementView:
    """Answers for pods without a node."""

    def __init__(self, copies: SharedCopies, scheduler: Scheduler) -> None:
        self._copies = copies
        self._scheduler = scheduler

    def explain(self, namespace: str, name: str) -> Document | None:
        """The steps up to the choice of a node, and what each node says.

        None for a pod that has a node, which can tell more, or that is not known.
        """
        pod = self._copies.pods.get(namespace, name)
        if pod is None or pod.spec.node_name:
            return None
        outlooks = self._scheduler.explain(namespace, name)
        summary, remedy = _summarize(pod, outlooks)
        created = pod.metadata.creation_timestamp
        declared = {
            "step": "declare", "volume": "", "state": "done", "startedAt": created,
            "evidence": "durable in the store",
        }  # fmt: skip
        schedule = {
            "step": "schedule", "volume": "", "startedAt": None, "remedy": remedy,
            "state": "pending" if any(each.fits for each in outlooks) else "failed",
            "error": summary,
        }  # fmt: skip
        return {
            "kind": "Explanation",
            "pod": f"{namespace}/{name}",
            "uid": pod.metadata.uid,
            "node": "",
            "phase": pod.status.phase or "Pending",
            "summary": summary,
            "steps": [declared, *binding_steps(self._copies, pod), schedule],
            "nodes": [
                {"node": each.node, "fits": each.fits, "says": _says(each)} for each in outlooks
            ],
            "volumes": [],
            "timeline": [],
        }


def binding_steps(copies: SharedCopies, pod: Pod) -> Iterator[Document]:
    """How far each of a pod's claims is, as steps of an explanation."""
    for volume in pod.spec.volumes or ():
        source = claim_source_of(pod, volume)
        if source is None:
            continue
        step: Document = {"step": "bind", "volume": volume.name, "startedAt": None}
        claim = copies.claims.get(pod.metadata.namespace, source.claim_name)
        if claim is None:
            yield {
                **step, "state": "failed",
                "error": f'persistentvolumeclaim "{source.claim_name}" not found',
                "remedy": "declare the claim, or correct its name in the pod",
            }  # fmt: skip
        elif claim.status.phase == "Bound":
            evidence = f"claim {source.claim_name} is bound to {claim.spec.volume_name}"
            yield {**step, "state": "done", "evidence": evidence}
        else:
            evidence = f"see `volagent explain pvc/{source.claim_name}`"
            yield {**step, "state": "pending", "evidence": evidence}


def _summarize(pod: Pod, outlooks: tuple[Outlook, ...]) -> tuple[str, str]:
    """Why the pod has no node, and what to do."""
    spec = pod.spec
    if spec.scheduling_gates:
        gates = ", ".join(gate.name for gate in spec.scheduling_gates)
        return f"held back by its scheduling gates: {gates}", "remove them from its spec"
    if not is_ours(pod):
        return f"left to the scheduler {spec.scheduler_name}", "see why that one gives it no node"
    fitting = [each.node for each in outlooks if each.fits]
    if fitting:
        return f"it is about to go to one of: {', '.join(fitting)}", ""
    if not outlooks:
        return NO_NODES, "start an agent, or uncordon a node"
    return (
        f"no node takes it: {'; '.join(each.describe() for each in outlooks)}",
        "change what speaks against a node, or the pod; it is tried again at once",
    )


def _says(outlook: Outlook) -> str:
    text = ", ".join(outlook.reasons) or "it would do"
    return f"{text} ({outlook.detail})" if outlook.detail else text
