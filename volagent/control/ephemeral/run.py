"""Makes the claims of generic ephemeral volumes and deletes them when their pods are gone.

A claim is deleted only when the server itself says that none of its owners is there any more, and
then by its uid. That a pod which still runs keeps its claim is the work of pvc-protection.
"""

import asyncio

from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import CLAIMS, PODS, AlreadyExists, ApiError, Client, NotFound
from volagent.client.events import EventRecorder, subject_of
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.ephemeral.decide import Make, Refuse, decide_volume, owners_of
from volagent.objects.pod import Pod
from volagent.objects.pod_claims import ephemeral_claim_name
from volagent.objects.storage import PersistentVolumeClaim
from volagent.observe.logs import get_logger

WORKERS = 8
RETRY_S = 5.0
_POD, _CLAIM = "pod", "claim"

_log = get_logger("ephemeral")


class EphemeralController:
    """Looks after claims that live with a pod."""

    def __init__(self, copies: SharedCopies, client: Client, events: EventRecorder) -> None:
        self._copies = copies
        self._client = client
        self._events = events
        self._queue: KeyedQueue[tuple[str, Key]] | None = None
        copies.pods.listen(self._pod_changed)
        copies.claims.listen(self._claim_changed)

    async def run(self) -> None:
        """Make and delete claims, for ever."""
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue("ephemeral", self._work, tasks.start, width=WORKERS)
            for pod in self._copies.pods.values():
                self._pod_changed((pod.metadata.namespace, pod.metadata.name), None, pod)
            for claim in self._copies.claims.values():
                key = (claim.metadata.namespace, claim.metadata.name)
                self._claim_changed(key, None, claim)
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    def _pod_changed(self, key: Key, old: Pod | None, new: Pod | None) -> None:
        queue, pod = self._queue, new or old
        if queue is None or pod is None:
            return
        for volume in pod.spec.volumes or ():
            if volume.ephemeral is None:
                continue
            if new is not None:
                queue.mark((_POD, key))
            else:
                name = ephemeral_claim_name(key[1], volume.name)
                queue.mark((_CLAIM, (key[0], name)))

    def _claim_changed(
        self, key: Key, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None
    ) -> None:
        claim = new or old
        if self._queue is None or claim is None:
            return
        for name, _uid in owners_of(claim):
            if new is None:
                self._queue.mark((_POD, (key[0], name)))
            elif old is None:
                self._queue.mark((_CLAIM, key))

    async def _work(self, item: tuple[str, Key]) -> float | None:
        kind, key = item
        try:
            if kind == _POD:
                await self._make_claims(key)
            else:
                await self._delete_orphan(key)
        except ApiError as error:
            _log.warning("ephemeral claim not settled", key=key, error=error.message)
            return RETRY_S
        return None

    async def _make_claims(self, key: Key) -> None:
        pod = self._copies.pods.get(*key)
        if pod is None:
            return
        for volume in pod.spec.volumes or ():
            name = ephemeral_claim_name(key[1], volume.name)
            step = decide_volume(pod, volume, self._copies.claims.get(key[0], name))
            match step:
                case Make(name, document):
                    await self._make(pod, name, document)
                case Refuse(_, message):
                    subject = subject_of("Pod", pod.metadata)
                    self._events.warning(subject, "FailedBinding", message)
                case None:
                    continue

    async def _make(self, pod: Pod, name: str, document: dict[str, object]) -> None:
        try:
            await self._client.create(CLAIMS, document, pod.metadata.namespace)
        except AlreadyExists:
            return  # its arrival in the copy marks the pod again if it is another's
        except ApiError as error:
            text = f"ephemeral volume controller: create PVC {name}: {error.message}"
            self._events.warning(subject_of("Pod", pod.metadata), "FailedCreate", text)
            raise
        _log.info("ephemeral claim made", pod=pod.metadata.name, claim=name)

    async def _delete_orphan(self, key: Key) -> None:
        claim = self._copies.claims.get(*key)
        owners = owners_of(claim) if claim is not None else []
        if claim is None or not owners or claim.metadata.deletion_timestamp is not None:
            return
        for name, uid in owners:
            if await self._is_there(key[0], name, uid):
                return
        try:
            await self._client.delete(CLAIMS, key[1], key[0], uid=claim.metadata.uid)
        except NotFound:
            return
        _log.info("ephemeral claim deleted with its pod", claim=key[1], namespace=key[0])

    async def _is_there(self, namespace: str, name: str, uid: str) -> bool:
        """Whether an owner exists, by the server's own word."""
        try:
            pod = await self._client.get(PODS, name, namespace)
        except NotFound:
            return False
        return bool(pod["metadata"]["uid"] == uid)
