"""What this node's pods want, kept on disk: for a start while no server can be reached.

Written a moment after it changed, whole, and in one piece. It has no secrets, so volumes made of
those wait for a server, and so does what needs a permission of the cluster; files and what is on
this node come back without. Whatever a server says later replaces it.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Collection
from typing import Final, TypeVar

import msgspec

from volagent.client.informer import Key
from volagent.client.shared import Followed
from volagent.node.world import NodeWorld
from volagent.objects.meta import TypedObject
from volagent.objects.pod import Pod
from volagent.objects.references import Reference
from volagent.objects.storage import ConfigMap, PersistentVolume, PersistentVolumeClaim
from volagent.observe.logs import get_logger

FORMAT: Final = 1
OFFLINE_AFTER_S: Final = 5.0
"""How long a start waits for a server before it goes by what it remembers."""
WRITE_AFTER_S: Final = 2.0
"""Changes are gathered for so long."""
RETRY_S: Final = 60.0

_log = get_logger("node")
T = TypeVar("T", bound=TypedObject)


class Remembered(msgspec.Struct, frozen=True):
    """The objects behind this node's volumes."""

    format: int = FORMAT
    pods: list[Pod] = []
    claims: list[PersistentVolumeClaim] = []
    volumes: list[PersistentVolume] = []
    config_maps: list[ConfigMap] = []


class Checkpoint:
    """The file. Of one node."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._written: bytes = b""

    def read(self) -> Remembered | None:
        """What was written last; None when there is nothing, or nothing that can be read."""
        try:
            with open(self._path, "rb") as file:
                found = msgspec.json.decode(file.read(), type=Remembered)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            _log.warning("what was remembered cannot be read", path=self._path, error=str(error))
            return None
        return found if found.format == FORMAT else None

    def write(self, remembered: Remembered) -> None:
        """Replace it, durably, when it differs. Raises `OSError`."""
        content = msgspec.json.encode(remembered)
        if content == self._written:
            return
        temporary = f"{self._path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(temporary, flags, 0o600)
        try:
            if os.write(fd, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), temporary)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, self._path)
        self._written = content


async def wait_for_world(world: NodeWorld, checkpoint: Checkpoint | None) -> None:
    """Wait until everything was listed, or is remembered and no server answers."""
    informers = [informer for _, informer in world.informers]
    waiting = asyncio.gather(*(informer.synced.wait() for informer in informers))
    while True:
        try:
            await asyncio.wait_for(asyncio.shield(waiting), OFFLINE_AFTER_S)
        except TimeoutError:
            known = checkpoint.read() if checkpoint is not None else None
            if known is None:
                continue
            _seed_all(world, known)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            _log.warning(
                "no server answers: going by what is remembered", pods=len(known.pods),
                volumes=len(known.volumes),
            )  # fmt: skip
            return
        else:
            return


def _seed_all(world: NodeWorld, known: Remembered) -> None:
    """What a server has told already is better."""
    _seed(world.pods, known.pods)
    _seed(world.claims, known.claims)
    _seed(world.volumes, known.volumes)
    if isinstance(world.config_maps, Followed):
        _seed(world.config_maps, known.config_maps)
    else:
        world.config_maps.remember(_by_key(known.config_maps))
    if not isinstance(world.secrets, Followed):
        world.secrets.remember({})
    if not world.nodes.informer.synced.is_set():
        world.nodes.informer.seed({})


def _seed(followed: Followed[T], objects: Collection[T]) -> None:
    if not followed.informer.synced.is_set():
        followed.informer.seed(_by_key(objects))


def _by_key(objects: Collection[T]) -> dict[Key, T]:
    return {(each.metadata.namespace, each.metadata.name): each for each in objects}


def collect(world: NodeWorld, references: Collection[Reference]) -> Remembered:
    """What there is to remember now."""
    named: dict[str, set[tuple[str, str]]] = {}
    for kind, namespace, name in references:
        named.setdefault(kind, set()).add((namespace, name))

    def pick(kind: str, get: Callable[[str, str], T | None]) -> list[T]:
        found = (get(*key) for key in sorted(named.get(kind, ())))
        return [each for each in found if each is not None]

    pods = sorted(world.pods.values(), key=lambda pod: pod.metadata.uid)
    return Remembered(
        pods=pods,
        claims=pick("PersistentVolumeClaim", world.claims.get),
        volumes=pick("PersistentVolume", world.volumes.get),
        config_maps=pick("ConfigMap", world.config_maps.get),
    )


async def keep_current(
    checkpoint: Checkpoint, changed: asyncio.Event, describe: Callable[[], Remembered]
) -> None:
    """Write it whenever something changed, for ever."""
    while True:
        await changed.wait()
        await asyncio.sleep(WRITE_AFTER_S)
        changed.clear()
        try:
            await asyncio.to_thread(checkpoint.write, describe())
        except OSError as error:
            _log.warning("not remembered", error=str(error))
            changed.set()
            await asyncio.sleep(RETRY_S)
