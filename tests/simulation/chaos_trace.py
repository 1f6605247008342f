"""Tells a run of one seed of the chaos: `python -m tests.simulation.chaos_trace SEED ROUNDS`.

Every change of an object in its order, and every write that the storage took with its moment. Two
runs of a seed tell the same, whatever `PYTHONHASHSEED` is: a seed that fails can be looked at.
"""

import contextlib
import io
import random
import sys

from tests.simulation.test_failover_chaos import live_through_mishaps, new_world
from tests.simulation.virtual_time import run_virtually

DISKS = [f"d{n}" for n in range(1, 10)]
"""Several for each node: what one event concerns is a set of them."""


async def tell(seed, rounds):
    chance = random.Random(seed)
    world = await new_world(seed, chance, disks=DISKS, keyed=False, watchdog=True)
    await live_through_mishaps(world, seed, chance, rounds, disks=DISKS)
    for change in world.store.history:
        value = change.current.value.decode() if change.current is not None else "gone"
        yield f"{change.revision} {change.key} {value}"
    for at_s, *write in world.storage.writes:
        yield f"{at_s} {write}"


async def listen(seed, rounds):
    return [line async for line in tell(seed, rounds)]


if __name__ == "__main__":
    with contextlib.redirect_stdout(io.StringIO()):  # the log has the time of day
        told = run_virtually(listen(*map(int, sys.argv[1:])))
    print("\n".join(told))
