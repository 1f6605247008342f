"""Where a pod's claims can be bound: rules one by one, and the assignment against brute force."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.control.scheduling_world import (
    a_claim,
    a_class,
    a_node,
    a_pod,
    a_volume,
    bound,
    make_world,
    pod_of,
)
from volagent.control.schedule.assignment import assign
from volagent.control.schedule.decide import Assign, Nowhere, Prepare, decide_pod
from volagent.objects.annotations import SELECTED_NODE

HEAD = "0/2 nodes are available: "
NONE_TO_BIND = f"{HEAD}2 node(s) didn't find available persistent volumes to bind."
NODES = (a_node("n1"), a_node("n2"))
MAKES = a_class("local", "test/backend")


def ask(pod, nodes=NODES, preferred="", **world):
    return decide_pod(pod_of(pod), make_world(nodes, **world), preferred=preferred)


def selected(claim, node):
    return {**claim, "metadata": {**claim["metadata"], "annotations": {SELECTED_NODE: node}}}


def reserved(volume, claim, uid=""):
    reference = {"namespace": "default", "name": claim, **({"uid": uid} if uid else {})}
    return {**volume, "spec": {**volume["spec"], "claimRef": reference}}


def outcome(verdict):
    """Node, pairs of claim and volume, claims to be made; or the message."""
    match verdict:
        case Nowhere(message):
            return message
        case Assign(node):
            return node
        case Prepare(node, reserve, provision):
            pairs = {claim.metadata.name: volume.metadata.name for claim, volume in reserve}
            return node, pairs, [claim.metadata.name for claim in provision]


@pytest.mark.parametrize(
    ("claims", "classes", "problem"),
    [
        ([], [], 'persistentvolumeclaim "data" not found'),
        ([a_claim("data")], [], "pod has unbound immediate PersistentVolumeClaims"),
        ([a_claim("data")], [a_class(volumeBindingMode="Immediate")],
         "pod has unbound immediate PersistentVolumeClaims"),
        ([a_claim("data", volumeName="pv")], [a_class()],
         "pod has unbound immediate PersistentVolumeClaims"),
        ([{**bound(a_claim("data"), "pv"), "status": {"phase": "Lost"}}], [],
         'persistentvolumeclaim "data" bound to non-existent persistentvolume "pv"'),
    ],
)  # fmt: skip
def test_claim_that_no_node_can_help_is_named_once(claims, classes, problem):
    verdict = ask(a_pod("web", "data"), claims=claims, classes=classes)
    assert verdict == Nowhere(f"{HEAD}{problem}.", may_pass=True)


def test_claim_that_is_going_keeps_its_pod_away():
    claim = bound(a_claim("data"), "pv")
    claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    verdict = ask(a_pod("web", "data"), claims=[claim], volumes=[a_volume("pv", "n1")])
    assert verdict.message == f'{HEAD}persistentvolumeclaim "data" is being deleted.'


def ephemeral_pod():
    pod = a_pod("web")
    pod["spec"]["volumes"] = [{"name": "tmp", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]
    return pod


def test_ephemeral_claim_is_awaited_and_must_be_the_pods_own():
    pod = ephemeral_pod()
    assert ask(pod).message == (
        f"{HEAD}waiting for ephemeral volume controller to create the persistentvolumeclaim "
        '"web-tmp".'
    )
    claim = bound(a_claim("web-tmp"), "pv")
    world = {"volumes": [a_volume("pv", "n2")]}
    stranger = ask(pod, claims=[claim], **world)
    assert stranger.message == (
        f"{HEAD}PVC default/web-tmp was not created for pod default/web (pod is not owner)."
    )
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "uid-web", "controller": True}
    own = {**claim, "metadata": {**claim["metadata"], "ownerReferences": [owner]}}
    assert outcome(ask(pod, claims=[own], **world)) == "n2"


def test_bound_volume_holds_its_pod_to_its_node():
    world = {"claims": [bound(a_claim("data"), "pv")], "volumes": [a_volume("pv", "n2")]}
    assert outcome(ask(a_pod("web", "data"), **world)) == "n2"
    away = ask(a_pod("web", "data"), nodes=(a_node("n1"), a_node("n3")), **world)
    assert away.message == f"{HEAD}2 node(s) had volume node affinity conflict."


def test_bound_volume_that_is_gone_is_told():
    verdict = ask(a_pod("web", "data"), claims=[bound(a_claim("data"), "pv")])
    assert verdict.may_pass
    assert verdict.message == (
        f"{HEAD}2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)."
    )


def test_two_bound_volumes_on_different_nodes_leave_none():
    world = {
        "claims": [bound(a_claim("a"), "pva"), bound(a_claim("b"), "pvb")],
        "volumes": [a_volume("pva", "n1"), a_volume("pvb", "n2")],
    }
    verdict = ask(a_pod("web", "a", "b"), **world)
    assert verdict.message == f"{HEAD}2 node(s) had volume node affinity conflict."


@pytest.mark.parametrize(
    "changes",
    [
        {"storageClassName": "other"}, {"accessModes": ["ReadWriteMany"]},
        {"capacity": {"storage": "1Mi"}}, {"volumeMode": "Block"},
    ],
)  # fmt: skip
def test_volume_that_does_not_fit_is_no_choice(changes):
    volume = a_volume("pv", "n1")
    volume["spec"] |= changes
    world = {"claims": [a_claim("data")], "classes": [a_class()], "volumes": [volume]}
    assert outcome(ask(a_pod("web", "data"), **world)) == NONE_TO_BIND


@pytest.mark.parametrize("phase", ["Pending", "Bound", "Released", "Failed"])
def test_only_available_volumes_are_taken(phase):
    volume = {**a_volume("pv", "n1"), "status": {"phase": phase}}
    world = {"claims": [a_claim("data")], "classes": [a_class()], "volumes": [volume]}
    assert outcome(ask(a_pod("web", "data"), **world)) == NONE_TO_BIND


def test_selector_of_a_claim_is_heeded():
    claim = a_claim("data", selector={"matchLabels": {"disk": "ssd"}})
    plain, fast = a_volume("a", "n1"), a_volume("b", "n2")
    fast["metadata"]["labels"] = {"disk": "ssd"}
    world = {"claims": [claim], "classes": [a_class()], "volumes": [plain, fast]}
    assert outcome(ask(a_pod("web", "data"), **world)) == ("n2", {"data": "b"}, [])


def test_volume_that_is_reserved_for_a_claim_decides_the_node():
    volumes = [a_volume("near", "n1"), reserved(a_volume("mine", "n2", "9Gi"), "data")]
    world = {"claims": [a_claim("data")], "classes": [a_class()], "volumes": volumes}
    assert outcome(ask(a_pod("web", "data"), **world)) == ("n2", {"data": "mine"}, [])
    only_first = ask(a_pod("web", "data"), nodes=NODES[:1], **world)
    assert "the volume reserved for it is elsewhere" in only_first.describe()


def test_reservation_that_is_written_is_not_written_again():
    volumes = [reserved(a_volume("mine", "n2"), "data", "uid-data")]
    world = {"claims": [a_claim("data")], "classes": [a_class()], "volumes": volumes}
    assert ask(a_pod("web", "data"), **world) == Prepare("n2", waiting=("data",))


def test_volume_that_exists_is_taken_before_one_is_made():
    world = {"claims": [a_claim("data")], "classes": [MAKES]}
    volumes = [a_volume("pv", "n2", "100Gi")]
    made = ask(a_pod("web", "data"), **world)
    assert outcome(made) == ("n1", {}, ["data"])
    assert outcome(ask(a_pod("web", "data"), volumes=volumes, **world)) == (
        "n2", {"data": "pv"}, [],
    )  # fmt: skip


def test_least_waste_decides_between_nodes():
    volumes = [a_volume("large", "n1", "9Gi"), a_volume("small", "n2", "2Gi")]
    world = {"claims": [a_claim("data")], "classes": [a_class()], "volumes": volumes}
    assert outcome(ask(a_pod("web", "data"), **world)) == ("n2", {"data": "small"}, [])


def test_claim_whose_volume_is_being_made_keeps_its_node():
    world = {"claims": [selected(a_claim("data"), "n2")], "classes": [MAKES]}
    assert ask(a_pod("web", "data"), **world) == Prepare("n2", waiting=("data",))
    alone = ask(a_pod("web", "data"), nodes=(NODES[0], a_node("n2", unschedulable=True)), **world)
    assert alone.message == (
        f"{HEAD}1 node(s) didn't find available persistent volumes to bind, "
        "1 node(s) were unschedulable."
    )
    assert 'persistentvolumeclaim "data" gets its volume on n2' in alone.describe()


def test_claim_whose_node_is_gone_gets_another():
    world = {"claims": [selected(a_claim("data"), "gone")], "classes": [MAKES]}
    assert outcome(ask(a_pod("web", "data"), **world)) == ("n1", {}, ["data"])


def test_node_that_a_provisioner_refused_is_left_out():
    world = {"claims": [a_claim("data")], "classes": [MAKES]}
    one = ask(a_pod("web", "data"), refused={("uid-data", "n1")}, **world)
    assert outcome(one) == ("n2", {}, ["data"])
    both = {("uid-data", "n1"), ("uid-data", "n2")}
    text = "2 node(s) did not have enough free storage."
    assert outcome(ask(a_pod("web", "data"), refused=both, **world)) == HEAD + text
    other = {("uid-other", "n1")}
    assert outcome(ask(a_pod("web", "data"), refused=other, **world)) == ("n1", {}, ["data"])


def test_allowed_topologies_of_the_class_choose_the_node():
    nodes = (a_node("n1", zone="a"), a_node("n2", zone="b"))
    terms = [{"matchLabelExpressions": [{"key": "zone", "values": ["b", "c"]}]}]
    picky = a_class("local", "test/backend", allowedTopologies=terms)
    world = {"claims": [a_claim("data")], "classes": [picky]}
    assert outcome(ask(a_pod("web", "data"), nodes=nodes, **world)) == ("n2", {}, ["data"])
    refused = ask(a_pod("web", "data"), nodes=(nodes[0], a_node("n3")), **world)
    assert refused.message == NONE_TO_BIND
    assert 'the allowedTopologies of class "local" exclude the node' in refused.describe()


def test_class_without_a_provisioner_makes_nothing():
    world = {"claims": [a_claim("data")], "classes": [a_class()]}
    verdict = ask(a_pod("web", "data"), **world)
    assert verdict.message == NONE_TO_BIND
    assert "no free volume fits, and its class makes none" in verdict.describe()


def test_claims_of_one_pod_are_solved_together():
    """A greedy choice gives `any` the volume with the label, and `picky` nothing."""
    labelled, plain = a_volume("a", "n1"), a_volume("b", "n1")
    labelled["metadata"]["labels"] = {"disk": "ssd"}
    picky = a_claim("picky", selector={"matchLabels": {"disk": "ssd"}})
    world = {
        "claims": [a_claim("any"), picky], "classes": [a_class()], "volumes": [labelled, plain],
    }  # fmt: skip
    assert outcome(ask(a_pod("web", "any", "picky"), **world)) == (
        "n1", {"any": "b", "picky": "a"}, [],
    )  # fmt: skip


def test_pod_whose_claims_find_too_few_volumes_together_is_told_so():
    world = {
        "claims": [a_claim("one"), a_claim("two")], "classes": [a_class()],
        "volumes": [a_volume("a", "n1"), a_volume("b", "n2")],
    }  # fmt: skip
    verdict = ask(a_pod("web", "one", "two"), **world)
    assert verdict.message == NONE_TO_BIND
    assert "too few volumes for all of the pod's claims together: one, two" in verdict.describe()


def test_same_claim_twice_in_a_pod_counts_once():
    world = {
        "claims": [a_claim("data")], "classes": [a_class()], "volumes": [a_volume("pv", "n1")],
    }  # fmt: skip
    pod = a_pod("web", "data")
    pod["spec"]["volumes"].append({"name": "again", "persistentVolumeClaim": {"claimName": "data"}})
    assert outcome(ask(pod, **world)) == ("n1", {"data": "pv"}, [])


# -- the assignment against brute force ------------------------------------------------------

costs = st.lists(
    st.dictionaries(st.integers(0, 5), st.integers(0, 4) | st.just(1 << 100), max_size=6),
    max_size=5,
)


def cheapest(rows):
    """The least sum over all ways to give every row a choice of its own, or None."""
    sums = [
        sum(row[choice] for row, choice in zip(rows, chosen, strict=True))
        for chosen in itertools.permutations(range(6), len(rows))
        if all(choice in row for row, choice in zip(rows, chosen, strict=True))
    ]
    return min(sums, default=None)


@given(costs)
def test_assignment_is_found_exactly_when_there_is_one_and_is_the_cheapest(rows):
    chosen = assign(rows)
    expected = cheapest(rows)
    if expected is None:
        assert chosen is None
        return
    assert chosen is not None
    assert len(set(chosen)) == len(rows)
    assert sum(row[choice] for row, choice in zip(rows, chosen, strict=True)) == expected


sizes = st.integers(1, 4)


@given(
    claims=st.lists(st.tuples(sizes, st.booleans()), min_size=1, max_size=3),
    volumes=st.lists(st.tuples(sizes, st.booleans(), st.sampled_from(["n1", "n2"])), max_size=5),
)
def test_pod_is_placed_exactly_where_all_its_claims_can_be_bound(claims, volumes):
    """`claims` are sizes and whether they insist on a label, `volumes` sizes, label, node."""
    documents = []
    for number, (size, picky) in enumerate(claims):
        selector = {"selector": {"matchLabels": {"disk": "ssd"}}} if picky else {}
        documents.append(a_claim(f"c{number}", f"{size}Gi", **selector))
    there = []
    for number, (size, labelled, node) in enumerate(volumes):
        volume = a_volume(f"v{number}", node, f"{size}Gi")
        volume["metadata"]["labels"] = {"disk": "ssd"} if labelled else {}
        there.append(volume)
    names = [f"c{number}" for number in range(len(claims))]
    verdict = ask(a_pod("web", *names), claims=documents, classes=[a_class()], volumes=there)

    best = {}  # node → least waste, by trying everything
    for node in ("n1", "n2"):
        own = [number for number, volume in enumerate(volumes) if volume[2] == node]
        for chosen in itertools.permutations(own, len(claims)):
            taken = [volumes[number] for number in chosen]
            if all(v[0] >= c[0] and v[1] >= c[1] for v, c in zip(taken, claims, strict=True)):
                waste = sum(v[0] - c[0] for v, c in zip(taken, claims, strict=True))
                best[node] = min(waste, best.get(node, waste))
    if not best:
        assert outcome(verdict) == NONE_TO_BIND
        return
    node, pairs, made = outcome(verdict)
    assert made == []
    assert set(pairs) == set(names)
    assert len(set(pairs.values())) == len(names)
    waste = 0
    for number, (size, picky) in enumerate(claims):
        given_size, labelled, where = volumes[int(pairs[f"c{number}"][1:])]
        assert given_size >= size
        assert labelled >= picky
        assert where == node
        waste += given_size - size
    assert waste == min(best.values())
