"""Carries out what `decide` says, on the storage node: volumes are shown and hidden there.

One attachment at a time, attachments side by side. What is shown and has no attachment (somebody
took the finalizer off by force) is hidden again, at the start and when an attachment vanishes.
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from volagent.aio.backoff import BackOff
from volagent.aio.queue import KeyedQueue
from volagent.aio.tasks import Supervisor
from volagent.client.contract import VOLUME_ATTACHMENTS, ApiError, Client, Conflict, NotFound
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.show.decide import Hide, Hold, Show, decide_showing
from volagent.control.show.secrets import ensure_secret, remove_secret
from volagent.drivers.errors import DriverError, Transient
from volagent.drivers.showing.contract import Peer, Shower, ShowerTable
from volagent.objects.annotations import PROVISIONED_BY
from volagent.objects.attachments import VolumeAttachment
from volagent.objects.meta import Document
from volagent.objects.storage_nodes import (
    INITIATOR,
    SHOW_ERROR,
    SHOWN,
    SHOWN_AS,
    SHOWN_BY,
    may_be_shown_by,
    storage_node_of,
)
from volagent.observe.logs import get_logger

WORKERS: Final = 8
RETRY_S: Final = 1.0
BACKEND_RETRY: Final = BackOff(first_s=1.0, max_s=60.0)
_ALL: Final = ""
"""The key under which what has no attachment is looked for."""

_log = get_logger("show")


class ShowController:
    """Shows the volumes of this storage node to the nodes that have them attached."""

    def __init__(
        self, copies: SharedCopies, client: Client, showers: ShowerTable, node: str
    ) -> None:
        """Before `copies.run`."""
        self._copies = copies
        self._client = client
        self._showers = showers
        self._node = node
        self._verified: dict[str, str] = {}
        """Attachment → its uid, when its volume was seen to be shown."""
        self._failures: dict[str, int] = {}
        self._queue: KeyedQueue[str] | None = None
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._attachments = copies.follow(VOLUME_ATTACHMENTS, VolumeAttachment)
        self._attachments.listen(self._changed)

    async def run(self) -> None:
        """Show and hide, for ever."""
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            queue = self._queue = KeyedQueue("show", self._work, tasks.start, width=WORKERS)
            queue.mark(_ALL)
            for each in tuple(self._attachments.values()):
                queue.mark(each.metadata.name)
            try:
                await asyncio.Event().wait()
            finally:
                queue.stop()

    def _changed(
        self, key: Key, old: VolumeAttachment | None, new: VolumeAttachment | None
    ) -> None:
        if self._queue is None:
            return
        if new is None or (old is not None and old.metadata.uid != new.metadata.uid):
            self._verified.pop(key[1], None)
            if old is not None and may_be_shown_by(old) == self._node:
                self._queue.mark(_ALL)
        if new is not None:
            self._queue.mark(key[1])

    # -- work --------------------------------------------------------------------------------

    async def _work(self, name: str) -> float | None:
        try:
            if name == _ALL:
                await self._hide_strays()
            else:
                await self._work_on(name)
        except (Conflict, NotFound):
            return RETRY_S  # it changed meanwhile; the change may have been seen already
        except ApiError as error:
            _log.warning("showing interrupted", attachment=name, error=error.message)
            return RETRY_S
        except DriverError as error:
            return await self._failed(name, error)
        self._failures.pop(name, None)
        return None

    async def _work_on(self, name: str) -> None:
        seen = self._attachments.get("", name)
        if seen is None or self._decide(seen) is None:
            return
        # Decided again on what the server has: nothing is shown on a copy's word.
        document = await self._client.get(VOLUME_ATTACHMENTS, name)
        attachment = msgspec.convert(document, VolumeAttachment)
        match self._decide(attachment):
            case Hold():
                await self._write(document, {SHOWN_BY: self._node}, held=True)
            case Show(told):
                shown_as = await self._show(attachment)
                self._verified[name] = attachment.metadata.uid
                if not told:
                    await self._write(document, {SHOWN_AS: shown_as, SHOW_ERROR: None}, held=True)
                _log.info("volume shown", volume=_volume_of(attachment), shown_as=shown_as,
                          node=attachment.spec.node_name)  # fmt: skip
            case Hide():
                evidence = await self._hide(_volume_of(attachment), attachment.spec.node_name)
                self._verified.pop(name, None)
                gone = {SHOWN_BY: None, SHOWN_AS: None, SHOW_ERROR: None}
                await self._write(document, gone, held=False)
                _log.info("volume hidden", volume=_volume_of(attachment), evidence=evidence,
                          node=attachment.spec.node_name)  # fmt: skip
            case None:
                return

    def _decide(self, attachment: VolumeAttachment) -> Hold | Show | Hide | None:
        metadata = attachment.metadata
        verified = self._verified.get(metadata.name) == metadata.uid
        return decide_showing(attachment, self._node, verified=verified)

    async def _write(
        self, document: Document, annotations: Mapping[str, str | None], *, held: bool
    ) -> None:
        metadata = document["metadata"]
        finalizers = [each for each in metadata.get("finalizers") or () if each != SHOWN]
        change = {
            "resourceVersion": metadata["resourceVersion"],
            "annotations": annotations,
            "finalizers": [*finalizers, SHOWN] if held else finalizers or None,
        }
        await self._client.patch(VOLUME_ATTACHMENTS, metadata["name"], {"metadata": change})

    async def _show(self, attachment: VolumeAttachment) -> str:
        volume, node = _volume_of(attachment), attachment.spec.node_name
        shower = self._shower_of(volume)
        async with self._turn(volume):
            credentials = await shower.fetch_credentials(volume)
            if credentials:
                await ensure_secret(self._client, volume, self._node, credentials)
            return await shower.show(volume, self._peer(node))

    def _shower_of(self, volume: str) -> Shower:
        found = self._copies.volumes.get("", volume)
        if found is None or storage_node_of(found.metadata) != self._node:
            raise Transient(f"the PersistentVolume {volume} is not known here, or not of this node")
        maker = (found.metadata.annotations or {}).get(PROVISIONED_BY, "")
        if maker not in self._showers:
            raise Transient(
                f"nothing here shows volumes of {maker}",
                remedy="is it switched on in the settings, section [storage]?",
            )
        return self._showers[maker]

    def _peer(self, name: str) -> Peer:
        found = self._copies.nodes.get("", name)
        if found is None:
            raise Transient(f"node {name} is not known")
        initiator = (found.metadata.annotations or {}).get(INITIATOR, "")
        for other in self._copies.nodes.values():
            if initiator and other.metadata.name != name and (
                (other.metadata.annotations or {}).get(INITIATOR) == initiator
            ):  # fmt: skip
                raise Transient(
                    f"nodes {name} and {other.metadata.name} have the same initiator's name,"
                    f" {initiator}: who lets one in lets both in",
                    remedy="give one another in /etc/iscsi/initiatorname.iscsi and restart its"
                    " iscsid and agent; was a machine cloned?",
                )
        addresses = tuple(
            each.address for each in found.status.addresses or () if each.type == "InternalIP"
        )
        return Peer(name, initiator, addresses)

    async def _hide(self, volume: str, node: str) -> str:
        """Wherever it may be shown: what made the volume may not be known any more.

        Its Secret goes with the last node, also when an earlier try had hidden the volume already.
        """
        said: list[str] = []
        others: set[str] = set()
        async with self._turn(volume):
            for shower in self._showers.values():
                nodes = set((await shower.list_shown()).get(volume, ()))
                others |= nodes - {node}
                if node in nodes:
                    said.append(await shower.hide(volume, node))
            if not others:
                await remove_secret(self._client, volume, self._node)
        return "; ".join(said) or "it was not shown"

    def _turn(self, volume: str) -> asyncio.Lock:
        """Of a volume's Secret: that of a first node and that of a last one must not cross."""
        return self._turns.setdefault(volume, asyncio.Lock())

    async def _hide_strays(self) -> None:
        """What is shown without an attachment that says so.

        The attachments are asked for after what is shown: each is held before its volume is shown.
        """
        shown = {
            (volume, node)
            for shower in self._showers.values()
            for volume, nodes in (await shower.list_shown()).items()
            for node in nodes
        }
        if not shown:
            return
        found = (await self._client.list(VOLUME_ATTACHMENTS)).items
        attachments = [msgspec.convert(each, VolumeAttachment) for each in found]
        held = {
            (_volume_of(each), each.spec.node_name)
            for each in attachments
            if may_be_shown_by(each) == self._node
        }
        for volume, node in sorted(shown - held):
            evidence = await self._hide(volume, node)
            _log.warning("volume hidden, it was attached no more", volume=volume, node=node,
                         evidence=evidence)  # fmt: skip

    async def _failed(self, name: str, error: DriverError) -> float:
        """Say it on the attachment, where the server tells the pods, and try again later."""
        count = self._failures[name] = self._failures.get(name, 0) + 1
        text = f"{error}; {error.remedy}" if error.remedy else str(error)
        _log.warning("storage node failed", attachment=name, error=text)
        seen = self._attachments.get("", name)
        if seen is not None and (seen.metadata.annotations or {}).get(SHOW_ERROR) != text:
            change = {"metadata": {"annotations": {SHOW_ERROR: text}}}
            try:
                await self._client.patch(VOLUME_ATTACHMENTS, name, change)
            except ApiError as failure:
                _log.warning("failure not noted", attachment=name, error=failure.message)
        return BACKEND_RETRY.delay_s(count, random.random())


def _volume_of(attachment: VolumeAttachment) -> str:
    return attachment.spec.source.persistent_volume_name or ""
