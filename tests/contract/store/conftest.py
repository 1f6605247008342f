"""The stores under test. `store` is each of them; `durable` only those that outlive a process."""

from asyncio import TaskGroup
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.simulation.memory_store import MemoryStore
from volagent.store.contract import Store
from volagent.store.sqlite import LOG_CHANGES, SqliteStore, open_store


@dataclass
class DurableStore:
    """A store, how to stop and start it again, and how to make it forget."""

    directory: Path
    store: SqliteStore

    async def reopen(self) -> Store:
        await self.store.close()
        self.store = open_store(self.directory)
        return self.store

    async def forget_old_changes(self) -> None:
        """Write until the changes made so far are no longer remembered."""
        keys = [f"/things/filler-{number}" for number in range(100)]
        for _ in range(LOG_CHANGES // len(keys) // 2 + 1):
            async with TaskGroup() as group:
                for key in keys:
                    group.create_task(self._come_and_go(key))

    async def _come_and_go(self, key: str) -> None:
        await self.store.delete(key, await self.store.create(key, b""))


@pytest.fixture(params=["sqlite"])
async def durable(tmp_path: Path) -> AsyncIterator[DurableStore]:
    opened = DurableStore(tmp_path / "state", open_store(tmp_path / "state"))
    yield opened
    await opened.store.close()


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    opened: Store = open_store(tmp_path) if request.param == "sqlite" else MemoryStore()
    yield opened
    await opened.close()
