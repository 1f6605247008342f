"""The stores under test. `store` is each of them; `durable` only those that outlive a process."""

from asyncio import TaskGroup
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from tests import etcd_server
from tests.etcd_server import EtcdCluster, put_behind_the_back
from tests.simulation.memory_store import MemoryStore
from volagent.store import etcd_wire as wire
from volagent.store.contract import Store
from volagent.store.etcd import EtcdStore, open_etcd_store
from volagent.store.etcd_layout import MARK_BYTES, frame
from volagent.store.sqlite import SqliteStore, open_store
from volagent.store.visible import LOG_CHANGES


class DurableStore(Protocol):
    """A store, how to stop and start it again, and how to make it forget."""

    store: Store

    async def reopen(self) -> Store: ...

    async def forget_old_changes(self) -> None:
        """Write until the changes made so far are no longer remembered."""


@dataclass
class DurableSqlite:
    directory: Path
    store: SqliteStore

    async def reopen(self) -> Store:
        await self.store.close()
        self.store = open_store(self.directory)
        return self.store

    async def forget_old_changes(self) -> None:
        keys = [f"/things/filler-{number}" for number in range(100)]
        for _ in range(LOG_CHANGES // len(keys) // 2 + 1):
            async with TaskGroup() as group:
                for key in keys:
                    group.create_task(self._come_and_go(key))

    async def _come_and_go(self, key: str) -> None:
        await self.store.delete(key, await self.store.create(key, b""))


@dataclass
class DurableEtcd:
    endpoints: list[str]
    prefix: str
    store: EtcdStore

    async def reopen(self) -> Store:
        await self.store.close()
        self.store = await open_etcd_store(self.endpoints, self.prefix)
        return self.store

    async def forget_old_changes(self) -> None:
        """By another process, a hundred at once: etcd itself takes many changes in one write."""
        value = frame(b"x" * MARK_BYTES, b"")
        keys = [self.store.layout.object_key(f"/things/filler-{n}") for n in range(100)]
        request = wire.txn([], [wire.put(key, value) for key in keys], [])
        await put_behind_the_back(self.endpoints[0], [request] * (LOG_CHANGES // len(keys) + 2))
        await self.store.mirror.settle()


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    if etcd_server.PROGRAM is None:
        pytest.skip(etcd_server.MISSING)
    cluster = EtcdCluster(tmp_path_factory.mktemp("etcd"))
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def prefix() -> str:
    """A place in etcd that nothing was written to."""
    return f"t{uuid4().hex}"


@pytest.fixture(params=["sqlite", "etcd"])
async def durable(
    request: pytest.FixtureRequest, tmp_path: Path, prefix: str
) -> AsyncIterator[DurableStore]:
    opened: DurableStore
    if request.param == "sqlite":
        opened = DurableSqlite(tmp_path / "state", open_store(tmp_path / "state"))
    else:
        endpoints = request.getfixturevalue("etcd").endpoints
        opened = DurableEtcd(endpoints, prefix, await open_etcd_store(endpoints, prefix))
    yield opened
    await opened.store.close()


@pytest.fixture(params=["sqlite", "memory", "etcd"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, prefix: str
) -> AsyncIterator[Store]:
    opened: Store
    if request.param == "etcd":
        endpoints = request.getfixturevalue("etcd").endpoints
        opened = await open_etcd_store(endpoints, prefix)
    else:
        opened = open_store(tmp_path) if request.param == "sqlite" else MemoryStore()
    yield opened
    await opened.close()
