"""Small worlds for the pure parts of the scheduler, made of the documents users write."""

import msgspec

from tests.simulation.scheduling import a_claim, a_class, a_node, a_pod, a_volume
from volagent.control.bind.match import VolumeIndex
from volagent.control.schedule.decide import Nowhere, decide_pod
from volagent.control.schedule.world import World, make_node_state
from volagent.objects.annotations import BIND_COMPLETED
from volagent.objects.pod import Pod
from volagent.objects.storage import (
    CSINode,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
)

__all__ = ["a_class", "a_claim", "a_node", "a_pod", "a_volume"]


def read(document, view, **metadata):
    """A stored object's view: with a uid, and a version."""
    own = {"uid": f"uid-{document['metadata']['name']}", "resourceVersion": "1", **metadata}
    return msgspec.convert({**document, "metadata": {**own, **document["metadata"]}}, view)


def pod_of(document):
    return read(document, Pod, namespace="default")


def node_of(document):
    status = document["status"]
    return read({**document, "status": {"allocatable": status["capacity"], **status}}, Node)


def bound(claim, volume):
    """A claim that has its volume for good."""
    annotations = {**claim["metadata"].get("annotations", {}), BIND_COMPLETED: "yes"}
    return {
        **claim,
        "metadata": {**claim["metadata"], "annotations": annotations},
        "spec": {**claim["spec"], "volumeName": volume},
        "status": {"phase": "Bound"},
    }


def make_world(  # one argument per kind of object
    nodes, *, pods=(), volumes=(), claims=(), classes=(), csi_nodes=(), refused=(), namespaces=None,
):  # fmt: skip
    """A world; a volume without a `status` is Available."""
    placed = {}
    for document in pods:
        placed.setdefault(document["spec"].get("nodeName", ""), []).append(pod_of(document))
    states = {
        document["metadata"]["name"]: make_node_state(
            node_of(document), placed.get(document["metadata"]["name"], ())
        )
        for document in nodes
    }
    index = VolumeIndex()
    for document in volumes:
        index.put(read({"status": {"phase": "Available"}, **document}, PersistentVolume))
    known = {
        document["metadata"]["name"]: read(document, PersistentVolumeClaim, namespace="default")
        for document in claims
    }
    storage_classes = {d["metadata"]["name"]: read(d, StorageClass) for d in classes}
    limits = {d["metadata"]["name"]: read(d, CSINode) for d in csi_nodes}
    labels = namespaces or {}
    return World(
        states,
        lambda namespace, name: known.get(name) if namespace == "default" else None,
        index.get,
        storage_classes.get,
        limits.get,
        lambda name: labels.get(name, {}),
        index,
        refused=lambda uid, node: (uid, node) in refused,
    )


def ask(pod, *nodes, **world):
    return decide_pod(pod_of(pod), make_world(nodes, **world))


def reason(pod, node, **world):
    """What the only node says, or "" when the pod may go there."""
    verdict = ask(pod, node, **world)
    if isinstance(verdict, Nowhere):
        head, tail = "0/1 nodes are available: ", "."
        assert verdict.message.startswith(head)
        assert verdict.message.endswith(tail)
        return verdict.message.removeprefix(head).removesuffix(tail)
    return ""
