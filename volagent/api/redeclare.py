"""Puts a pod's successor in its place, when its node is lost: see `Client.redeclare_pod`.

One compare-and-swap: there is no moment with two pods of the name, nor with none.
"""

from volagent.api.identity import make_uid
from volagent.api.placement import redeclare_pod
from volagent.api.reading import key_of
from volagent.api.refusals import (
    STORE_ERRORS,
    modified_meanwhile,
    namespace_ending,
    not_found,
    wrong_uid,
)
from volagent.api.registry import ATTEMPTS, Registry
from volagent.api.resources import traits_of
from volagent.client.contract import PODS
from volagent.objects.meta import Document
from volagent.store.contract import Mismatch


class Redeclarer:
    """Declares pods of a registry again."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def redeclare(self, name: str, namespace: str, uid: str) -> Document:
        """The new pod. Raises `Conflict`, `NotFound`."""
        registry, traits = self._registry, traits_of(PODS)
        key = key_of(traits, namespace, name)
        for _ in range(ATTEMPTS):
            with STORE_ERRORS:
                stored = await registry.store.get(key)
            if stored is None:
                raise not_found(traits, name)
            old = registry.codec.decode(stored)
            if uid != old["metadata"]["uid"]:
                raise wrong_uid(traits, name, uid, old["metadata"]["uid"])
            if namespace in registry.ending_namespaces:
                raise namespace_ending(traits, name, namespace)
            new = redeclare_pod(old, make_uid(registry.entropy), registry.now())
            try:
                return await registry.replace(traits, stored, new)
            except Mismatch:
                continue
        raise modified_meanwhile(traits, name)
