"""The trash of volumes that cannot be moved: tags."""

import random
import string
from datetime import UTC, datetime, timedelta

from volagent.drivers.ebs.kept import (
    expiry_of,
    is_trashed,
    manifest_of,
    trash_names,
    trash_tags,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_manifest(noise=0):
    letters = random.Random(1).choices(string.ascii_letters, k=noise)
    return {
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": "pvc-1", "annotations": {"note": "".join(letters)}},
        "spec": {"capacity": {"storage": "1Gi"}},
    }  # fmt: skip


def test_manifest_survives_the_tags():
    for noise in (0, 300, 5000):
        tags = trash_tags(a_manifest(noise), NOW, NOW + timedelta(days=1))
        assert tags is not None
        assert all(len(value) <= 256 and len(name) <= 128 for name, value in tags.items())
        assert len(tags) <= 40
        assert is_trashed(tags)
        assert manifest_of({**tags, "Name": "other"}) == a_manifest(noise)
        assert expiry_of(tags) == NOW + timedelta(days=1)
        assert set(trash_names({**tags, "Name": "other"})) == set(tags)


def test_manifest_that_tags_cannot_hold_is_none():
    assert trash_tags(a_manifest(50_000), NOW, NOW) is None


def test_damaged_tags_are_noticed():
    tags = trash_tags(a_manifest(600), NOW, NOW)
    assert tags is not None
    del tags["volagent.dev/trash-manifest-01"]
    assert manifest_of(tags) == {}
    assert manifest_of({}) == {}
    assert expiry_of({"volagent.dev/trash-expires": "soon"}) is None
