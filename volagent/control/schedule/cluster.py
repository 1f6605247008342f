"""The shared copies arranged for decisions, with what was just written laid over them.

Pods are kept by node, volumes by class; a node's sums are made again only when its pods change. A
pod that was promised to a node counts there at once, and an object that was written is seen as
written, until the copies have caught up. All methods are for the event loop's thread.
"""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from volagent.client.contract import CSI_NODES, NAMESPACES
from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.control.bind.match import VolumeIndex
from volagent.control.schedule.world import (
    NO_LABELS,
    NodeState,
    World,
    is_finished,
    make_node_state,
)
from volagent.objects.meta import TypedObject
from volagent.objects.pod import Pod
from volagent.objects.storage import CSINode, Node, PersistentVolume, PersistentVolumeClaim

T = TypeVar("T", bound=TypedObject)


class Written(Generic[T]):
    """Objects as this process last wrote them, where the copies may still be older."""

    def __init__(self) -> None:
        self._objects: dict[Key, T] = {}

    def note(self, written: T) -> None:
        """The server has stored this."""
        self._objects[written.metadata.namespace, written.metadata.name] = written

    def newest(self, key: Key, seen: T | None) -> T | None:
        """What was written, unless the copies are as new: then it is forgotten."""
        written = self._objects.get(key)
        if written is None:
            return seen
        if seen is not None and _is_older(seen, written):
            return written
        del self._objects[key]
        return seen

    def over(self, key: Key, seen: T | None) -> T | None:
        """What was written, else what the copies have."""
        return self._objects.get(key, seen)


def _is_older(seen: TypedObject, written: TypedObject) -> bool:
    """Revisions are compared as numbers; a server whose revisions are none is believed at once."""
    try:
        return int(seen.metadata.resource_version) < int(written.metadata.resource_version)
    except ValueError:
        return False


class Cluster:
    """Makes the `World` for each decision."""

    def __init__(self, copies: SharedCopies) -> None:
        """Before `copies.run`."""
        self._copies = copies
        self.csi_nodes = copies.follow(CSI_NODES, CSINode)
        self._namespaces = copies.follow(NAMESPACES, TypedObject)
        self._index = VolumeIndex()
        self._claims: Written[PersistentVolumeClaim] = Written()
        self._volumes: Written[PersistentVolume] = Written()
        self._pods: dict[str, dict[Key, Pod]] = {}
        """Node → its pods that are not finished, the promised ones among them."""
        self._node_of: dict[Key, str] = {}
        self._promised: set[Key] = set()
        self._states: dict[str, NodeState] = {}
        self.taken: set[str] = set()
        """Volumes that are being reserved at this moment."""
        copies.claims.listen(self._claim_changed)
        copies.volumes.listen(self._volume_changed)
        copies.pods.listen(self._pod_changed)
        copies.nodes.listen(self._node_changed)

    def world(self, refused: Callable[[str, str], bool], *, without: Key | None = None) -> World:
        """The cluster now; `without` leaves out a promised pod that is decided on again."""
        nodes: dict[str, NodeState] = {}
        promised = self._node_of.get(without, "") if without in self._promised else ""
        for node in self._copies.nodes.values():
            name = node.metadata.name
            if name == promised:
                pods = [p for key, p in self._pods[name].items() if key != without]
                nodes[name] = make_node_state(node, pods)
                continue
            state = self._states.get(name)
            if state is None:
                held = self._pods.get(name, {}).values()
                state = self._states[name] = make_node_state(node, held)
            nodes[name] = state
        return World(
            nodes,
            self._claim,
            self._index.get,
            lambda name: self._copies.classes.get("", name),
            lambda name: self.csi_nodes.get("", name),
            self._namespace_labels,
            self._index,
            frozenset(self.taken),
            refused,
        )

    def promised_node(self, key: Key) -> str:
        """The node that a pod was promised to and has not got yet, or ""."""
        return self._node_of.get(key, "") if key in self._promised else ""

    def promise(self, key: Key, pod: Pod, node: str) -> None:
        """Count a pod on a node from now on."""
        self._take_away(key)
        self._put(key, pod, node)
        self._promised.add(key)

    def withdraw(self, key: Key) -> None:
        """A promise is off."""
        if key in self._promised:
            self._take_away(key)

    def note_claim(self, claim: PersistentVolumeClaim) -> None:
        """A claim was written like this."""
        self._claims.note(claim)

    def note_volume(self, volume: PersistentVolume) -> None:
        """A volume was written like this."""
        self._volumes.note(volume)
        self._index.put(volume)

    def _claim(self, namespace: str, name: str) -> PersistentVolumeClaim | None:
        key = (namespace, name)
        return self._claims.over(key, self._copies.claims.get(namespace, name))

    def _namespace_labels(self, name: str) -> Mapping[str, str]:
        found = self._namespaces.get("", name)
        return (found.metadata.labels if found is not None else None) or NO_LABELS

    def _claim_changed(
        self,
        key: Key,
        _old: PersistentVolumeClaim | None,
        new: PersistentVolumeClaim | None,
    ) -> None:
        self._claims.newest(key, new)

    def _volume_changed(
        self, key: Key, _old: PersistentVolume | None, new: PersistentVolume | None
    ) -> None:
        newest = self._volumes.newest(key, new)
        if newest is None:
            self._index.drop(key[1])
        else:
            self._index.put(newest)

    def _node_changed(self, key: Key, _old: Node | None, _new: Node | None) -> None:
        self._states.pop(key[1], None)

    def _pod_changed(self, key: Key, _old: Pod | None, new: Pod | None) -> None:
        if new is not None and not is_finished(new):
            if new.spec.node_name:
                self._take_away(key)
                self._put(key, new, new.spec.node_name)
            return  # one without a node is where it was promised
        self._take_away(key)

    def _put(self, key: Key, pod: Pod, node: str) -> None:
        self._pods.setdefault(node, {})[key] = pod
        self._node_of[key] = node
        self._states.pop(node, None)

    def _take_away(self, key: Key) -> None:
        self._promised.discard(key)
        node = self._node_of.pop(key, "")
        if node:
            del self._pods[node][key]
            if not self._pods[node]:
                del self._pods[node]
            self._states.pop(node, None)
