"""Each filter with what it objects to, in kube-scheduler's words."""

import pytest

from tests.unit.control.scheduling_world import (
    a_claim,
    a_class,
    a_node,
    a_pod,
    a_volume,
    ask,
    bound,
    make_world,
    pod_of,
    reason,
)
from volagent.control.schedule.decide import (
    Assign,
    Nowhere,
    Prepare,
    decide_pod,
    explain_placement,
)

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
SLOW = {"key": "disk", "value": "slow", "effect": "NoSchedule"}
DRAINED = {"key": "drained", "effect": "NoExecute"}
DISLIKED = {"key": "disk", "value": "slow", "effect": "PreferNoSchedule"}


def node_affinity(*expressions, fields=(), when="required"):
    term = {"matchExpressions": list(expressions), "matchFields": list(fields)}
    if when == "required":
        rule = {"nodeSelectorTerms": [term]}
    else:
        rule = [{"weight": 10, "preference": term}]
    return {"nodeAffinity": {f"{when}DuringSchedulingIgnoredDuringExecution": rule}}


def near(kind, labels, key=HOST, when="required", **more):
    term = {"labelSelector": {"matchLabels": labels}, "topologyKey": key, **more}
    rule = term if when == "required" else {"weight": 10, "podAffinityTerm": term}
    return {kind: {f"{when}DuringSchedulingIgnoredDuringExecution": [rule]}}


def test_pod_without_wishes_goes_to_the_only_node():
    assert ask(a_pod("web"), a_node("n1")) == Assign("n1")


def test_without_nodes_kubernetes_sentence_is_said():
    assert ask(a_pod("web")) == Nowhere("no nodes available to schedule pods")


@pytest.mark.parametrize(
    ("tolerations", "expected"),
    [
        ([], "1 node(s) were unschedulable"),
        ([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}], ""),
        ([{"operator": "Exists"}], ""),
    ],
)
def test_cordoned_node_takes_only_who_tolerates_it(tolerations, expected):
    node = a_node("n1", unschedulable=True)
    assert reason(a_pod("web", tolerations=tolerations), node) == expected


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_node_that_is_not_ready_is_left_out(status):
    node = a_node("n1")
    node["status"]["conditions"] = [{"type": "Ready", "status": status}]
    assert reason(a_pod("web"), node) == "1 node(s) were not ready"


def test_node_that_never_said_whether_it_is_ready_comes_last():
    silent = a_node("a")
    del silent["status"]["conditions"]
    assert ask(a_pod("web"), silent) == Assign("a")
    assert ask(a_pod("web"), silent, a_node("b")) == Assign("b")


@pytest.mark.parametrize(
    ("taint", "toleration", "expected"),
    [
        (SLOW, None, "1 node(s) had untolerated taint {disk: slow}"),
        (DRAINED, None, "1 node(s) had untolerated taint {drained: }"),
        (DISLIKED, None, ""),
        (SLOW, {"key": "disk", "operator": "Equal", "value": "slow"}, ""),
        (SLOW, {"key": "disk", "value": "fast"}, "1 node(s) had untolerated taint {disk: slow}"),
        (SLOW, {"key": "disk", "operator": "Exists", "effect": "NoExecute"},
         "1 node(s) had untolerated taint {disk: slow}"),
        (SLOW, {"operator": "Exists"}, ""),
    ],
)  # fmt: skip
def test_taint_keeps_out_who_does_not_tolerate_it(taint, toleration, expected):
    tolerations = [toleration] if toleration else []
    assert reason(a_pod("web", tolerations=tolerations), a_node("n1", taints=[taint])) == expected


AFFINITY = "1 node(s) didn't match Pod's node affinity/selector"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"nodeSelector": {"disk": "ssd"}}, ""),
        ({"nodeSelector": {"disk": "hdd"}}, AFFINITY),
        ({"affinity": node_affinity({"key": "disk", "operator": "In", "values": ["ssd"]})}, ""),
        ({"affinity": node_affinity({"key": "disk", "operator": "DoesNotExist"})}, AFFINITY),
        ({"affinity": node_affinity({"key": "cores", "operator": "Gt", "values": ["8"]})}, ""),
        ({"affinity": node_affinity({"key": "cores", "operator": "Lt", "values": ["8"]})},
         AFFINITY),
        ({"affinity": node_affinity(fields=[
            {"key": "metadata.name", "operator": "In", "values": ["n1"]}])}, ""),
        ({"affinity": node_affinity(fields=[
            {"key": "metadata.name", "operator": "NotIn", "values": ["n1"]}])}, AFFINITY),
    ],
)  # fmt: skip
def test_selector_and_node_affinity_must_both_admit_the_node(spec, expected):
    node = a_node("n1", disk="ssd", cores="16")
    assert reason(a_pod("web", **spec), node) == expected


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        ({"cpu": "2"}, ""),
        ({"cpu": "2001m"}, "1 Insufficient cpu"),
        ({"cpu": "3", "memory": "9Gi"}, "1 Insufficient cpu, 1 Insufficient memory"),
        ({"example.com/gpu": "1"}, "1 Insufficient example.com/gpu"),
        ({"example.com/gpu": "0"}, ""),
    ],
)
def test_requests_must_fit_beside_what_is_there(requests, expected):
    pods = [a_pod("other", requests={"cpu": "2"}, nodeName="n1")]
    assert reason(a_pod("web", requests=requests), a_node("n1"), pods=pods) == expected


def test_init_containers_count_with_their_peak_and_sidecars_stay():
    def container(name, cpu, **more):
        return {"name": name, "image": "x", "resources": {"requests": {"cpu": cpu}}, **more}

    pod = a_pod("web", requests={"cpu": "1"})
    pod["spec"]["initContainers"] = [
        container("sidecar", "1", restartPolicy="Always"), container("setup", "3"),
    ]  # fmt: skip
    assert reason(pod, a_node("n1", cpu="4")) == ""
    assert reason(pod, a_node("n1", cpu="3")) == "1 Insufficient cpu"
    pod["spec"]["overhead"] = {"cpu": "1m"}
    assert reason(pod, a_node("n1", cpu="4")) == "1 Insufficient cpu"


def test_node_has_room_for_so_many_pods():
    node = a_node("n1")
    node["status"]["capacity"] = {"cpu": "4", "memory": "8Gi", "pods": "1"}
    assert reason(a_pod("web"), node) == ""
    pods = [a_pod("other", nodeName="n1")]
    assert reason(a_pod("web"), node, pods=pods) == "1 Too many pods"


def test_claim_for_one_pod_has_no_second_user_anywhere():
    claim = bound(a_claim("data", accessModes=["ReadWriteOncePod"]), "pv")
    world = {"claims": [claim], "volumes": [{**a_volume("pv", "n1"), "status": {"phase": "Bound"}}]}
    assert ask(a_pod("web", "data"), a_node("n1"), a_node("n2"), **world) == Assign("n1")
    users = [a_pod("other", "data", nodeName="n2")]
    verdict = ask(a_pod("web", "data"), a_node("n1"), a_node("n2"), pods=users, **world)
    assert verdict.message == (
        "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name "
        "and ReadWriteOncePod access mode."
    )
    assert 'pod "other" uses persistentvolumeclaim "data"' in verdict.describe()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [({ZONE: "a"}, ""), ({ZONE: "b"}, "1 node(s) had no available volume zone"), ({}, "")],
)
def test_zone_of_a_bound_volume_must_be_the_nodes(labels, expected):
    volume = a_volume("pv", "n1")
    volume["metadata"]["labels"] = {ZONE: "a"}
    world = {"claims": [bound(a_claim("data"), "pv")], "volumes": [volume]}
    assert reason(a_pod("web", "data"), a_node("n1", **labels), **world) == expected


def spread(skew=1, key=ZONE, mode="DoNotSchedule", **more):
    return {
        "maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": mode,
        "labelSelector": {"matchLabels": {"app": "web"}}, **more,
    }  # fmt: skip


def web(name, node="", **spec):
    return a_pod(name, labels={"app": "web"}, **({"nodeName": node} if node else {}), **spec)


ZONES = (a_node("n1", **{ZONE: "a"}), a_node("n2", **{ZONE: "a"}), a_node("n3", **{ZONE: "b"}))


@pytest.mark.parametrize(
    ("there", "constraint", "expected"),
    [
        (["n1"], spread(), "n3"),
        (["n1", "n3"], spread(), "n2"),
        (["n3", "n3", "n1"], spread(), "n2"),
        (["n1", "n2", "n3"], spread(mode="ScheduleAnyway"), "n3"),
    ],
)
def test_pods_spread_over_domains(there, constraint, expected):
    pods = [web(f"p{i}", node) for i, node in enumerate(there)]
    verdict = ask(web("new", topologySpreadConstraints=[constraint]), *ZONES, pods=pods)
    assert verdict == Assign(expected)


@pytest.mark.parametrize(
    ("nodes", "there", "constraint", "expected"),
    [
        (ZONES[:2], ["n1"], spread(), ""),
        (ZONES[:2], ["n1"], spread(minDomains=2),
         "0/2 nodes are available: 2 node(s) didn't match pod topology spread constraints."),
        ((a_node("n9"),), [], spread(),
         "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints "
         "(missing required label)."),
    ],
)  # fmt: skip
def test_spread_that_cannot_hold_is_told(nodes, there, constraint, expected):
    pods = [web(f"p{i}", node) for i, node in enumerate(there)]
    verdict = ask(web("new", topologySpreadConstraints=[constraint]), *nodes, pods=pods)
    assert (verdict.message if isinstance(verdict, Nowhere) else "") == expected


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [
        (near("podAntiAffinity", {"app": "web"}), "n2"),
        (near("podAntiAffinity", {"app": "web"}, ZONE), "n3"),
        (near("podAffinity", {"app": "web"}), "n1"),
        (near("podAffinity", {"app": "web"}, when="preferred"), "n1"),
        (near("podAntiAffinity", {"app": "web"}, ZONE, when="preferred"), "n3"),
        (near("podAffinity", {"app": "web"}, namespaces=["default"]), "n1"),
        (near("podAffinity", {"app": "web"}, namespaceSelector={}), "n1"),
    ],
)
def test_pods_are_near_or_far_as_they_wish(affinity, expected):
    pods = [web("there", "n1")]
    assert ask(a_pod("new", affinity=affinity), *ZONES, pods=pods) == Assign(expected)


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [
        (near("podAffinity", {"app": "db"}), "1 node(s) didn't match pod affinity rules"),
        (near("podAffinity", {"app": "web"}, "rack"), "1 node(s) didn't match pod affinity rules"),
        (near("podAffinity", {"app": "web"}, namespaces=["other"]),
         "1 node(s) didn't match pod affinity rules"),
        (near("podAffinity", {"app": "web"}, namespaceSelector={"matchLabels": {"team": "a"}}),
         "1 node(s) didn't match pod affinity rules"),
        (near("podAntiAffinity", {"app": "web"}),
         "1 node(s) didn't match pod anti-affinity rules"),
        (near("podAntiAffinity", {"app": "db"}), ""),
    ],
)  # fmt: skip
def test_affinity_that_cannot_hold_is_told(affinity, expected):
    pods = [web("there", "n1")]
    assert reason(a_pod("new", affinity=affinity), a_node("n1"), pods=pods) == expected


def test_first_of_pods_that_want_each_other_may_go_anywhere():
    pod = web("first", affinity=near("podAffinity", {"app": "web"}))
    assert ask(pod, *ZONES) == Assign("n1")


def test_anti_affinity_of_pods_that_are_there_counts_too():
    pods = [a_pod("hermit", nodeName="n1", affinity=near("podAntiAffinity", {"app": "web"}))]
    expected = "1 node(s) didn't satisfy existing pods anti-affinity rules"
    assert reason(web("new"), a_node("n1"), pods=pods) == expected
    assert reason(a_pod("other"), a_node("n1"), pods=pods) == ""


def test_every_node_is_counted_with_its_own_reason():
    pod = web("new", nodeSelector={"disk": "ssd"}, requests={"cpu": "3"})
    nodes = (
        a_node("n1", unschedulable=True), a_node("n2", taints=[SLOW]), a_node("n3"),
        a_node("n4", cpu="1", disk="ssd"), a_node("n5", cpu="1", disk="ssd"),
    )  # fmt: skip
    verdict = ask(pod, *nodes)
    assert verdict.message == (
        "0/5 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
        "1 node(s) had untolerated taint {disk: slow}, 1 node(s) were unschedulable, "
        "2 Insufficient cpu."
    )
    listed = [each.describe() for each in explain_placement(pod_of(pod), make_world(nodes))]
    assert listed[3] == "n4: Insufficient cpu (cpu: 3 wanted, 1 free)"
    assert verdict.describe() == f"{verdict.message} [{'; '.join(listed)}]"


def test_least_used_node_is_taken_and_of_equal_ones_the_first():
    pods = [a_pod("other", requests={"cpu": "2"}, nodeName="n1")]
    assert ask(a_pod("web"), a_node("n1"), a_node("n2"), a_node("n3"), pods=pods) == Assign("n2")


@pytest.mark.parametrize(
    ("spec", "nodes"),
    [
        ({}, (a_node("n1", taints=[DISLIKED]), a_node("n2"))),
        ({"affinity": node_affinity({"key": "disk", "operator": "Exists"}, when="preferred")},
         (a_node("n1"), a_node("n2", disk="ssd"))),
    ],
)  # fmt: skip
def test_preferences_decide_between_possible_nodes(spec, nodes):
    assert ask(a_pod("web", **spec), *nodes) == Assign("n2")


def test_node_chosen_before_is_kept_while_it_will_do():
    world = make_world([a_node("n1"), a_node("n2")])
    assert decide_pod(pod_of(a_pod("web")), world, preferred="n2") == Assign("n2")
    cordoned = make_world([a_node("n1"), a_node("n2", unschedulable=True)])
    assert decide_pod(pod_of(a_pod("web")), cordoned, preferred="n2") == Assign("n1")


def test_prepared_pod_waits_for_its_claims_by_name():
    world = {"claims": [a_claim("data")], "classes": [a_class()], "volumes": [a_volume("pv", "n1")]}
    verdict = ask(a_pod("web", "data"), a_node("n1"), a_node("n2"), **world)
    assert isinstance(verdict, Prepare)
    assert (verdict.node, verdict.waiting) == ("n1", ("data",))
    assert [(c.metadata.name, v.metadata.name) for c, v in verdict.reserve] == [("data", "pv")]
