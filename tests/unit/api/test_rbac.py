"""Who may do what, by roles and bindings; and that nobody gives away what they do not have."""

import asyncio

import pytest

from tests.simulation.virtual_time import run_virtually
from tests.unit.control.controllers import running, settle, start_server
from volagent.api.auth import User
from volagent.api.default_roles import ensure_default_roles
from volagent.api.rbac import Authorizer
from volagent.client.contract import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
    Forbidden,
    Invalid,
)
from volagent.client.shared import SharedCopies
from volagent.objects.rbac import Action, PolicyRule, allows, covers

GROUP = "rbac.authorization.k8s.io"
ANNA = User("anna", frozenset({"system:authenticated", "team"}))


class Idle:
    def __init__(self, authorizer):
        self.authorizer = authorizer

    async def run(self):
        await asyncio.Event().wait()


def rule(verbs, groups=("",), resources=(), names=None, paths=None):
    return PolicyRule(
        list(verbs), list(groups), list(resources), list(names) if names else None, paths
    )


@pytest.mark.parametrize(
    ("given", "action", "allowed"),
    [
        (rule(["get"], resources=["pods"]), Action("get", "", "pods", "x", "web"), True),
        (rule(["get"], resources=["pods"]), Action("list", "", "pods"), False),
        (rule(["*"], ["*"], ["*"]), Action("delete", "apps", "x/status"), True),
        (rule(["get"], resources=["pods"]), Action("get", "", "pods/status"), False),
        (rule(["get"], resources=["*/status"]), Action("get", "", "pods/status"), True),
        (rule(["get"], ["apps"], ["pods"]), Action("get", "", "pods"), False),
        (rule(["get"], resources=["pods"], names=["a"]), Action("get", "", "pods", "", "b"), False),
        (rule(["get"], resources=["pods"], names=["a"]), Action("get", "", "pods", "", "a"), True),
        (rule(["get"], paths=["/healthz/*"]), Action("get", path="/healthz/x"), True),
        (rule(["get"], paths=["/metrics"]), Action("get", path="/metricsx"), False),
        (rule(["*"], ["*"], ["*"]), Action("get", path="/metrics"), False),
    ],
)
def test_rule_allows_what_it_says_and_no_more(given, action, allowed):
    assert allows([given], action) is allowed


def test_rule_is_covered_only_by_rules_that_allow_all_of_it():
    held = [rule(["get", "list"], resources=["pods"]), rule(["get"], resources=["secrets"])]
    assert covers(held, rule(["get"], resources=["pods", "secrets"]))
    assert not covers(held, rule(["list"], resources=["secrets"]))
    assert not covers(held, rule(["*"], resources=["pods"]))


def with_authorizer(story):
    async def main():
        client = await start_server()
        await ensure_default_roles(client)
        await ensure_default_roles(client)  # a second start changes nothing
        holder = []

        def make(copies: SharedCopies, events):
            holder.append(Authorizer(copies))
            return Idle(holder[0])

        async with running(client, make):
            await settle()
            await story(client, holder[0])

    run_virtually(main())


def binding(role_kind, role, **subject):
    return {
        "metadata": {"name": "b"},
        "subjects": [{"apiGroup": GROUP, **subject}],
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
    }


def test_binding_gives_a_cluster_role_in_its_namespace_only():
    async def story(client, authorizer):
        given = binding("ClusterRole", "view", kind="Group", name="team")
        await client.create(ROLE_BINDINGS, given, "default")
        await settle()
        assert authorizer.may(ANNA, Action("list", "", "pods", "default"))
        assert not authorizer.may(ANNA, Action("list", "", "pods", "kube-system"))
        assert not authorizer.may(ANNA, Action("list", "", "pods"))
        assert not authorizer.may(ANNA, Action("get", "", "secrets", "default", "x"))
        assert not authorizer.may(ANNA, Action("delete", "", "pods", "default", "x"))
        await client.delete(ROLE_BINDINGS, "b", "default")
        await settle()
        assert not authorizer.may(ANNA, Action("list", "", "pods", "default"))

    with_authorizer(story)


def test_aggregated_role_has_the_rules_of_the_roles_it_collects():
    async def story(client, authorizer):
        selector = [{"matchLabels": {"collect": "yes"}}]
        whole = {
            "metadata": {"name": "whole"}, "aggregationRule": {"clusterRoleSelectors": selector},
        }  # fmt: skip
        part = {
            "metadata": {"name": "part", "labels": {"collect": "yes"}},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}],
        }
        await client.create(CLUSTER_ROLES, whole)
        await client.create(CLUSTER_ROLES, part)
        given = binding("ClusterRole", "whole", kind="User", name="anna")
        await client.create(CLUSTER_ROLE_BINDINGS, given)
        await settle()
        assert authorizer.may(ANNA, Action("get", "", "nodes", "", "vm1"))

    with_authorizer(story)


def test_nobody_gives_away_what_they_do_not_have():
    async def story(client, authorizer):
        role = {
            "metadata": {"name": "r", "namespace": "default"},
            "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"]}],
        }
        with pytest.raises(Forbidden, match="attempting to grant"):
            authorizer.check_escalation(ANNA, ROLES, role)
        powerful = binding("ClusterRole", "cluster-admin", kind="User", name="anna")
        with pytest.raises(Forbidden, match="attempting to grant"):
            authorizer.check_escalation(ANNA, CLUSTER_ROLE_BINDINGS, powerful)
        await client.create(
            ROLE_BINDINGS, binding("ClusterRole", "edit", kind="User", name="anna"), "default"
        )
        await settle()
        authorizer.check_escalation(ANNA, ROLES, role)
        root = User("root", frozenset({"system:masters"}))
        authorizer.check_escalation(root, CLUSTER_ROLE_BINDINGS, powerful)

    with_authorizer(story)


def test_role_of_a_binding_cannot_be_changed():
    async def story(client, authorizer):
        await client.create(ROLE_BINDINGS, binding("ClusterRole", "view", kind="User", name="a"),
                            "default")  # fmt: skip
        with pytest.raises(Invalid, match="cannot change roleRef"):
            await client.patch(ROLE_BINDINGS, "b", {"roleRef": {"name": "edit"}}, "default")

    with_authorizer(story)
