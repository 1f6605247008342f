"""Matching against a model of the rules that was written for itself: brute force, no index.

The model knows only what the documentation says: which volumes may serve a claim, and which of them
is the best. It shares no code with the binder.
"""

import itertools

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.virtual_time import run_virtually
from tests.unit.control.controllers import running, settle, start_server
from volagent.client.contract import CLAIMS, PERSISTENT_VOLUMES
from volagent.control.bind.match import VolumeIndex
from volagent.control.bind.run import Binder
from volagent.objects.storage import PersistentVolume, PersistentVolumeClaim

MODES = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany")
modes = st.lists(st.sampled_from(MODES), min_size=1, max_size=3, unique=True)
sizes = st.integers(1, 5)
classes = st.sampled_from(["", "fast", "slow"])
tiers = st.sampled_from([None, "a", "b"])
volume_modes = st.sampled_from(["Filesystem", "Block"])
volumes = st.lists(st.tuples(sizes, modes, classes, tiers, volume_modes, st.booleans()), max_size=8)
claims = st.tuples(sizes, modes, classes, tiers, volume_modes)


def a_volume(number, size, access, storage_class, tier, mode, reserved=False):
    document = {
        "metadata": {"name": f"pv-{number}", "labels": {"tier": tier} if tier else {}},
        "spec": {
            "capacity": {"storage": f"{size}Gi"}, "accessModes": access,
            "storageClassName": storage_class, "volumeMode": mode,
            "persistentVolumeReclaimPolicy": "Retain", "nfs": {"server": "s", "path": "/p"},
        },
        "status": {"phase": "Available"},
    }  # fmt: skip
    if reserved:
        document["spec"]["claimRef"] = {"namespace": "default", "name": "claim-0"}
    return document


def a_claim(number, size, access, storage_class, tier, mode):
    spec = {
        "accessModes": access, "resources": {"requests": {"storage": f"{size}Gi"}},
        "storageClassName": storage_class, "volumeMode": mode,
    }  # fmt: skip
    if tier:
        spec["selector"] = {"matchLabels": {"tier": tier}}
    return {"metadata": {"name": f"claim-{number}"}, "spec": spec}


def best_by_the_rules(claim, offered):
    """The name of the volume that the documentation says, or None."""
    size, access, storage_class, tier, mode = claim
    fitting = []
    for number, (has, offers, belongs, label, is_mode, reserved) in enumerate(offered):
        if has < size or not set(access) <= set(offers) or is_mode != mode:
            continue
        if not reserved and (belongs != storage_class or (tier and label != tier)):
            continue
        fitting.append((not reserved, has - size, len(offers) - len(access), f"pv-{number}"))
    return min(fitting)[3] if fitting else None


@settings(max_examples=400, deadline=None)
@given(claims, volumes)
def test_index_finds_what_the_rules_say(claim, offered):
    index = VolumeIndex()
    for number, each in enumerate(offered):
        index.put(msgspec.convert(a_volume(number, *each), PersistentVolume))
    document = a_claim(0, *claim)
    document["metadata"]["namespace"] = "default"
    asked = msgspec.convert(document, PersistentVolumeClaim)
    ranked = itertools.chain(index.reserved_for(asked), index.candidates(asked))
    found = next(ranked, None)
    assert (found.metadata.name if found else None) == best_by_the_rules(claim, offered)


@settings(max_examples=200, deadline=None)
@given(claims, volumes, st.data())
def test_index_forgets_what_goes(claim, offered, data):
    index = VolumeIndex()
    for number, each in enumerate(offered):
        index.put(msgspec.convert(a_volume(number, *each), PersistentVolume))
    gone = data.draw(st.sets(st.sampled_from(range(len(offered))))) if offered else set()
    for number in gone:
        index.drop(f"pv-{number}")
    document = a_claim(0, *claim)
    document["metadata"]["namespace"] = "default"
    asked = msgspec.convert(document, PersistentVolumeClaim)
    names = {volume.metadata.name for volume in index.candidates(asked)}
    names |= {volume.metadata.name for volume in index.reserved_for(asked)}
    assert not names & {f"pv-{number}" for number in gone}


@settings(max_examples=60, deadline=None)
@given(st.lists(claims, min_size=1, max_size=5), volumes, st.integers(1, 2), st.randoms())
def test_whatever_comes_in_whatever_order_no_volume_is_bound_twice_and_none_is_left_unused(
    wanted, offered, binders, random
):
    """Two binders may work at once; a volume that fits a waiting claim is never left free."""

    async def story():
        client = await start_server()
        objects = [
            (PERSISTENT_VOLUMES, a_volume(number, *each), "") for number, each in enumerate(offered)
        ]
        objects += [(CLAIMS, a_claim(n, *each), "default") for n, each in enumerate(wanted)]
        random.shuffle(objects)

        def make(copies, events):
            return Binder(copies, client, events)

        async with running(client, *[make] * binders):
            for resource, document, namespace in objects:
                await client.create(resource, document, namespace)
                if random.random() < 0.5:
                    await settle(0.01)
            await settle()
        found = {each["metadata"]["name"]: each for each in (await client.list(CLAIMS)).items}
        held = {
            each["metadata"]["name"]: each for each in (await client.list(PERSISTENT_VOLUMES)).items
        }
        bound = [c["spec"]["volumeName"] for c in found.values() if c["spec"].get("volumeName")]
        assert len(bound) == len(set(bound))
        for name, claim in found.items():
            volume = claim["spec"].get("volumeName")
            if volume:
                assert held[volume]["spec"]["claimRef"]["name"] == name
                assert held[volume]["status"]["phase"] == claim["status"]["phase"] == "Bound"
        free = [
            each for number, each in enumerate(offered)
            if held[f"pv-{number}"]["status"]["phase"] == "Available" and not each[5]
        ]  # fmt: skip
        for name, claim in found.items():
            if not claim["spec"].get("volumeName"):
                number = int(name.removeprefix("claim-"))
                assert best_by_the_rules(wanted[number], free) is None

    run_virtually(story())
