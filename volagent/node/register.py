"""The Node object of this VM: made at start, its status kept true.

`status.volumesInUse` changes with every volume that has a device; writes are gathered so that a
burst of volumes costs one, but a disk that several nodes can reach waits for its being written, and
so nobody else waits then. Of the node's own parts only this one writes the Node. What a Node says
of another boot of the machine permits nothing: that boot may have been lost and its disks taken.
"""

import asyncio
import os
import platform
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psutil

from volagent import __version__
from volagent.aio.breakable import Breakable
from volagent.aio.clock import Clock, format_time
from volagent.client.contract import (
    CSI_NODES,
    NODES,
    AlreadyExists,
    ApiError,
    Client,
    Conflict,
)
from volagent.client.informer import Key
from volagent.drivers.contract import VolumeKey
from volagent.drivers.errors import DriverError
from volagent.node.attachment import AttachmentGate
from volagent.objects.meta import Document
from volagent.objects.storage import Node, NodeStatus
from volagent.observe.logs import get_logger

GATHER_S = 0.1
_NO_LABELS: Mapping[str, str] = {}
RETRY_S = 5.0
LOCATE_RETRY_S = 15.0

_log = get_logger("node")


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where in a cloud this machine is."""

    labels: Mapping[str, str]
    provider_id: str
    """What the cloud calls it, for `spec.providerID`."""


@dataclass(frozen=True, slots=True)
class NodeExtras:
    """What is told of the Node beyond what this machine knows by itself."""

    fetch_whereabouts: Callable[[], Awaitable[Whereabouts]] | None = None
    """Whoever knows; may fail with a `DriverError` and is then asked again."""
    limits: Mapping[str, str] = field(default_factory=dict)
    """Resources beyond processors and memory, such as places for disks."""
    csi_drivers: Mapping[str, int | None] = field(default_factory=dict)
    """Drivers for the CSINode, and how many of their volumes the node takes, where known."""


class NodeReporter:
    """Registers the node and writes its status."""

    def __init__(
        self,
        client: Client,
        name: str,
        clock: Clock,
        gate: AttachmentGate,
        find_in_use: Callable[[], list[str]],
        go_on: Callable[[set[VolumeKey]], None],
        *,
        boot_id: str = "",
    ) -> None:
        """`go_on` is told which volumes have got their permission; `boot_id` "": this kernel's."""
        self._client = client
        self._name = name
        self._clock = clock
        self._gate = gate
        self._find_in_use = find_in_use
        self._go_on = go_on
        self._boot_id = boot_id or read_boot_id()
        self._known: Node | None = None
        self._changed = asyncio.Event()
        self._hurry = asyncio.Event()
        self._registered = asyncio.Event()
        self._writing = Breakable()

    def touch(self) -> None:
        """The volumes that must not be detached from this node may have changed."""
        self._changed.set()

    def hurry(self) -> None:
        """They have, and somebody waits for its being written."""
        self._changed.set()
        self._hurry.set()

    def saw(self, key: Key, _old: Node | None, new: Node | None) -> None:
        """Another version of this node's Node; those of others say nothing about this one."""
        if key[1] != self._name:
            return
        if new is None or int(new.metadata.resource_version) > self._gate.version:
            self._known = new
            self._go_on(self._gate.observe(self._in_this_boot(new)))
            if self._is_behind():
                self.hurry()  # a disk was attached that pods wait for

    def resume(self, document: Document) -> None:
        """After a silence: only this Node, read since, says what may be touched."""
        self._writing.break_off()
        self._known = None
        self._gate.forget()
        self._take(document)
        self.hurry()

    async def register(
        self,
        more_labels: Mapping[str, str] = _NO_LABELS,
        annotations: Mapping[str, str] = _NO_LABELS,
    ) -> None:
        """Make the Node when it is missing, and set its labels. Raises `ApiError`."""
        labels = {
            "kubernetes.io/hostname": self._name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _architecture(),
            **more_labels,
        }
        node: Document = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self._name, "labels": labels, "annotations": dict(annotations),
            },
        }  # fmt: skip
        try:
            await self._client.create(NODES, node)
        except AlreadyExists:
            if more_labels or annotations:
                given = {"labels": dict(more_labels), "annotations": dict(annotations)}
                change = {"metadata": {name: each for name, each in given.items() if each}}
                await self._client.patch(NODES, self._name, change)
        self._registered.set()

    async def _locate(self, fetch_whereabouts: Callable[[], Awaitable[Whereabouts]]) -> None:
        await self._registered.wait()
        while True:
            try:
                found = await fetch_whereabouts()
                change: Document = {
                    "metadata": {"labels": dict(found.labels)},
                    "spec": {"providerID": found.provider_id},
                }
                await self._client.patch(NODES, self._name, change)
            except (ApiError, DriverError) as error:
                _log.warning("node not located", error=str(error), retry_s=LOCATE_RETRY_S)
                await asyncio.sleep(LOCATE_RETRY_S)
            else:
                _log.info("node located", machine=found.provider_id, labels=dict(found.labels))
                return

    async def run(
        self, start: Callable[[str, Coroutine[Any, Any, None]], object], extras: NodeExtras
    ) -> None:
        """Write the facts, then the volumes in use whenever they changed, for ever."""
        if extras.fetch_whereabouts is not None:
            start("whereabouts of the node", self._locate(extras.fetch_whereabouts))
        await self._registered.wait()
        await self._try(self._write_facts, extras.limits)
        await self._try(self._write_drivers, extras.csi_drivers)
        self._changed.set()
        while True:
            await self._changed.wait()
            await self._gather()
            self._changed.clear()
            self._hurry.clear()
            await self._try(self._write_in_use)

    async def _gather(self) -> None:
        """Let a burst of changes become one write, unless somebody waits for it."""
        try:
            await asyncio.wait_for(self._hurry.wait(), GATHER_S)
        except TimeoutError:
            return

    async def _try(self, write: Callable[..., Awaitable[None]], *what: Any) -> None:
        while True:
            try:
                await self._writing.wait(write(*what))
            except Conflict:
                self._known = None
            except TimeoutError:
                continue  # the way to the server was cut, and is whole again
            except ApiError as error:
                _log.warning("node status not written", error=error.message)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _write_facts(self, limits: Mapping[str, str]) -> None:
        """With the volumes in use: whoever reads `bootID` may rely on those."""
        node = await self._client.get(NODES, self._name)
        self._take(node)
        now = format_time(self._clock.wall())
        status = describe_node(self._name, now, self._boot_id)
        status["capacity"] = {**status["capacity"], **limits}
        status["allocatable"] = {**status["allocatable"], **limits}
        old = node.get("status", {}).get("conditions", [])
        if old and old[0].get("status") == "True":
            status["conditions"][0]["lastTransitionTime"] = old[0].get("lastTransitionTime")
        await self._write(status)

    async def _write_drivers(self, drivers: Mapping[str, int | None]) -> None:
        spec = {
            "drivers": [_describe_driver(self._name, *each) for each in sorted(drivers.items())]
        }
        document: Document = {
            "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
            "metadata": {"name": self._name}, "spec": spec,
        }  # fmt: skip
        try:
            await self._client.create(CSI_NODES, document)
        except AlreadyExists:
            await self._client.patch(CSI_NODES, self._name, {"spec": spec})

    async def _write_in_use(self) -> None:
        """Only in the version that was read: see `objects/attachments.py`."""
        if self._known is None:
            self._take(await self._client.get(NODES, self._name))
        assert self._known is not None
        if self._is_behind():
            await self._write({})

    async def _write(self, status: Document) -> None:
        assert self._known is not None
        names = self._find_in_use()
        self._gate.begin_write(names)
        change = {
            "metadata": {"resourceVersion": self._known.metadata.resource_version},
            "status": {**status, "volumesInUse": names or None},
        }
        self._take(await self._client.patch(NODES, self._name, change, subresource="status"))

    def _is_behind(self) -> bool:
        known = self._known
        return known is None or (known.status.volumes_in_use or []) != self._find_in_use()

    def _take(self, document: Document) -> None:
        node = msgspec.convert(document, Node)
        known = self._known
        if known is None or int(node.metadata.resource_version) > int(
            known.metadata.resource_version
        ):
            self._known = node
        self._go_on(self._gate.observe(self._in_this_boot(node)))

    def _in_this_boot(self, node: Node | None) -> Node | None:
        if node is None or node.status.node_info.boot_id == self._boot_id:
            return node
        return msgspec.structs.replace(node, status=NodeStatus())


def _describe_driver(node: str, driver: str, limit: int | None) -> Document:
    document: Document = {
        "name": driver, "nodeID": node, "topologyKeys": ["kubernetes.io/hostname"],
    }  # fmt: skip
    return document if limit is None else {**document, "allocatable": {"count": limit}}


def describe_node(name: str, now: str, boot_id: str) -> Document:
    """The status of this VM: capacity, addresses, facts."""
    memory_ki = psutil.virtual_memory().total // 1024
    capacity = {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory_ki}Ki",
        "pods": "10000",
    }
    ready = {
        "type": "Ready", "status": "True", "reason": "VolagentReady",
        "message": "volagent is serving volumes", "lastTransitionTime": now,
    }  # fmt: skip
    return {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [ready],
        "addresses": [
            *({"type": "InternalIP", "address": address} for address in _addresses()),
            {"type": "Hostname", "address": name},
        ],
        "nodeInfo": {
            "kernelVersion": platform.release(),
            "osImage": _os_image(),
            "architecture": _architecture(),
            "operatingSystem": "linux",
            "kubeletVersion": f"volagent-{__version__}",
            "bootID": boot_id,
            "machineID": read_machine_id(),
            "systemUUID": "",
            "containerRuntimeVersion": "",
            "kubeProxyVersion": "",
        },
    }


def read_boot_id() -> str:
    """The kernel's id of this boot."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def read_machine_id() -> str:
    """systemd's id of this installation, or "" where there is none."""
    try:
        with open("/etc/machine-id") as file:
            return file.read().strip()
    except OSError:
        return ""


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _addresses() -> list[str]:
    return [
        address.address
        for interface, addresses in psutil.net_if_addrs().items()
        if interface != "lo"
        for address in addresses
        if address.family == socket.AF_INET
    ]


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"
