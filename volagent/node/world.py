"""The objects this node works from, as informers keep them: the only way the node reads the API."""

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
    Client,
    Selection,
)
from volagent.client.informer import Informer
from volagent.drivers.payload import NodeFacts, TokenNeed
from volagent.node.named import NamedObjects, StartTask
from volagent.objects.meta import Document
from volagent.objects.pod import Pod, read_pod
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


def _read_claim(document: Document) -> PersistentVolumeClaim:
    return msgspec.convert(document, PersistentVolumeClaim)


def _read_volume(document: Document) -> PersistentVolume:
    return msgspec.convert(document, PersistentVolume)


def _read_node(document: Document) -> Node:
    return msgspec.convert(document, Node)


@dataclass(slots=True)
class NodeWorld:
    """What the resolver looks things up in (`desired.World`)."""

    client: Client
    node_name: str
    facts: NodeFacts
    fetch_token: Callable[[Pod, TokenNeed], bytes | None]
    by_name: StartTask | None = None
    """What follows secrets and configMaps one by one; None: all of them are followed."""
    pods: Informer[Pod] = field(init=False)
    secrets: Informer[Secret] | NamedObjects[Secret] = field(init=False)
    config_maps: Informer[ConfigMap] | NamedObjects[ConfigMap] = field(init=False)
    claims: Informer[PersistentVolumeClaim] = field(init=False)
    volumes: Informer[PersistentVolume] = field(init=False)
    nodes: Informer[Node] = field(init=False)

    def __post_init__(self) -> None:
        client = self.client
        own = Selection(field_selector=f"spec.nodeName={self.node_name}")
        self.pods = Informer(client, PODS, own, read_pod)
        if self.by_name is None:
            self.secrets = Informer(client, SECRETS, Selection(), _read_secret)
            self.config_maps = Informer(client, CONFIG_MAPS, Selection(), _read_config_map)
        else:
            self.secrets = NamedObjects(client, SECRETS, _read_secret, self.by_name)
            self.config_maps = NamedObjects(client, CONFIG_MAPS, _read_config_map, self.by_name)
        self.claims = Informer(client, CLAIMS, Selection(), _read_claim)
        self.volumes = Informer(client, PERSISTENT_VOLUMES, Selection(), _read_volume)
        me = Selection(field_selector=f"metadata.name={self.node_name}")
        self.nodes = Informer(client, NODES, me, _read_node)

    @property
    def informers(self) -> tuple[tuple[str, Informer[object]], ...]:
        """All informers with a name each."""
        all_of_them = (
            ("pods", self.pods), ("secrets", self.secrets), ("configmaps", self.config_maps),
            ("claims", self.claims), ("volumes", self.volumes), ("nodes", self.nodes),
        )  # fmt: skip
        return tuple(
            (name, each)  # type: ignore[misc]  # read-only use, any type will do
            for name, each in all_of_them
            if isinstance(each, Informer)
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
