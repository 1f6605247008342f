"""The Secret with which nodes log in to a volume: there while the volume is shown to anybody."""

from collections.abc import Mapping

from volagent.client.contract import SECRETS, AlreadyExists, Client, NotFound
from volagent.objects.storage_nodes import CHAP_NAMESPACE, chap_secret


async def ensure_secret(
    client: Client, volume: str, storage_node: str, values: Mapping[str, str]
) -> None:
    """Have a volume's credentials where nodes that have the volume read them. Raises `ApiError`."""
    name = chap_secret(volume, storage_node)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": CHAP_NAMESPACE},
        "type": "kubernetes.io/iscsi-chap",
        "stringData": dict(values),
    }
    try:
        await client.create(SECRETS, secret, CHAP_NAMESPACE)
    except AlreadyExists:
        change = {"stringData": dict(values)}
        await client.patch(SECRETS, name, change, CHAP_NAMESPACE)


async def remove_secret(client: Client, volume: str, storage_node: str) -> None:
    """Nobody logs in any more; gone is a success. Raises `ApiError`."""
    try:
        await client.delete(SECRETS, chap_secret(volume, storage_node), CHAP_NAMESPACE)
    except NotFound:
        return
