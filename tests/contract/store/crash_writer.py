"""Writes as fast as it can and tells what was acknowledged, until it is killed.

Each line of the output is one acknowledged write: `key revision value`, value `-` for a delete.
"""

import asyncio
import os
import sys
from pathlib import Path

from volagent.store.sqlite import open_store


def tell(key, revision, value):
    os.write(1, f"{key} {revision} {value}\n".encode())


async def write(store, writer, start):
    number = start
    while True:
        number += 1
        key, value = f"/things/{writer}/{number}", str(number)
        revision = await store.create(key, value.encode())
        tell(key, revision, value)
        revision = await store.update(key, value.encode() * 2, revision)
        tell(key, revision, value * 2)
        if number % 3 == 0:
            tell(key, await store.delete(key, revision), "-")


async def main():
    store = open_store(Path(sys.argv[1]))
    start = store.revision
    async with asyncio.TaskGroup() as group:
        for writer in range(8):
            group.create_task(write(store, f"{start}-{writer}", 0))


asyncio.run(main())
