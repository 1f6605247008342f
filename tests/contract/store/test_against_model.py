"""Random writes against a model: a dict of key to value and revision."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from volagent.store.contract import KeyExists, Mismatch
from volagent.store.sqlite import open_store

KEYS = st.sampled_from([f"/{kind}/{name}" for kind in ("x", "y") for name in "abc"])
WRITES = st.lists(
    st.tuples(st.sampled_from(["create", "update", "stale", "delete", "reopen"]), KEYS,
              st.binary(max_size=8)),
    max_size=40,
)  # fmt: skip


class Model:
    """What the store should hold, and every change it should have told."""

    def __init__(self):
        self.held = {}
        self.told = []

    def write(self, revision, key, value):
        self.told.append((revision, key, value))
        if value is None:
            del self.held[key]
        else:
            self.held[key] = (value, revision)


async def follow(store, model, operations, directory):
    """Carry the operations out on both, comparing as it goes; the store, perhaps reopened."""
    opened_at = store.revision
    for verb, key, value in operations:
        _, current = model.held.get(key, (b"", 0))
        try:
            if verb == "create":
                model.write(await store.create(key, value), key, value)
            elif verb == "update":
                model.write(await store.update(key, value, current), key, value)
            elif verb == "delete":
                model.write(await store.delete(key, current), key, None)
            elif verb == "stale":
                await store.update(key, value, current + 1000)
            else:
                await store.close()
                store = open_store(directory)
                opened_at = store.revision
        except KeyExists:
            assert verb == "create"
            assert key in model.held
        except Mismatch:
            assert verb == "stale" or key not in model.held
        else:
            assert verb != "stale"
    return store, opened_at


@given(WRITES)
@settings(max_examples=40, deadline=None)
def test_store_holds_and_tells_what_the_model_does(operations):
    async def check(directory):
        model = Model()
        store, opened_at = await follow(open_store(directory), model, operations, directory)
        for kind in ("x", "y"):
            items, _ = await store.list(f"/{kind}/")
            held = {k: v for k, v in model.held.items() if k.startswith(f"/{kind}/")}
            assert {i.key: (i.value, i.mod_revision) for i in items} == held
            await check_watch(store, kind, opened_at, model)
        await store.close()

    async def check_watch(store, kind, opened_at, model):
        expected = [t for t in model.told if t[1].startswith(f"/{kind}/") and t[0] > opened_at]
        changes = store.watch(f"/{kind}/", opened_at, idle_s=0.0)
        seen = []
        while batch := await anext(changes):
            seen += [(c.revision, c.key, c.current.value if c.current else None) for c in batch]
        assert seen == expected

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(check(Path(name)))


@given(st.lists(st.lists(st.tuples(KEYS, st.integers(0, 9)), max_size=6), max_size=6))
@settings(max_examples=25, deadline=None)
def test_past_lists_equal_the_lists_of_then(rounds):
    async def check(directory):
        store = open_store(directory)
        then = {}
        for writes in rounds:
            for key, number in writes:
                stored = await store.get(key)
                if stored is None:
                    await store.create(key, b"%d" % number)
                elif number < 3:
                    await store.delete(key, stored.mod_revision)
                else:
                    await store.update(key, b"%d" % number, stored.mod_revision)
            then[store.revision] = (await store.list("/x/"))[0]
        for revision, items in then.items():
            assert (await store.list("/x/", at_revision=revision))[0] == items
        await store.close()

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(check(Path(name)))
