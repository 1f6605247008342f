"""Carries out the Fencings that no agent does: a lost machine is switched off by a program.

Runs on the server that leads. What is a proof is the program's word about the boot that was lost;
a machine that has booted since is left alone, because what ran there is gone, and what runs now is
nobody's business here.
"""

import asyncio

import msgspec

from volagent.aio.clock import Clock
from volagent.aio.tasks import Supervisor
from volagent.client.contract import FENCINGS, NODES, ApiError, Client, NotFound
from volagent.client.fencings import FencingWorker, Outcome
from volagent.client.shared import SharedCopies
from volagent.drivers.errors import Transient
from volagent.drivers.fencing.attempt import try_fence
from volagent.drivers.fencing.hooks import FenceHooks, Machine
from volagent.objects.fencing import HOOK, Fencing
from volagent.objects.meta import Document
from volagent.objects.storage import Node


class ServerFencing:
    """Carries out the Fencings whose executor is a server."""

    def __init__(
        self, copies: SharedCopies, client: Client, clock: Clock, hooks: FenceHooks
    ) -> None:
        """Before `copies.run`."""
        self._client = client
        self._clock = clock
        self._hooks = hooks
        self._worker: FencingWorker | None = None
        self._copies = copies
        self._fencings = copies.follow(FENCINGS, Fencing)
        self._fencings.listen(self._saw)

    async def run(self) -> None:
        """Switch off what is to be off, for ever."""
        await self._copies.wait_synced()
        async with Supervisor() as tasks:
            worker = FencingWorker(self._client, self._clock, "", self.attempt, tasks.start)
            self._worker = worker
            for fencing in tuple(self._fencings.values()):
                worker.saw(("", fencing.metadata.name), None, fencing)
            try:
                await asyncio.Event().wait()
            finally:
                self._worker = None
                worker.stop()

    def _saw(self, key: tuple[str, str], old: Fencing | None, new: Fencing | None) -> None:
        if self._worker is not None:
            self._worker.saw(key, old, new)

    async def attempt(self, fencing: Fencing) -> Outcome | None:
        """Have the machine of one lost node switched off."""
        if fencing.spec.method != HOOK:
            return None
        return Outcome(*await try_fence(self._switch_off(fencing)))

    async def _switch_off(self, fencing: Fencing) -> str:
        spec = fencing.spec
        facts: dict[str, str] = {"VOLUME": spec.volume}
        try:
            document = await self._client.get(NODES, spec.node_name)
        except NotFound:
            document = None
        except ApiError as error:
            raise Transient(f"{spec.node_name} is not known: {error.message}") from error
        if document is not None:
            boot_id = msgspec.convert(document, Node).status.node_info.boot_id
            if spec.boot_id and boot_id != spec.boot_id:
                raise Transient(
                    f"{spec.node_name} has booted since: it is not switched off",
                    remedy="its agent says what it has still",
                )
            facts |= describe_machine(document)
        return await self._hooks.switch_off(Machine(spec.node_name, spec.boot_id, facts))


def describe_machine(node: Document) -> dict[str, str]:
    """What a program may know of a Node: addresses, ids, labels and annotations as JSON. Pure."""
    status, metadata = node.get("status") or {}, node["metadata"]
    info = status.get("nodeInfo") or {}
    facts = {
        "MACHINE_ID": info.get("machineID", ""),
        "SYSTEM_UUID": info.get("systemUUID", ""),
        "PROVIDER_ID": (node.get("spec") or {}).get("providerID", ""),
        "LABELS": msgspec.json.encode(metadata.get("labels") or {}).decode(),
        "ANNOTATIONS": msgspec.json.encode(metadata.get("annotations") or {}).decode(),
    }
    for each in reversed(status.get("addresses") or ()):
        name = {"InternalIP": "INTERNAL_IP", "Hostname": "HOSTNAME"}.get(each.get("type", ""))
        if name is not None:
            facts[name] = str(each.get("address", ""))
    return facts
