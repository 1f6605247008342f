"""What becomes of a node that a person says is off.

The taint `node.kubernetes.io/out-of-service` is that word, as in Kubernetes; `volagent node
confirm-off` sets it and notes which boot of the machine it is about. While the node's agent is
silent too, its pods are declared again where a scheduler had chosen the node for them, and
forgotten otherwise, so that they can be declared elsewhere; and the attach/detach controller may
take its disks. A machine that comes back with another boot has nothing left of what it had: the
word is taken back. One that comes back with the same boot was never off; that is told.
"""

import asyncio
from typing import Any, Final

from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import NODES, PODS, ApiError, Client, Conflict, NotFound
from volagent.client.events import EventRecorder, subject_of
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.failover.moves import Redeclare, place_anew
from volagent.objects.attachments import CONFIRMED_BOOT, OUT_OF_SERVICE, is_out_of_service, is_ready
from volagent.objects.meta import Document
from volagent.objects.pod import Pod
from volagent.objects.scheduling import Taint
from volagent.objects.storage import Node
from volagent.observe.logs import get_logger

WORKERS: Final = 8
RETRY_S: Final = 1.0

_log = get_logger("nodes")


class OutOfService:
    """Clears nodes that are off, and takes the word back when they return."""

    def __init__(self, copies: SharedCopies, client: Client, events: EventRecorder) -> None:
        """Before `copies.run`."""
        self._copies = copies
        self._client = client
        self._events = events
        self._told: set[tuple[str, str]] = set()
        self._queue: KeyedQueue[str] | None = None
        copies.nodes.listen(self._node_changed)
        copies.pods.listen(self._pod_changed)

    async def run(self) -> None:
        """Look after nodes that are off, for ever."""
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue("off", self._work, tasks.start, width=WORKERS)
            for node in self._copies.nodes.values():
                queue.mark(node.metadata.name)
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    def _node_changed(self, key: Key, _old: Node | None, new: Node | None) -> None:
        if self._queue is not None and new is not None and _has_taint(new):
            self._queue.mark(key[1])

    def _pod_changed(self, _key: Key, _old: Pod | None, new: Pod | None) -> None:
        node = self._copies.nodes.get("", new.spec.node_name) if new is not None else None
        if self._queue is not None and node is not None and _has_taint(node):
            self._queue.mark(node.metadata.name)

    async def _work(self, name: str) -> float | None:
        node = self._copies.nodes.get("", name)
        if node is None or not _has_taint(node):
            return None
        try:
            if is_ready(node):
                await self._take_back(node)
            elif is_out_of_service(node):
                await self._clear(node)
        except (Conflict, NotFound):
            return RETRY_S
        except ApiError as error:
            _log.warning("node not cleared", node=name, error=error.message)
            return RETRY_S
        return None

    async def _clear(self, node: Node) -> None:
        name = node.metadata.name
        for pod in tuple(self._copies.pods.values()):
            if pod.spec.node_name != name or _tolerates(pod):
                continue
            metadata = pod.metadata
            anew = metadata.deletion_timestamp is None and place_anew(pod) == Redeclare()
            word = "declared again" if anew else "forgotten"
            self._events.warning(
                subject_of("Pod", metadata), "NodeOutOfService",
                f"{word}: its node {name} is off (taint {OUT_OF_SERVICE})",
            )  # fmt: skip
            if anew:
                await self._client.redeclare_pod(
                    metadata.name, metadata.namespace, uid=metadata.uid
                )
            else:
                await self._client.delete(
                    PODS, metadata.name, metadata.namespace,
                    grace_period_seconds=0, uid=metadata.uid,
                )  # fmt: skip
            _log.warning("pod of a node that is off", pod=metadata.name, node=name, outcome=word)

    async def _take_back(self, node: Node) -> None:
        name = node.metadata.name
        confirmed = (node.metadata.annotations or {}).get(CONFIRMED_BOOT)
        boot = node.status.node_info.boot_id
        if confirmed is None or not boot:
            return  # somebody else's word: theirs to take back
        if confirmed != boot:
            document = await self._client.get(NODES, name)
            await self._client.patch(NODES, name, _without_taint(document))
            text = "it has come back with a new boot: in service again"
            self._events.normal(subject_of("Node", node.metadata), "NodeBackInService", text)
            _log.info("node in service again", node=name)
        elif (name, boot) not in self._told:
            self._told.add((name, boot))
            text = (
                "it was confirmed to be off, and has come back without a reboot: what it wrote"
                " meanwhile may have met what another node wrote. Reboot it, then check its volumes"
            )
            self._events.warning(subject_of("Node", node.metadata), "NodeWasNotOff", text)
            _log.error("node was not off", node=name)


def _has_taint(node: Node) -> bool:
    return any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints or ())


def _tolerates(pod: Pod) -> bool:
    taint = Taint(key=OUT_OF_SERVICE, effect="NoExecute")
    return any(each.key and each.tolerates(taint) for each in pod.spec.tolerations or ())


def _without_taint(document: Document) -> Document:
    taints: list[Any] = (document.get("spec") or {}).get("taints") or []
    return {
        "metadata": {
            "resourceVersion": document["metadata"]["resourceVersion"],
            "annotations": {CONFIRMED_BOOT: None},
        },
        "spec": {"taints": [each for each in taints if each["key"] != OUT_OF_SERVICE] or None},
    }
