"""What an agent may do: its own node's objects, its pods' secrets, and nothing else."""

import pytest

from tests.contract.client.documents import claim, volume
from tests.simulation.virtual_time import run_virtually
from tests.unit.api.test_rbac import Idle
from tests.unit.control.controllers import running, settle, start_server
from volagent.api.auth import User
from volagent.api.rbac import Authorizer
from volagent.client.contract import (
    CLAIMS,
    FENCINGS,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    Forbidden,
)
from volagent.objects.annotations import SELECTED_NODE
from volagent.objects.rbac import Action

AGENT = User("system:node:vm1", frozenset({"system:nodes", "system:authenticated"}))
IMPOSTOR = User("system:node:vm1", frozenset({"system:authenticated"}))
HERE = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["vm1"]}
THERE = {**HERE, "values": ["vm2"]}
BOTH = {**HERE, "values": ["vm1", "vm2"]}


def affinity(*terms):
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [each]} for each in terms]}}


def a_pod(name, node, secret):
    return {
        "metadata": {"name": name},
        "spec": {
            "nodeName": node, "serviceAccountName": f"of-{name}",
            "containers": [{"name": "m", "image": "i", "envFrom": [
                {"configMapRef": {"name": f"env-{name}"}}]}],
            "volumes": [
                {"name": "s", "secret": {"secretName": secret}},
                {"name": "c", "persistentVolumeClaim": {"claimName": f"claim-{name}"}},
            ],
        },
    }  # fmt: skip


def a_fencing(name, victim, executor, volume):
    spec = {
        "attachment": {"uid": name}, "volume": "d", "nodeName": victim, "executor": executor,
        "method": "Storage", "source": {"persistentVolumeName": volume},
    }  # fmt: skip
    return {"metadata": {"name": name}, "spec": spec}


async def a_disk(client, name, secret):
    """A volume that is reached with a secret of its claim's namespace."""
    disk = {"targetPortal": "10.0.0.9", "iqn": "iqn.2020-01.test:a", "lun": 1,
            "secretRef": {"name": secret}}  # fmt: skip
    reference = {"kind": "PersistentVolumeClaim", "namespace": "db", "name": "data", "uid": "c"}
    await client.create(PERSISTENT_VOLUMES, volume(name, iscsi=disk, nfs=None, claimRef=reference))


async def a_world(client):
    await a_disk(client, "disk-1", "chap-1")
    await a_disk(client, "disk-2", "chap-2")
    await client.create(FENCINGS, a_fencing("by-me", "vm2", "vm1", "disk-1"))
    await client.create(FENCINGS, a_fencing("of-me", "vm1", "vm3", "disk-2"))
    await client.create(FENCINGS, a_fencing("foreign", "vm2", "vm3", "disk-2"))
    await client.create(PODS, a_pod("mine", "vm1", "s1"), "default")
    await client.create(PODS, a_pod("theirs", "vm2", "s2"), "default")
    for name, terms in (("here", [HERE]), ("there", [THERE]), ("both", [BOTH])):
        spec = volume(name)
        spec["spec"]["nodeAffinity"] = affinity(*terms)
        await client.create(PERSISTENT_VOLUMES, spec)
    chosen = claim("chosen")
    chosen["metadata"]["annotations"] = {SELECTED_NODE: "vm2"}
    await client.create(CLAIMS, chosen, "default")
    await client.create(CLAIMS, claim("claim-mine"), "default")


@pytest.mark.parametrize(
    ("action", "selector", "allowed"),
    [
        (Action("get", "", "secrets", "default", "s1"), "", True),
        (Action("watch", "", "secrets", "default"), "metadata.name=s1", True),
        (Action("get", "", "secrets", "default", "s2"), "", False),
        (Action("list", "", "secrets", "default"), "", False),
        (Action("list", "", "secrets"), "metadata.name=s1", False),
        (Action("watch", "", "secrets", "default"), "metadata.name!=s1", False),
        (Action("update", "", "secrets", "default", "s1"), "", False),
        (Action("get", "", "configmaps", "default", "env-mine"), "", True),
        (Action("get", "", "configmaps", "default", "env-theirs"), "", False),
        (Action("list", "", "pods"), "spec.nodeName=vm1", True),
        (Action("list", "", "pods"), "spec.nodeName=vm2", False),
        (Action("list", "", "pods"), "", False),
        (Action("patch", "", "pods/status", "default", "mine"), "", True),
        (Action("patch", "", "pods/status", "default", "theirs"), "", False),
        (Action("create", "", "pods", "default"), "", False),
        (Action("patch", "", "nodes/status", "", "vm1"), "", True),
        (Action("patch", "", "nodes", "", "vm2"), "", False),
        (Action("delete", "", "nodes", "", "vm1"), "", False),
        (Action("create", "", "serviceaccounts/token", "default", "of-mine"), "", True),
        (Action("create", "", "serviceaccounts/token", "default", "of-theirs"), "", False),
        (Action("patch", "", "persistentvolumes", "", "here"), "", True),
        (Action("patch", "", "persistentvolumes", "", "there"), "", False),
        (Action("delete", "", "persistentvolumes", "", "both"), "", False),
        (Action("patch", "", "persistentvolumeclaims", "default", "claim-mine"), "", True),
        (Action("patch", "", "persistentvolumeclaims", "default", "chosen"), "", False),
        (Action("patch", "coordination.k8s.io", "leases", "kube-node-lease", "vm1"), "", True),
        (Action("patch", "coordination.k8s.io", "leases", "kube-node-lease", "vm2"), "", False),
        (Action("list", "volagent.dev", "fencings"), "spec.executor=vm1", True),
        (Action("watch", "volagent.dev", "fencings"), "spec.nodeName=vm1", True),
        (Action("watch", "volagent.dev", "fencings"), "spec.nodeName=vm2", False),
        (Action("list", "volagent.dev", "fencings"), "", False),
        (Action("get", "volagent.dev", "fencings", "", "by-me"), "", True),
        (Action("get", "volagent.dev", "fencings", "", "of-me"), "", True),
        (Action("get", "volagent.dev", "fencings", "", "foreign"), "", False),
        (Action("patch", "volagent.dev", "fencings/status", "", "by-me"), "", True),
        (Action("patch", "volagent.dev", "fencings/status", "", "of-me"), "", False),
        (Action("patch", "volagent.dev", "fencings", "", "by-me"), "", False),
        (Action("create", "volagent.dev", "fencings"), "", False),
        (Action("delete", "volagent.dev", "fencings", "", "of-me"), "", False),
        (Action("get", "", "secrets", "db", "chap-1"), "", True),
        (Action("get", "", "secrets", "db", "chap-2"), "", False),
        (Action("create", "rbac.authorization.k8s.io", "clusterroles"), "", False),
        (Action("get", "", "persistentvolumes", "", "there"), "", True),
    ],
)
def test_agent_may_do_what_its_node_needs_and_no_more(action, selector, allowed):
    async def story():
        client = await start_server()
        await a_world(client)
        async with running(client, lambda copies, _: Idle(Authorizer(copies))) as (idle,):
            await settle()
            assert idle.authorizer.may(AGENT, action, selector) is allowed
            assert not idle.authorizer.may(IMPOSTOR, action, selector)

    run_virtually(story())


@pytest.mark.parametrize(
    ("resource", "new", "allowed"),
    [
        (NODES, {"metadata": {"name": "vm1"}}, True),
        (NODES, {"metadata": {"name": "vm2"}}, False),
        (PERSISTENT_VOLUMES, {"spec": {"nodeAffinity": affinity(HERE)}}, True),
        (PERSISTENT_VOLUMES, {"spec": {"nodeAffinity": affinity(HERE, THERE)}}, False),
        (PERSISTENT_VOLUMES, {"spec": {"nodeAffinity": affinity(BOTH)}}, False),
        (PERSISTENT_VOLUMES, {"spec": {"nodeAffinity": {"required": None}}}, False),
        (PERSISTENT_VOLUMES, {"spec": {}}, False),
        (PERSISTENT_VOLUMES, {}, False),
    ],
)
def test_agent_makes_what_is_its_own_nodes(resource, new, allowed):
    async def story():
        client = await start_server()
        async with running(client, lambda copies, _: Idle(Authorizer(copies))) as (idle,):
            if allowed:
                idle.authorizer.check_new(AGENT, resource, new)
            else:
                with pytest.raises(Forbidden):
                    idle.authorizer.check_new(AGENT, resource, new)

    run_virtually(story())
