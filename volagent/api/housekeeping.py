"""What the API does by itself: the first namespaces, the end of namespaces, the expiry of Events.

Level-triggered: `run` looks at what is there whenever something may have changed, so that a
restart in the middle of ending a namespace just goes on. One coarse timer serves all expiries.
"""

import asyncio
from collections import deque
from datetime import datetime, timedelta

from volagent.aio.clock import Clock, parse_time
from volagent.api.deletion import PERMANENT_NAMESPACES, Deleter
from volagent.api.reading import Reader, key_of
from volagent.api.refusals import STORE_ERRORS
from volagent.api.registry import Registry
from volagent.api.resources import TRAITS, Traits, traits_of
from volagent.api.token_volume import ROOT_CA
from volagent.client.contract import (
    CONFIG_MAPS,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    AlreadyExists,
    ApiError,
    NotFound,
    Resource,
    Selection,
)
from volagent.objects.meta import Document
from volagent.observe.logs import get_logger
from volagent.store.contract import Mismatch, Stored

EXPIRY_PERIOD_S = 60.0
"""How often expired objects are looked for."""
MAX_EXPIRING = 20_000
"""Objects with a limited life kept at most; the oldest go first."""
CONCURRENT_DELETES = 64
LOOK_AGAIN_S = 2.0
"""While namespaces end whose last objects other servers may let go."""
RETRY_S = 5.0
"""After a failure (a full disk), housekeeping tries again so much later."""

_log = get_logger("housekeeping")


class Housekeeping:
    """Runs beside the API, over the same registry."""

    def __init__(self, registry: Registry, reader: Reader, clock: Clock) -> None:
        self._registry = registry
        self._deleter = Deleter(registry)
        self._reader = reader
        self._clock = clock
        self._wake = asyncio.Event()
        self._root_certificate = ""
        self._expiring: deque[tuple[float, Traits, str]] = deque()
        registry.on_removed = self._note_removed
        registry.on_written = self._note_written

    async def bootstrap(self) -> None:
        """Make the standard namespaces and their service accounts; pick up what was under way."""
        for name in PERMANENT_NAMESPACES:
            try:
                await self._registry.create(NAMESPACES, {"metadata": {"name": name}})
            except AlreadyExists:
                pass
        listing = await self._reader.list(traits_of(NAMESPACES), Selection())
        for namespace in listing.items:
            metadata = namespace["metadata"]
            if "deletionTimestamp" in metadata:
                self._registry.ending_namespaces.add(metadata["name"])
                self._wake.set()
            else:
                await ensure_service_account(self._registry, metadata["name"])
        await self._load_expiring()

    async def publish_root(self, certificate: str) -> None:
        """Put the API's certificate authority (PEM) into every namespace, those to come too."""
        self._root_certificate = certificate
        listing = await self._reader.list(traits_of(NAMESPACES), Selection())
        for namespace in listing.items:
            if "deletionTimestamp" not in namespace["metadata"]:
                await self.equip_namespace(namespace["metadata"]["name"])

    async def equip_namespace(self, name: str) -> None:
        """Give a namespace what each has: its service account, and the authority's certificate."""
        await ensure_service_account(self._registry, name)
        if not self._root_certificate:
            return
        document = {"metadata": {"name": ROOT_CA}, "data": {"ca.crt": self._root_certificate}}
        try:
            await self._registry.create(CONFIG_MAPS, document, name)
        except AlreadyExists:
            await self._registry.patch(CONFIG_MAPS, ROOT_CA, {"data": document["data"]}, name)

    async def run(self) -> None:
        """End namespaces and expire objects, for ever."""
        while True:
            try:
                async with asyncio.timeout(self._period_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                for name in tuple(self._registry.ending_namespaces):
                    await self._empty(name)
                await self.expire()
            except ApiError as error:
                _log.warning("housekeeping interrupted", error=error.message)
                await asyncio.sleep(RETRY_S)
                self._wake.set()

    def go_by_hearing(self) -> None:
        """There are other servers: their writes are told by `hear_...`, and this one's as well."""
        self._registry.on_written = _ignore_written
        self._expiring.clear()

    def hear_namespace(self, name: str, *, is_ending: bool) -> None:
        """A namespace is as told, by whichever server's doing."""
        ending = self._registry.ending_namespaces
        if not is_ending:
            ending.discard(name)
        elif name not in ending:
            ending.add(name)
            self._wake.set()

    def hear_expiring(self, resource: Resource, namespace: str, name: str) -> None:
        """An object with a limited life was written, by whichever server."""
        traits = traits_of(resource)
        self._note_written(traits, key_of(traits, namespace, name))

    @property
    def _period_s(self) -> float:
        return LOOK_AGAIN_S if self._registry.ending_namespaces else EXPIRY_PERIOD_S

    async def expire(self) -> None:
        """Delete what has outlived its life."""
        now_s = self._clock.monotonic()
        expiring = self._expiring
        due: list[tuple[Traits, str]] = []
        while expiring and (expiring[0][0] <= now_s or len(expiring) > MAX_EXPIRING):
            _, traits, key = expiring.popleft()
            due.append((traits, key))
        # A key written again stands here again; only its last entry ends it.
        living = {key for _, _, key in expiring} if due else set()
        await self._delete_all([(traits, key) for traits, key in due if key not in living])

    async def _empty(self, namespace: str) -> None:
        """Delete what is in a namespace; when nothing is left, let it go."""
        left = 0
        for traits in TRAITS:
            if not traits.resource.namespaced:
                continue
            listing = await self._reader.list(traits, Selection(namespace))
            async with asyncio.TaskGroup() as group:
                limit = asyncio.Semaphore(CONCURRENT_DELETES)
                for document in listing.items:
                    if "deletionTimestamp" not in document["metadata"]:
                        group.create_task(self._delete(traits, document, limit))
            left += len((await self._reader.list(traits, Selection(namespace))).items)
        if left == 0:
            await self._deleter.finalize_namespace(namespace)
            _log.info("namespace ended", namespace=namespace)

    async def _delete(self, traits: Traits, found: Document, limit: asyncio.Semaphore) -> None:
        metadata = found["metadata"]
        async with limit:
            try:
                await self._deleter.delete(
                    traits.resource, metadata["name"], metadata["namespace"], uid=metadata["uid"]
                )
            except NotFound:
                return  # somebody else was faster
            except ApiError as error:
                # It counts as left: the namespace is looked at again with the next period.
                _log.warning("object not deleted", name=metadata["name"], error=error.message)

    async def _delete_all(self, due: list[tuple[Traits, str]]) -> None:
        for start in range(0, len(due), CONCURRENT_DELETES):
            async with asyncio.TaskGroup() as group:
                for traits, key in due[start : start + CONCURRENT_DELETES]:
                    group.create_task(self._delete_expired(traits, key))

    async def _delete_expired(self, traits: Traits, key: str) -> None:
        try:
            with STORE_ERRORS:
                stored = await self._registry.store.get(key)
            if stored is None:
                return
            await self._registry.remove(traits, stored, self._registry.codec.decode(stored))
        except Mismatch:
            return  # written again just now, so it stands in the queue again
        except ApiError as error:
            _log.warning("object not expired", key=key, error=error.message)
            self._expiring.append((self._clock.monotonic() + EXPIRY_PERIOD_S, traits, key))

    async def _load_expiring(self) -> None:
        """Take up the objects with a limited life that an earlier process wrote."""
        now_s, now = self._clock.monotonic(), self._clock.wall()
        found: list[tuple[float, Traits, str]] = []
        for traits in TRAITS:
            if traits.life_s is None:
                continue
            stored: list[Stored]
            with STORE_ERRORS:
                stored, _ = await self._registry.store.list(traits.prefix)
            for one in stored:
                age = now - _last_written(self._registry.codec.decode(one))
                age_s = max(age, timedelta()).total_seconds()
                found.append((now_s + max(traits.life_s - age_s, 0.0), traits, one.key))
        self._expiring.extend(sorted(found, key=lambda entry: entry[0]))

    def _note_removed(self, namespace: str) -> None:
        if namespace in self._registry.ending_namespaces:
            self._wake.set()

    def _note_written(self, traits: Traits, key: str) -> None:
        assert traits.life_s is not None
        self._expiring.append((self._clock.monotonic() + traits.life_s, traits, key))
        if len(self._expiring) > MAX_EXPIRING + CONCURRENT_DELETES:
            self._wake.set()


def _ignore_written(_traits: Traits, _key: str) -> None:
    """It will be heard of."""


async def ensure_service_account(registry: Registry, namespace: str) -> None:
    """Give a namespace its `default` service account."""
    try:
        await registry.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, namespace)
    except AlreadyExists:
        return


def _last_written(event: Document) -> datetime:
    try:
        return parse_time(event["lastTimestamp"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return parse_time(event["metadata"]["creationTimestamp"])
