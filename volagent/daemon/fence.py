"""Builds an agent's fence out of the settings."""

import math
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from volagent.aio.clock import Clock
from volagent.client.contract import Client
from volagent.client.fencings import Start
from volagent.host.thaw import ThawingClock
from volagent.host.watchdog import RealWatchdog, reset_now
from volagent.node.agent import NodeAgent
from volagent.node.fence import FenceRules
from volagent.node.fence_keeper import FenceKeeper, Machine
from volagent.node.fence_memory import FenceMemory
from volagent.node.fence_word import FenceWord
from volagent.node.kept_out import KeptOutWatch
from volagent.node.lease import LeaseKeeper
from volagent.node.register import read_boot_id
from volagent.node.surrender import Surrender
from volagent.settings import Settings


@dataclass(frozen=True, slots=True)
class Fence:
    """An agent's lease and fence."""

    lease: LeaseKeeper
    keeper: FenceKeeper
    word: FenceWord
    kept_out: KeptOutWatch

    def loops(self) -> dict[str, Coroutine[Any, Any, None]]:
        """What runs for the agent's life; after the agent's records are open."""
        return {
            "lease": self.lease.run(), "fence": self.keeper.run(), "fencings": self.word.follow(),
            "kept out": self.kept_out.run(),
        }  # fmt: skip

    async def leave(self) -> None:
        """Before the loops end, while a server can still be told."""
        await self.keeper.leave()


def make_fence(
    settings: Settings, client: Client, agent: NodeAgent, clock: Clock, start: Start
) -> Fence:
    """The fence of this machine, which the agent's gate asks from now on."""
    fence, lease, name = settings.fence, settings.lease, settings.node_name
    rules = FenceRules(
        fences_itself=fence.self == "on",
        period_s=lease.period_s,
        lease_s=lease.timeout_s,
        give_up_s=fence.give_up_s,
        reset_after_s=math.ceil(fence.reset_after_s),
    )
    boot_id = read_boot_id()
    if rules.fences_itself:
        clock = ThawingClock(clock)
    surrender = Surrender(agent)
    word = FenceWord(client, name, agent.gate, agent.node, agent.mark_volumes)
    keeper = FenceKeeper(
        rules,
        body=surrender,
        word=word,
        machine=Machine(RealWatchdog(fence.watchdog), reset_now, boot_id),
        memory=FenceMemory(f"{settings.run_dir}/fence", boot_id),
        clock=clock,
    )
    agent.gate.guard = keeper.may_touch
    leases = LeaseKeeper(
        client, name, clock,
        period_s=lease.period_s, timeout_s=lease.timeout_s, on_renewed=keeper.renewed,
    )  # fmt: skip
    return Fence(leases, keeper, word, KeptOutWatch(agent, surrender, start))
