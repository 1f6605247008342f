"""What every provisioner must keep, whatever it makes volumes of."""

import pytest

from volagent.drivers.contract import VolumeMode
from volagent.drivers.errors import Rejected
from volagent.drivers.provisioning.contract import KeepsTrash, ReclaimRequest, VolumeRequest
from volagent.objects.annotations import VOLUME_OWNER
from volagent.objects.volumes import PV_SOURCES

SIZE = 1 << 20
KEEP_S = 600


def a_request(backend, uid="u1", **changes):
    given = {
        "name": f"pvc-{uid}", "owner": uid, "claim_namespace": "default", "claim_name": "data",
        "capacity_bytes": SIZE, "access_modes": ("ReadWriteOnce",),
        "parameters": backend.parameters, "node": "vm1",
        "node_labels": {"kubernetes.io/hostname": "vm1"}, **changes,
    }  # fmt: skip
    return VolumeRequest(**given)


def released(request, made, *, owner="", keep_s=0):
    """The request to reclaim what was made."""
    annotations = {VOLUME_OWNER: request.owner, **made.annotations}
    manifest = {
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": request.name, "annotations": annotations},
        "spec": {
            "claimRef": {"namespace": request.claim_namespace, "name": request.claim_name},
            **made.source,
        },
    }  # fmt: skip
    return ReclaimRequest(
        name=request.name, owner=owner or request.owner, source=made.source,
        annotations=annotations, manifest=manifest, keep_s=keep_s,
    )  # fmt: skip


async def test_volume_is_there_with_one_source_and_at_least_its_size(backend, provisioner):
    made = await provisioner.create(a_request(backend))
    assert len(made.source) == 1
    assert made.source.keys() <= PV_SOURCES.keys()
    assert made.capacity_bytes >= SIZE
    assert backend.holds(made.source)


async def test_volume_is_found_again_when_it_is_asked_for_again(backend, provisioner):
    first = await provisioner.create(a_request(backend))
    assert (await provisioner.create(a_request(backend))).source == first.source
    assert (await backend.start().create(a_request(backend))).source == first.source


async def test_volumes_of_two_claims_are_apart(backend, provisioner):
    first = await provisioner.create(a_request(backend, "u1"))
    second = await provisioner.create(a_request(backend, "u2"))
    assert first.source != second.source
    request = a_request(backend, "u1")
    await provisioner.reclaim(released(request, first))
    assert backend.holds(second.source)


async def test_name_is_not_taken_over_from_another_owner(backend, provisioner):
    await provisioner.create(a_request(backend))
    with pytest.raises(Rejected):
        await provisioner.create(a_request(backend, owner="somebody"))


async def test_unknown_parameter_is_named(provisioner):
    with pytest.raises(Rejected, match="colour"):
        provisioner.check({"colour": "red"}, VolumeMode.FILESYSTEM, ("ReadWriteOnce",))


async def test_node_local_volume_says_where_it_is(backend, provisioner):
    made = await provisioner.create(a_request(backend))
    assert made.node_affinity is not None or not provisioner.node


async def test_reclaimed_volume_is_gone_and_stays_so(backend, provisioner):
    request = a_request(backend)
    made = await provisioner.create(request)
    await provisioner.reclaim(released(request, made))
    assert not backend.holds(made.source)
    await provisioner.reclaim(released(request, made))
    await backend.start().reclaim(released(request, made))
    assert not backend.holds(made.source)


async def test_volume_of_another_owner_is_not_reclaimed(backend, provisioner):
    request = a_request(backend)
    made = await provisioner.create(request)
    with pytest.raises(Rejected):
        await provisioner.reclaim(released(request, made, owner="somebody"))
    assert backend.holds(made.source)


async def test_discarded_volume_is_gone_and_nothing_is_a_success(backend, provisioner):
    request = a_request(backend)
    await provisioner.discard(request)
    made = await provisioner.create(request)
    await provisioner.discard(request)
    assert not backend.holds(made.source)
    await backend.start().discard(request)


async def test_discarding_spares_what_belongs_to_somebody_else(backend, provisioner):
    made = await provisioner.create(a_request(backend))
    try:
        await provisioner.discard(a_request(backend, owner="somebody"))
    except Rejected:
        pass  # it may say so, or see that nothing of this owner's is there
    assert backend.holds(made.source)


@pytest.fixture
async def trashed(backend, provisioner):
    """A volume in the trash: its source, its request, its entry."""
    if not isinstance(provisioner, KeepsTrash):
        pytest.skip(f"{provisioner.name} keeps no trash")
    request = a_request(backend)
    made = await provisioner.create(request)
    await provisioner.reclaim(released(request, made, keep_s=KEEP_S))
    (entry,) = await provisioner.list_trash()
    return made.source, request, entry


async def test_trash_tells_what_it_was_and_what_is_needed_to_have_it_back(
    backend, provisioner, trashed
):
    source, request, entry = trashed
    assert not backend.holds(source)
    assert entry.id.startswith(f"{provisioner.name}/")
    assert (entry.name, entry.claim) == (request.name, "default/data")
    assert entry.deleted_at < entry.expires_at
    assert entry.manifest["metadata"]["name"] == request.name


async def test_trash_holds_one_entry_when_reclaiming_is_asked_for_twice(
    backend, provisioner, trashed
):
    source, request, entry = trashed
    made = type("Made", (), {"source": source, "annotations": {}})
    await backend.start().reclaim(released(request, made, keep_s=KEEP_S))
    assert [each.id for each in await provisioner.list_trash()] == [entry.id]


async def test_restored_volume_is_where_it_was_and_no_longer_in_the_trash(
    backend, provisioner, trashed
):
    source, request, entry = trashed
    manifest = await backend.start().restore(entry.id)
    assert manifest["metadata"]["name"] == request.name
    assert backend.holds(source)
    assert await provisioner.list_trash() == []


async def test_restoring_again_changes_nothing(backend, provisioner, trashed):
    source, _, entry = trashed
    await provisioner.restore(entry.id)
    try:
        manifest = await provisioner.restore(entry.id)
    except Rejected:
        pass  # it is not in the trash any more
    else:
        assert manifest == entry.manifest
    assert backend.holds(source)


async def test_restored_volume_can_be_reclaimed_again(backend, provisioner, trashed):
    source, request, entry = trashed
    manifest = await provisioner.restore(entry.id)
    made = type("Made", (), {"source": source, "annotations": manifest["metadata"]["annotations"]})
    await provisioner.reclaim(released(request, made, keep_s=KEEP_S))
    assert not backend.holds(source)
    assert len(await provisioner.list_trash()) == 1


async def test_purged_entry_is_gone_and_stays_so(provisioner, trashed):
    _, _, entry = trashed
    await provisioner.purge(entry.id)
    await provisioner.purge(entry.id)
    assert await provisioner.list_trash() == []
    with pytest.raises(Rejected):
        await provisioner.restore(entry.id)


async def test_sweep_deletes_what_has_expired_and_says_when_the_next_does(
    backend, provisioner, trashed
):
    next_s = await provisioner.sweep()
    assert next_s is not None
    assert KEEP_S - 1 <= next_s <= KEEP_S + 1
    assert len(await provisioner.list_trash()) == 1
    backend.clock.now_s += next_s + 1
    assert await provisioner.sweep() is None
    assert await provisioner.list_trash() == []
