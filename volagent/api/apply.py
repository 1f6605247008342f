"""Server-side apply over the registry: an object is made so, or made.

The rules are in `api/apply_managers.py`. A lost race is decided again on what is there now.
"""

from volagent.api import lifecycle
from volagent.api.apply_managers import Writer, apply
from volagent.api.codec import private_copy
from volagent.api.identity import checked_name
from volagent.api.refusals import forbidden, modified_meanwhile, wrong_uid
from volagent.api.registry import ATTEMPTS, Change, Made, Registry
from volagent.api.resources import traits_of
from volagent.client.contract import AlreadyExists, BadRequest, NotFound, Resource
from volagent.objects.meta import Document


class Applier:
    """Applies configurations."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def apply(
        self,
        resource: Resource,
        config: Document,
        namespace: str,
        writer: Writer,
        *,
        force: bool = False,
        may_create: bool = True,
        subresource: str = "",
        dry_run: bool = False,
    ) -> tuple[Document, bool]:
        """Make the fields so that `config` names; the object, and whether it is new.

        Raises `Conflict` for fields that others set otherwise, unless `force` is given; `Forbidden`
        when there is no such object and the caller may not create one.
        """
        traits = traits_of(resource)
        config = private_copy(config)
        metadata = lifecycle.check_envelope(traits, config, namespace)
        name = checked_name(traits, config)
        if metadata.pop("managedFields", None):
            raise BadRequest("metadata.managedFields must be nil")
        registry = self._registry

        def make(current: Document) -> Made:
            held: str = current["metadata"]["uid"]
            if metadata.get("uid", held) != held:
                raise wrong_uid(traits, name, metadata["uid"], held)
            applied = apply(
                current, config, writer, registry.now(), force=force, subresource=subresource
            )
            return applied.document, applied.managed_fields

        change = Change(make, subresource, dry_run, writer)
        for _ in range(ATTEMPTS):
            try:
                return await registry.change(traits, name, namespace, change), False
            except NotFound:
                if subresource or "uid" in metadata or "resourceVersion" in metadata:
                    raise
            if not may_create:
                raise forbidden(traits, name, "there is none yet, and the user cannot create one")
            applied = apply({}, config, writer, registry.now(), force=True)
            try:
                created = await registry.create(
                    resource,
                    config,
                    namespace,
                    dry_run=dry_run,
                    managed_fields=applied.managed_fields,
                )
            except AlreadyExists:
                continue  # somebody else made it meanwhile
            return created, True
        raise modified_meanwhile(traits, name)
