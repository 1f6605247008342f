"""What the API asks of its own process, for the `node.volagent.dev` paths."""

from typing import Protocol

from volagent.objects.meta import Document


class NodeView(Protocol):
    """Read-only questions to the node; each answer is a JSON document.

    Every method answers from memory at once; a failure is an `ApiError`.
    """

    def explain(self, namespace: str, name: str) -> Document:
        """Why a pod's volumes are where they are, step by step. Raises `NotFound`."""

    def mounts(self, namespace: str, name: str) -> Document:
        """The OCI mounts of each container of a pod. Raises `NotFound`."""

    def plan(self, document: Document) -> Document:
        """The steps that declaring this Pod would lead to; nothing is done."""

    def status(self) -> Document:
        """The node at a glance."""


class PlacementView(Protocol):
    """Answers for pods that no node has yet."""

    def explain(self, namespace: str, name: str) -> Document | None:
        """Why a pod has no node; None for one that has, or that is not known."""


class AttachmentView(Protocol):
    """Answers for pods that have a node, by what the server knows."""

    def explain(self, namespace: str, name: str) -> Document | None:
        """How far a pod is; None for one without a node, or that is not known."""

    def complete(self, namespace: str, name: str, document: Document) -> None:
        """Add to a node's own explanation why it waits for disks."""
