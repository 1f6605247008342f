"""The objects this node works from, as informers keep them: the only way the node reads the API.

What controllers of this process follow as well is one copy, listed and watched once. The node runs
its informers, since it begins before the others do.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import msgspec

from volagent.client.contract import (
    CLAIMS,
    CONFIG_MAPS,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
    Selection,
)
from volagent.client.informer import Informer
from volagent.client.shared import Followed, SharedCopies
from volagent.drivers.payload import NodeFacts, TokenNeed
from volagent.node.named import NamedObjects, StartTask
from volagent.objects.meta import Document
from volagent.objects.pod import Pod
from volagent.objects.references import Reference
from volagent.objects.storage import (
    ConfigMap,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Secret,
)


def _read_secret(document: Document) -> Secret:
    return msgspec.convert(document, Secret)


def _read_config_map(document: Document) -> ConfigMap:
    return msgspec.convert(document, ConfigMap)


@dataclass(slots=True)
class NodeWorld:
    """What the resolver looks things up in (`desired.World`)."""

    copies: SharedCopies
    node_name: str
    facts: NodeFacts
    fetch_token: Callable[[Pod, TokenNeed], bytes | None]
    by_name: StartTask | None = None
    """What follows secrets and configMaps one by one; None: all of them are followed."""
    pods: Followed[Pod] = field(init=False)
    secrets: Followed[Secret] | NamedObjects[Secret] = field(init=False)
    config_maps: Followed[ConfigMap] | NamedObjects[ConfigMap] = field(init=False)
    claims: Followed[PersistentVolumeClaim] = field(init=False)
    volumes: Followed[PersistentVolume] = field(init=False)
    nodes: Followed[Node] = field(init=False)
    """This node's Node, and others where somebody else asks for them."""

    def __post_init__(self) -> None:
        copies = self.copies
        own = Selection(field_selector=f"spec.nodeName={self.node_name}")
        self.pods = copies.lend(PODS, Pod, own)
        if self.by_name is None:
            self.secrets = copies.lend(SECRETS, Secret)
            self.config_maps = copies.lend(CONFIG_MAPS, ConfigMap)
        else:
            self.secrets = NamedObjects(copies.client, SECRETS, _read_secret, self.by_name)
            self.config_maps = NamedObjects(
                copies.client, CONFIG_MAPS, _read_config_map, self.by_name
            )
        self.claims = copies.lend(CLAIMS, PersistentVolumeClaim)
        self.volumes = copies.lend(PERSISTENT_VOLUMES, PersistentVolume)
        self.nodes = copies.lend(NODES, Node)

    @property
    def informers(self) -> tuple[tuple[str, Informer[object]], ...]:
        """All informers with a name each."""
        all_of_them = (
            ("pods", self.pods), ("secrets", self.secrets), ("configmaps", self.config_maps),
            ("claims", self.claims), ("volumes", self.volumes), ("nodes", self.nodes),
        )  # fmt: skip
        return tuple(
            (name, each.informer)  # type: ignore[misc]  # read-only use, any type will do
            for name, each in all_of_them
            if isinstance(each, Followed)
        )

    def follow(self, references: Collection[Reference]) -> None:
        """What pods refer to now: secrets and configMaps that are read by name."""
        for kind, objects in (("Secret", self.secrets), ("ConfigMap", self.config_maps)):
            if isinstance(objects, NamedObjects):
                objects.follow([(space, name) for each, space, name in references if each == kind])

    async def read_named(self, references: Collection[Reference]) -> None:
        """Follow these, and wait until each that is read by name has been read once."""
        self.follow(references)
        for objects in (self.secrets, self.config_maps):
            if isinstance(objects, NamedObjects):
                await objects.wait_synced()

    def claim(self, namespace: str, name: str) -> PersistentVolumeClaim | None:
        """A claim."""
        return self.claims.get(namespace, name)

    def volume(self, name: str) -> PersistentVolume | None:
        """A persistent volume."""
        return self.volumes.get("", name)

    def secret(self, namespace: str, name: str) -> Secret | None:
        """A secret."""
        return self.secrets.get(namespace, name)

    def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        """A configMap."""
        return self.config_maps.get(namespace, name)

    def token(self, pod: Pod, need: TokenNeed) -> bytes | None:
        """A service account token, or None while it is being fetched."""
        return self.fetch_token(pod, need)

    def node_labels(self) -> Mapping[str, str]:
        """This node's labels; its hostname even before the Node object is here."""
        node = self.nodes.get("", self.node_name)
        labels = (node.metadata.labels if node is not None else None) or {}
        return {"kubernetes.io/hostname": self.node_name, **labels}

    def node_facts(self) -> NodeFacts:
        """What downwardAPI may tell about this node."""
        return self.facts
