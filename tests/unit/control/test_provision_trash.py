"""What was deleted can be had back, wherever the restore was interrupted."""

import asyncio
import contextlib
import random

import pytest

from tests.simulation.fake_provisioner import Mishaps
from tests.simulation.provisioning import KEEP_S, SHARED, Life, MortalClient, World
from tests.simulation.virtual_time import run_virtually
from volagent.client.contract import (
    CLAIMS,
    PERSISTENT_VOLUMES,
    Invalid,
    NotFound,
    Unavailable,
)
from volagent.control.provision.trash import TrashService
from volagent.drivers.errors import Transient
from volagent.objects.annotations import RESTORING


async def world_with_trash():
    """A world whose one volume is in the trash; its uid and its entry."""
    world = World(random.Random(0))
    await world.bootstrap()
    async with world.living():
        claim = await world.ask("data", "shared")
        await asyncio.sleep(5)
        await world.client.delete(CLAIMS, "data", "default")
        await asyncio.sleep(5)
    ((id, _),) = world.storages[SHARED].trash.items()
    return world, claim["metadata"]["uid"], id


def service(world, client=None):
    return TrashService(world.provisioners(), client or world.client)


def test_trash_shows_what_was_deleted_and_for_how_long():
    async def story():
        world, uid, id = await world_with_trash()
        shown = await service(world).show()
        assert shown["problems"] == []
        (entry,) = shown["items"]
        assert (entry["id"], entry["claim"], entry["capacity"]) == (id, "default/data", "1Gi")
        assert entry["name"] == f"pvc-{uid}"

    run_virtually(story())


def test_restored_volume_goes_to_a_new_claim_of_the_old_name_and_is_kept_after_it():
    async def story():
        world, uid, id = await world_with_trash()
        async with world.living():
            restored = await service(world).restore(id)
            assert "uid" not in restored["spec"]["claimRef"]
            await world.ask("data", "shared")
            await asyncio.sleep(5)
            claim = await world.find(CLAIMS, "data", "default")
            assert claim["spec"]["volumeName"] == f"pvc-{uid}"
            assert claim["status"]["phase"] == "Bound"
            await world.client.delete(CLAIMS, "data", "default")
            await asyncio.sleep(2 * KEEP_S)
            volume = await world.find(PERSISTENT_VOLUMES, f"pvc-{uid}")
            assert volume["status"]["phase"] == "Released"
            assert world.stored == {f"pvc-{uid}"}
            await world.check()

    run_virtually(story())


@pytest.mark.parametrize("writes", range(3))
def test_restore_is_completed_when_it_is_asked_for_again_after_a_crash(writes):
    async def story():
        world, uid, id = await world_with_trash()
        life = Life(writes)
        asked = asyncio.ensure_future(service(world, MortalClient(world.client, life)).restore(id))
        await asyncio.wait([asked], timeout=60)
        async with world.living():
            await asyncio.sleep(60)
            if not asked.done():
                asked.cancel()
                with contextlib.suppress(NotFound):  # all was done, only the answer was missing
                    await service(world).restore(id)
            volume = await world.find(PERSISTENT_VOLUMES, f"pvc-{uid}")
            assert RESTORING not in volume["metadata"]["annotations"]
            assert world.stored == {f"pvc-{uid}"}
            assert world.trashed == set()
            await world.check()

    run_virtually(story())


def test_restore_is_completed_when_the_process_died_with_the_data_back():
    async def story():
        world, uid, id = await world_with_trash()

        class Dies(Mishaps):
            async def after(self, call, name):
                await asyncio.Event().wait()

        world.mishaps = Dies()
        asked = asyncio.ensure_future(service(world).restore(id))
        await asyncio.wait([asked], timeout=5)
        asked.cancel()
        world.mishaps = Mishaps()
        async with world.living():
            await asyncio.sleep(60)
            volume = await world.find(PERSISTENT_VOLUMES, f"pvc-{uid}")
            assert volume["status"]["phase"] == "Released", "nobody gets it half restored"
            await service(world).restore(id)
            await asyncio.sleep(5)
            volume = await world.find(PERSISTENT_VOLUMES, f"pvc-{uid}")
            assert volume["status"]["phase"] == "Available"
            assert world.stored == {f"pvc-{uid}"}

    run_virtually(story())


def test_volume_that_was_never_claimed_is_restored_for_anybody():
    async def story():
        world, _, id = await world_with_trash()
        kept, entry, expires_s = world.storages[SHARED].trash[id]
        manifest = {**entry.manifest, "spec": {**entry.manifest["spec"]}}
        del manifest["spec"]["claimRef"]
        changed = type(entry)(
            **{field: getattr(entry, field) for field in entry.__struct_fields__}
            | {"manifest": manifest}
        )
        world.storages[SHARED].trash[id] = (kept, changed, expires_s)
        restored = await service(world).restore(id)
        assert "claimRef" not in restored["spec"]

    run_virtually(story())


def test_restore_is_refused_when_its_volume_exists_again():
    async def story():
        world, uid, id = await world_with_trash()
        document = {
            "metadata": {"name": f"pvc-{uid}"},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "nfs": {"server": "10.0.0.1", "path": "/x"},
            },
        }  # fmt: skip
        await world.client.create(PERSISTENT_VOLUMES, document)
        with pytest.raises(Invalid, match="delete it first"):
            await service(world).restore(id)
        assert world.trashed == {id}

    run_virtually(story())


def test_restore_leaves_no_object_behind_when_the_backend_refuses():
    async def story():
        world, uid, id = await world_with_trash()
        kept, _, _ = world.storages[SHARED].trash[id]
        world.storages[SHARED].volumes[f"pvc-{uid}"] = kept
        async with world.living():
            with pytest.raises(Invalid, match="something else is at"):
                await service(world).restore(id)
            await asyncio.sleep(10)
            assert await world.find(PERSISTENT_VOLUMES, f"pvc-{uid}") is None
            assert world.trashed == {id}
            assert world.stored == {f"pvc-{uid}"}, "the policy was Retain"

    run_virtually(story())


def test_emptied_entry_is_gone_for_good():
    async def story():
        world, _, id = await world_with_trash()
        assert await service(world).empty([id]) == {"deleted": [id]}
        assert world.trashed == set()
        for again in (service(world).empty([id]), service(world).restore(id)):
            with pytest.raises(NotFound, match="is not in the trash"):
                await again

    run_virtually(story())


class Away(Mishaps):
    """The storage is away, or does not answer at all."""

    def __init__(self, *, silent):
        self.silent = silent

    async def before(self, call, name):
        if self.silent:
            await asyncio.Event().wait()
        raise Transient("the storage is away")


@pytest.mark.parametrize(("silent", "text"), [(False, "is away"), (True, "no answer within")])
def test_backend_that_is_away_is_named_and_holds_nobody_up(silent, text):
    async def story():
        world, _, id = await world_with_trash()
        table = world.provisioners()
        table[SHARED].mishaps = Away(silent=silent)
        trash = TrashService(table, world.client)
        shown = await trash.show()
        assert shown["items"] == []
        assert f"{SHARED}: " in shown["problems"][0]
        assert text in shown["problems"][0]
        with pytest.raises(Unavailable, match=text):
            await trash.restore(id)

    run_virtually(story())
