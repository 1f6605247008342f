"""Who runs the controllers: the only server, or the one of several that was elected.

A server that leads no more ends its process, and with it everything that it had begun; systemd
starts it again, as one that waits for its turn. Until then its controllers have done nothing but
listen, so that they know the cluster when they begin.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from volagent.aio.clock import Clock
from volagent.api.inprocess import InProcessClient
from volagent.api.resources import TRAITS
from volagent.client.contract import NAMESPACES, Resource
from volagent.client.informer import Key, Listener
from volagent.client.shared import SharedCopies
from volagent.daemon.server_side import ServerSide
from volagent.node.agent import Start
from volagent.objects.meta import View
from volagent.settings import Settings
from volagent.store.contract import Store
from volagent.store.etcd import EtcdStore
from volagent.store.etcd_election import Election, LeadersStore
from volagent.store.etcd_upkeep import Upkeep

Loops = Mapping[str, Callable[[], Coroutine[Any, Any, None]]]


class Leading(Protocol):
    """When controllers run, and what they write through."""

    client: InProcessClient

    async def run(self, start_loop: Start, loops: Loops) -> None:
        """Run the controllers whenever it is this server's turn. Raises `Deposed`."""

    async def resign(self) -> None:
        """Everything has ended here: let another server begin."""


class Alone:
    """There is no other server."""

    def __init__(self, side: ServerSide) -> None:
        self.client = side.client

    async def run(self, start_loop: Start, loops: Loops) -> None:
        """At once."""
        start_loop("housekeeping", self.client.housekeeping.run())
        _start(start_loop, loops)
        await asyncio.Event().wait()

    async def resign(self) -> None:
        """Nobody waits."""


class Elected:
    """There are others over the same etcd."""

    def __init__(
        self, settings: Settings, store: EtcdStore, side: ServerSide, clock: Clock
    ) -> None:
        self._election = Election(store, settings.node_name)
        self._upkeep = Upkeep(store.client)
        self.client = InProcessClient(
            LeadersStore(store, self._election), side.admission, clock,
            token_key=side.client.issuer.key,
        )  # fmt: skip
        _tell_housekeeping(side.copies, side.client, self.client, self._election)

    async def run(self, start_loop: Start, loops: Loops) -> None:
        """When it is elected."""
        await self._election.win()
        await self.client.housekeeping.bootstrap()
        start_loop("housekeeping", self.client.housekeeping.run())
        start_loop("upkeep of etcd", self._upkeep.run())
        _start(start_loop, loops)
        await self._election.keep()

    async def resign(self) -> None:
        """Give the leadership back, if this server has it."""
        await self._election.resign()


def make_leading(settings: Settings, store: Store, side: ServerSide, clock: Clock) -> Leading:
    """As the store has it. Before the copies run."""
    if isinstance(store, EtcdStore):
        return Elected(settings, store, side, clock)
    return Alone(side)


class _Life(View, frozen=True):
    """Of an object's metadata, what housekeeping needs."""

    deletion_timestamp: str | None = None


class _Named(View, frozen=True):
    """An object of any kind."""

    metadata: _Life


def _tell_housekeeping(
    copies: SharedCopies, client: InProcessClient, leaders: InProcessClient, election: Election
) -> None:
    """Let the API's housekeeping hear of what other servers write."""

    def hear_namespace(key: Key, _old: _Named | None, new: _Named | None) -> None:
        is_ending = new is not None and new.metadata.deletion_timestamp is not None
        for each in (client, leaders):
            each.housekeeping.hear_namespace(key[1], is_ending=is_ending)

    def hear_of(resource: Resource) -> Listener[_Named]:
        def hear(key: Key, _old: _Named | None, new: _Named | None) -> None:
            if new is not None and election.guard:
                leaders.housekeeping.hear_expiring(resource, *key)

        return hear

    for each in (client, leaders):
        each.housekeeping.go_by_hearing()
    copies.follow(NAMESPACES, _Named).listen(hear_namespace)
    for traits in TRAITS:
        if traits.life_s is not None:
            copies.follow(traits.resource, _Named).listen(hear_of(traits.resource))


def _start(start_loop: Start, loops: Loops) -> None:
    for name, loop in loops.items():
        start_loop(name, loop())
