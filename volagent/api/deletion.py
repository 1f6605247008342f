"""DELETE over a store: at once, after grace, or when the finalizers are gone.

What is to happen is decided by `lifecycle.decide_deletion` (pure) on what is stored, carried out by
compare-and-swap, and decided again when the object changed meanwhile.
"""

from volagent.api import lifecycle
from volagent.api.lifecycle import Mark, Remove, Wait
from volagent.api.reading import key_of
from volagent.api.refusals import (
    STORE_ERRORS,
    deletion_status,
    forbidden,
    modified_meanwhile,
    not_found,
    wrong_revision,
    wrong_uid,
)
from volagent.api.registry import ATTEMPTS, Registry
from volagent.api.resources import Traits, traits_of
from volagent.client.contract import NAMESPACES, Resource
from volagent.objects.meta import Document
from volagent.store.contract import Mismatch, Stored

PERMANENT_NAMESPACES = ("default", "kube-system", "kube-node-lease")
"""Made at the first start; cannot be deleted."""

_NAMESPACE_TRAITS = traits_of(NAMESPACES)


class Deleter:
    """Deletes a registry's objects."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        grace_period_seconds: int | None = None,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> Document:
        """Delete an object, or mark it as going; see `Client.delete`."""
        traits = traits_of(resource)
        registry = self._registry
        if traits.resource is NAMESPACES and name in PERMANENT_NAMESPACES:
            raise forbidden(traits, name, "this namespace may not be deleted")
        key = key_of(traits, namespace, name)
        for _ in range(ATTEMPTS):
            with STORE_ERRORS:
                stored = await registry.store.get(key)
            if stored is None:
                raise not_found(traits, name)
            document = registry.codec.decode(stored)
            _check_preconditions(traits, document, uid, resource_version)
            decision = lifecycle.decide_deletion(
                traits, document, grace_period_seconds, registry.clock.wall()
            )
            try:
                return await self._carry_out(traits, stored, document, decision, dry_run)
            except Mismatch:
                continue
        raise modified_meanwhile(traits, name)

    async def finalize_namespace(self, name: str) -> None:
        """Let an emptied namespace go."""
        key = key_of(_NAMESPACE_TRAITS, "", name)
        for _ in range(ATTEMPTS):
            with STORE_ERRORS:
                stored = await self._registry.store.get(key)
            if stored is None:
                return
            document = self._registry.codec.decode(stored)
            document.get("spec", {}).pop("finalizers", None)
            try:
                await self._registry.replace(_NAMESPACE_TRAITS, stored, document)
            except Mismatch:
                continue
            return

    async def _carry_out(
        self,
        traits: Traits,
        stored: Stored,
        document: Document,
        decision: lifecycle.Deletion,
        dry_run: bool,
    ) -> Document:
        match decision:
            case Wait():
                return document
            case Mark(marked):
                if dry_run:
                    return marked
                if traits.resource is NAMESPACES:
                    return await self._end_namespace(stored, marked)
                return await self._registry.replace(traits, stored, marked)
            case Remove():
                if not dry_run:
                    await self._registry.remove(traits, stored, document)
                if traits.returns_deleted:
                    return document
                metadata = document["metadata"]
                return deletion_status(traits, metadata["name"], metadata["uid"])

    async def _end_namespace(self, stored: Stored, marked: Document) -> Document:
        # Creating there stops now, before the mark is durable: what was let in before is committed
        # before it, so that the emptying, which begins after it, finds everything.
        name = marked["metadata"]["name"]
        ending = self._registry.ending_namespaces
        ending.add(name)
        try:
            answer = await self._registry.replace(_NAMESPACE_TRAITS, stored, marked)
        except BaseException:
            ending.discard(name)
            raise
        self._registry.on_removed(name)
        return answer


def _check_preconditions(
    traits: Traits, document: Document, uid: str, resource_version: str
) -> None:
    metadata = document["metadata"]
    name = metadata["name"]
    if uid and uid != metadata["uid"]:
        raise wrong_uid(traits, name, uid, metadata["uid"])
    if resource_version not in ("", metadata["resourceVersion"]):
        raise wrong_revision(traits, name, resource_version, metadata["resourceVersion"])
