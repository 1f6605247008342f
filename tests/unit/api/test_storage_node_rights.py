"""What the agent of a storage node may do, and what one that is none may not."""

import pytest

from tests.contract.client.documents import claim, volume
from tests.simulation.virtual_time import run_virtually
from tests.unit.api.test_rbac import Idle
from tests.unit.control.controllers import running, settle, start_server
from volagent.api.auth import User
from volagent.api.rbac import Authorizer
from volagent.client.contract import (
    CLAIMS,
    NODES,
    PERSISTENT_VOLUMES,
    SECRETS,
    VOLUME_ATTACHMENTS,
    Forbidden,
)
from volagent.objects.annotations import PROVISIONED_BY, PROVISIONER, SELECTED_NODE
from volagent.objects.rbac import Action
from volagent.objects.storage_nodes import (
    ISCSI_PROVISIONER,
    SHOW,
    SHOWN,
    SHOWN_BY,
    STORAGE_NODE,
    STORAGE_ROLE,
)

STORAGE = User("system:node:store", frozenset({"system:nodes", "system:authenticated"}))
OTHER = User("system:node:vm1", frozenset({"system:nodes", "system:authenticated"}))
ISCSI = {"targetPortal": "192.0.2.1:3260", "iqn": "iqn.2026-01.dev.x:y", "lun": 0}
MADE = {STORAGE_NODE: "store", PROVISIONED_BY: ISCSI_PROVISIONER}


def a_claim(name, **annotations):
    document = claim(name)
    document["metadata"]["annotations"] = {
        PROVISIONER: ISCSI_PROVISIONER, SELECTED_NODE: "vm2", **annotations,
    }  # fmt: skip
    return document


def a_volume(name="v", source=None, **annotations):
    document = volume(name, nfs=None, **(source or {"iscsi": ISCSI}))
    document["metadata"]["annotations"] = {**MADE, **annotations}
    return document


async def a_world(client):
    await client.create(NODES, {"metadata": {"name": "store", "labels": {STORAGE_ROLE: ""}}})
    await client.create(NODES, {"metadata": {"name": "vm1"}})
    for made in (
        a_claim("open"),
        a_claim("mine", **{STORAGE_NODE: "store"}),
        a_claim("theirs", **{STORAGE_NODE: "elsewhere"}),
        a_claim("foreign", **{PROVISIONER: "nfs-subdir.volagent.dev"}),
    ):
        await client.create(CLAIMS, made, "default")
    await client.create(PERSISTENT_VOLUMES, a_volume("mine"))
    await client.create(PERSISTENT_VOLUMES, a_volume("theirs", **{STORAGE_NODE: "elsewhere"}))
    spec = {
        "attacher": "volagent.dev", "nodeName": "vm1",
        "source": {"persistentVolumeName": "mine"},
    }  # fmt: skip
    for name, metadata in (
        ("asked", {"annotations": {SHOW: "store"}}),
        ("held", {"annotations": {SHOWN_BY: "store"}, "finalizers": [SHOWN]}),
        ("others", {"annotations": {SHOW: "elsewhere"}}),
    ):
        attachment = {"metadata": {"name": name, **metadata}, "spec": spec}
        await client.create(VOLUME_ATTACHMENTS, attachment)


def about(verb, resource, name="", namespace=""):
    return Action(verb, "", resource, namespace, name)


CLAIM, PV, ATTACHMENT = "persistentvolumeclaims", "persistentvolumes", "volumeattachments"


@pytest.mark.parametrize(
    ("action", "allowed"),
    [
        (about("patch", CLAIM, "open", "default"), True),
        (about("patch", CLAIM, "mine", "default"), True),
        (about("patch", CLAIM, "theirs", "default"), False),
        (about("patch", CLAIM, "foreign", "default"), False),
        (about("patch", PV, "mine"), True),
        (about("delete", PV, "theirs"), False),
        (about("patch", ATTACHMENT, "asked"), True),
        (about("patch", ATTACHMENT, "held"), True),
        (about("patch", ATTACHMENT, "others"), False),
        (about("delete", ATTACHMENT, "asked"), False),
        (about("create", "secrets", "", "kube-system"), True),
        (about("create", "secrets", "", "default"), False),
        (about("patch", "secrets", "iscsi-pvc-1.store", "kube-system"), True),
        (about("get", "secrets", "iscsi-pvc-1.elsewhere", "kube-system"), False),
        (about("delete", "secrets", "bootstrap-token-abcdef", "kube-system"), False),
        (about("list", "secrets", "", "kube-system"), False),
        (about("get", "configmaps", "iscsi-pvc-1.store", "kube-system"), False),
    ],
)
def test_storage_node_may_write_what_is_its_own_and_no_more(action, allowed):
    async def story():
        client = await start_server()
        await a_world(client)
        async with running(client, lambda copies, _: Idle(Authorizer(copies))) as (idle,):
            await settle()
            assert idle.authorizer.may(STORAGE, action) is allowed
            if action.name in ("mine", "asked", "held") or action.resource == "secrets":
                assert not idle.authorizer.may(OTHER, action)

    run_virtually(story())


def secret(name):
    return {"metadata": {"name": name, "namespace": "kube-system"}}


@pytest.mark.parametrize(
    ("resource", "new", "allowed"),
    [
        (PERSISTENT_VOLUMES, a_volume(), True),
        (PERSISTENT_VOLUMES, a_volume(**{STORAGE_NODE: "elsewhere"}), False),
        (PERSISTENT_VOLUMES, a_volume(**{PROVISIONED_BY: "somebody"}), False),
        (PERSISTENT_VOLUMES, a_volume(source={"hostPath": {"path": "/"}}), False),
        (PERSISTENT_VOLUMES, a_volume(source={"local": {"path": "/etc"}}), False),
        (
            PERSISTENT_VOLUMES,
            a_volume(source={"csi": {"driver": "image.volagent.dev", "volumeHandle": "x"}}),
            False,
        ),
        (
            PERSISTENT_VOLUMES,
            a_volume(source={"csi": {"driver": "nfs.volagent.dev", "volumeHandle": "x"}}),
            True,
        ),
        (SECRETS, secret("iscsi-pvc-1.store"), True),
        (SECRETS, secret("iscsi-pvc-1.elsewhere"), False),
        (SECRETS, secret("bootstrap-token-abcdef"), False),
    ],
)
def test_storage_node_makes_what_bears_its_name(resource, new, allowed):
    async def story():
        client = await start_server()
        await a_world(client)
        async with running(client, lambda copies, _: Idle(Authorizer(copies))) as (idle,):
            await settle()
            if allowed:
                idle.authorizer.check_new(STORAGE, resource, new)
            else:
                with pytest.raises(Forbidden):
                    idle.authorizer.check_new(STORAGE, resource, new)
            with pytest.raises(Forbidden):
                idle.authorizer.check_new(OTHER, resource, new)

    run_virtually(story())
