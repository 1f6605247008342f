"""What the registry must know of nodes to place simple pods itself, from the shared copies.

It may lag behind by a moment: a pod that is placed on a node which was cordoned in this very moment
came before the cordon. All methods are for the event loop's thread.
"""

from volagent.client.informer import Key
from volagent.client.shared import SharedCopies
from volagent.objects.pod import Pod
from volagent.objects.quantity import QuantityError, parse_quantity
from volagent.objects.storage import Node


class NodesAround:
    """Knows the only node, while there is just one and it can take any pod."""

    def __init__(self, copies: SharedCopies) -> None:
        """Before `copies.run`: from then on it hears of every pod."""
        self._nodes = copies.nodes
        self._placed: set[Key] = set()
        """Pods that have a node and are not finished."""
        self._repelling: set[Key] = set()
        """Those of them whose required anti-affinity keeps others away."""
        copies.pods.listen(self._pod_changed)

    def only_node(self) -> Node | None:
        """The node on which a pod that asks for nothing can go without being compared, or None."""
        nodes = self._nodes.values()
        if len(nodes) != 1 or self._repelling:
            return None
        node = next(iter(nodes))
        return node if len(self._placed) < _pods_limit(node) else None

    def _pod_changed(self, key: Key, _old: Pod | None, new: Pod | None) -> None:
        counts = (
            new is not None
            and bool(new.spec.node_name)
            and new.status.phase not in ("Succeeded", "Failed")
        )
        _keep(self._placed, key, wanted=counts)
        _keep(self._repelling, key, wanted=counts and new is not None and _repels(new))


def _keep(keys: set[Key], key: Key, *, wanted: bool) -> None:
    if wanted:
        keys.add(key)
    else:
        keys.discard(key)


def _repels(pod: Pod) -> bool:
    affinity = pod.spec.affinity
    anti = affinity.pod_anti_affinity if affinity is not None else None
    return anti is not None and bool(anti.required)


def _pods_limit(node: Node) -> float:
    amount = (node.status.allocatable or {}).get("pods")
    if amount is None:
        return float("inf")
    try:
        return float(parse_quantity(amount))
    except QuantityError:
        return float("inf")  # refused when it was declared; nothing is known of it
