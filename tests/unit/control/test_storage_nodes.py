"""Which storage node makes a volume, and whose it is then; what one does about an attachment."""

from dataclasses import replace

import msgspec
import pytest

from tests.unit.control.test_provision_decide import (
    ANYWHERE,
    a_claim,
    a_class,
    a_volume,
)
from volagent.control.provision.decide import (
    Discard,
    ElectStorage,
    Hold,
    LetGo,
    Make,
    decide_claim,
    is_within_reach,
)
from volagent.control.show.decide import Hide, Show, decide_showing
from volagent.control.show.decide import Hold as HoldAttachment
from volagent.objects.attachments import VolumeAttachment, is_shareable
from volagent.objects.storage_nodes import SHOW, SHOWN, SHOWN_AS, SHOWN_BY, STORAGE_NODE

STORE = replace(ANYWHERE, storage_node="store")
WAITING = replace(STORE, storage_class=a_class("WaitForFirstConsumer"))
MINE, THEIRS = {STORAGE_NODE: "store"}, {STORAGE_NODE: "other"}


def test_storage_node_takes_the_claim_before_anything_is_made():
    assert decide_claim(a_claim(), STORE) == ElectStorage("store")
    assert decide_claim(a_claim(held=False, **MINE), STORE) == Hold()
    assert decide_claim(a_claim(**MINE), STORE) == Make(STORE.storage_class)


def test_claim_of_another_storage_node_is_left_alone_whatever_becomes_of_it():
    assert decide_claim(a_claim(**THEIRS), STORE) is None
    assert decide_claim(a_claim(going=True, **THEIRS), STORE) is None


def test_claim_that_waits_for_its_pod_is_taken_after_the_pod_has_a_node():
    assert decide_claim(a_claim(), WAITING) is None
    assert decide_claim(a_claim(node="vm1"), WAITING) == ElectStorage("store")


def test_class_that_names_a_storage_node_is_served_by_that_alone():
    pinned = msgspec.structs.replace(a_class(), parameters=dict(MINE))
    assert decide_claim(a_claim(), replace(STORE, storage_class=pinned)) == ElectStorage("store")
    pinned = msgspec.structs.replace(a_class(), parameters=dict(THEIRS))
    assert decide_claim(a_claim(), replace(STORE, storage_class=pinned)) is None


def test_claim_that_goes_is_discarded_only_where_something_may_have_been_made():
    assert decide_claim(a_claim(going=True), STORE) == LetGo()
    assert decide_claim(a_claim(going=True, **MINE), STORE) == Discard()


def test_volume_is_reclaimed_by_the_storage_node_that_made_it():
    volume = a_volume()
    marked = msgspec.structs.replace(
        volume, metadata=msgspec.structs.replace(volume.metadata, annotations=dict(MINE))
    )
    assert is_within_reach(marked, "", None, "store")
    assert not is_within_reach(marked, "", None, "other")
    assert not is_within_reach(volume, "", None, "store")


def an_attachment(*, asks="", held="", told=False, going=False):
    annotations = {SHOW: asks, SHOWN_BY: held, SHOWN_AS: "it" if told else ""}
    document = {
        "metadata": {
            "name": "a", "uid": "u", "finalizers": [SHOWN] if held else [],
            "annotations": {key: value for key, value in annotations.items() if value},
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}),
        },
        "spec": {"nodeName": "vm1"},
    }  # fmt: skip
    return msgspec.convert(document, VolumeAttachment)


@pytest.mark.parametrize(
    ("attachment", "verified", "step"),
    [
        (an_attachment(), False, None),
        (an_attachment(asks="other"), False, None),
        (an_attachment(asks="store"), False, HoldAttachment()),
        (an_attachment(asks="store", going=True), False, None),
        (an_attachment(asks="store", held="store"), False, Show(told=False)),
        (an_attachment(asks="store", held="store"), True, Show(told=False)),
        (an_attachment(asks="store", held="store", told=True), False, Show(told=True)),
        (an_attachment(asks="store", held="store", told=True), True, None),
        # Its node may still use it: it stays until it is not asked for any more.
        (an_attachment(asks="store", held="store", told=True, going=True), True, None),
        (an_attachment(held="store", told=True, going=True), True, Hide()),
        (an_attachment(held="store"), False, Hide()),
        (an_attachment(asks="other", held="store"), False, Hide()),
        (an_attachment(held="other", told=True), False, None),
        (an_attachment(asks="store", held="other"), False, None),
    ],
)
def test_attachment_is_held_before_it_is_shown_and_hidden_before_it_is_let_go(
    attachment, verified, step
):
    assert decide_showing(attachment, "store", verified=verified) == step


@pytest.mark.parametrize(
    ("modes", "block", "files", "shareable"),
    [
        (["ReadWriteMany"], False, True, True),
        (["ReadWriteMany"], False, False, False),
        (["ReadWriteMany"], True, False, True),
        (["ReadWriteOnce"], False, True, False),
        (["ReadOnlyMany"], False, False, True),
    ],
)
def test_directory_that_one_machine_keeps_may_be_with_several_nodes(modes, block, files, shareable):
    assert is_shareable(modes, block=block, read_only=False, files=files) is shareable
