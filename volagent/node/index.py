"""What is wanted on this node, by pod and by volume; kept in step with the declarations.

Holds values made by `desired.py` and answers three questions: what does this volume need, which
pods depend on that object, which pods may still be running. For the event loop's thread.
"""

from collections.abc import Callable, Collection

from volagent.drivers.contract import VolumeKey
from volagent.node.plan import Wanted
from volagent.node.resolved import ResolvedPod, ResolvedVolume
from volagent.objects.meta import PodUid
from volagent.objects.references import Reference


class DesiredIndex:
    """The wanted volumes of all pods of this node."""

    def __init__(self) -> None:
        self._pods: dict[PodUid, ResolvedPod] = {}
        self._wanted: dict[VolumeKey, Wanted] = {}
        self._users: dict[VolumeKey, dict[PodUid, ResolvedVolume]] = {}
        self._by_reference: dict[Reference, set[PodUid]] = {}
        self._live: set[PodUid] = set()

    @property
    def live(self) -> Collection[PodUid]:
        """Pods whose containers may still run: nothing is taken from them."""
        return self._live

    def keep(self, uid: PodUid) -> None:
        """A pod that is not declared may still have containers: nothing is taken from it."""
        self._live.add(uid)

    def release(self, uid: PodUid) -> None:
        """The pod's containers are gone: what it has may be taken down."""
        self._live.discard(uid)

    def pod(self, uid: PodUid) -> ResolvedPod | None:
        """What was resolved for a pod."""
        return self._pods.get(uid)

    def keys(self) -> list[VolumeKey]:
        """All wanted volumes."""
        return list(self._wanted)

    def wanted(self, key: VolumeKey) -> Wanted | None:
        """What a volume needs, or None when nobody wants it."""
        return self._wanted.get(key)

    def backend(self, key: VolumeKey) -> str | None:
        """The bulkhead of a wanted volume."""
        wanted = self._wanted.get(key)
        return wanted.spec.backend if wanted is not None else None

    def references(self) -> Collection[Reference]:
        """Everything that pods depend on."""
        return self._by_reference.keys()

    def pods_referring(self, reference: Reference) -> tuple[PodUid, ...]:
        """Pods whose volumes depend on an object."""
        return tuple(sorted(self._by_reference.get(reference, ())))

    def put(self, resolved: ResolvedPod) -> set[VolumeKey]:
        """Replace what a pod wants; answers with the volumes whose need changed.

        A volume that had been resolved and now has a problem keeps its last good answer: the pod
        may be running with it.
        """
        uid = resolved.uid
        before = self._pods.get(uid)
        if before is not None and resolved.problems:
            kept = {n: v for n, v in before.volumes.items() if n in resolved.problems}
            if kept:
                resolved = ResolvedPod(
                    uid, {**resolved.volumes, **kept}, resolved.problems, resolved.references
                )
        self._pods[uid] = resolved
        if before is None:
            self._live.add(uid)
        self._index_references(uid, before, resolved)
        old = {v.spec.key: v for v in before.volumes.values()} if before is not None else {}
        new = {v.spec.key: v for v in resolved.volumes.values()}
        changed = {key for key, volume in new.items() if old.get(key) != volume}
        changed |= old.keys() - new.keys()
        for key in changed:
            self._set_use(key, uid, new.get(key))
        return changed

    def drop(self, uid: PodUid) -> set[VolumeKey]:
        """A pod's containers are gone: nothing is wanted for it any more."""
        before = self._pods.pop(uid, None)
        self._live.discard(uid)
        if before is None:
            return set()
        self._index_references(uid, before, None)
        changed = {volume.spec.key for volume in before.volumes.values()}
        for key in changed:
            self._set_use(key, uid, None)
        return changed

    def drop_only(self, uid: PodUid, chosen: Callable[[ResolvedVolume], bool]) -> set[VolumeKey]:
        """Some of a pod's volumes are wanted no more; answers with those that changed."""
        before = self._pods.get(uid)
        if before is None:
            return set()
        kept = {name: volume for name, volume in before.volumes.items() if not chosen(volume)}
        changed = {v.spec.key for v in before.volumes.values()}
        changed -= {v.spec.key for v in kept.values()}
        self._pods[uid] = ResolvedPod(uid, kept, before.problems, before.references)
        for key in changed:
            self._set_use(key, uid, None)
        return changed

    def _set_use(self, key: VolumeKey, uid: PodUid, volume: ResolvedVolume | None) -> None:
        users = self._users.setdefault(key, {})
        if volume is None:
            users.pop(uid, None)
        else:
            users[uid] = volume
        if not users:
            self._users.pop(key, None)
            self._wanted.pop(key, None)
            return
        first = next(iter(users.values()))
        self._wanted[key] = Wanted(
            first.spec, first.source, first.phases, {pod: v.use for pod, v in users.items()}
        )

    def _index_references(
        self, uid: PodUid, before: ResolvedPod | None, after: ResolvedPod | None
    ) -> None:
        old = before.references if before is not None else frozenset()
        new = after.references if after is not None else frozenset()
        if old == new:
            return
        for reference in old - new:
            users = self._by_reference.get(reference)
            if users is not None:
                users.discard(uid)
                if not users:
                    del self._by_reference[reference]
        for reference in new - old:
            self._by_reference.setdefault(reference, set()).add(uid)
