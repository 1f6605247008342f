"""What Kubernetes refuses in affinity, tolerations, spread constraints, gates and taints."""

import pytest

from volagent.objects.field_errors import InvalidObject, MalformedObject
from volagent.objects.validate import prepare_create


def make_pod(**spec):
    return {
        "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "x"}], **spec},
    }  # fmt: skip


def make_node(*taints):
    return {
        "kind": "Node", "apiVersion": "v1", "metadata": {"name": "n"},
        "spec": {"taints": list(taints)},
    }  # fmt: skip


def affinity(kind, when, rule):
    return {"affinity": {kind: {f"{when}DuringSchedulingIgnoredDuringExecution": rule}}}


def required_node(**term):
    return affinity("nodeAffinity", "required", {"nodeSelectorTerms": [term]})


def requirement(key="disk", operator="In", values=("ssd",)):
    return {"key": key, "operator": operator, "values": list(values)}


def refusal(kind, document):
    with pytest.raises(InvalidObject) as caught:
        prepare_create(kind, document)
    return [(error.field, error.message) for error in caught.value.errors]


IN = "requiredDuringSchedulingIgnoredDuringExecution"
LIKED = "preferredDuringSchedulingIgnoredDuringExecution"
NODE_TERMS = f"spec.affinity.nodeAffinity.{IN}.nodeSelectorTerms"
TERM = {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": "zone"}
SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}


@pytest.mark.parametrize(
    "spec",
    [
        required_node(matchExpressions=[requirement()]),
        required_node(matchExpressions=[requirement(operator="Gt", values=["3"])]),
        required_node(matchFields=[requirement("metadata.name")]),
        affinity("podAffinity", "required", [TERM]),
        affinity("podAntiAffinity", "preferred", [{"weight": 100, "podAffinityTerm": TERM}]),
        {"topologySpreadConstraints": [SPREAD, {**SPREAD, "minDomains": 2}]},
        {"tolerations": [{"operator": "Exists"}, {"key": "a", "value": "b"}]},
        {"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute",
                          "tolerationSeconds": 30}]},
        {"schedulingGates": [{"name": "example.com/wait"}]},
    ],
)  # fmt: skip
def test_sound_wishes_are_kept_as_given(spec):
    kept = prepare_create("Pod", make_pod(**spec))["spec"]
    assert {name: kept[name] for name in spec} == spec


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        (affinity("nodeAffinity", "required", {"nodeSelectorTerms": []}), NODE_TERMS,
         "must have at least one node selector term"),
        (required_node(matchExpressions=[requirement(operator="Like")]),
         f"{NODE_TERMS}[0].matchExpressions[0].operator", "not a valid selector operator"),
        (required_node(matchExpressions=[requirement(values=[])]),
         f"{NODE_TERMS}[0].matchExpressions[0].values", "must be specified when"),
        (required_node(matchExpressions=[requirement(operator="Exists")]),
         f"{NODE_TERMS}[0].matchExpressions[0].values", "may not be specified when"),
        (required_node(matchExpressions=[requirement(operator="Lt", values=["1", "2"])]),
         f"{NODE_TERMS}[0].matchExpressions[0].values", "single value"),
        (required_node(matchExpressions=[requirement("/")]),
         f"{NODE_TERMS}[0].matchExpressions[0].key", "name part must be non-empty"),
        (required_node(matchFields=[requirement("spec.x")]),
         f"{NODE_TERMS}[0].matchFields[0].key", "not a valid field selector key"),
        (affinity("nodeAffinity", "preferred", [{"weight": 0, "preference": {}}]),
         f"spec.affinity.nodeAffinity.{LIKED}[0].weight", "must be in the range 1-100"),
        (affinity("podAffinity", "required", [{**TERM, "topologyKey": ""}]),
         f"spec.affinity.podAffinity.{IN}[0].topologyKey", "can not be empty"),
        (affinity("podAntiAffinity", "preferred", [{"weight": 101, "podAffinityTerm": TERM}]),
         f"spec.affinity.podAntiAffinity.{LIKED}[0].weight", "must be in the range 1-100"),
        ({"topologySpreadConstraints": [{**SPREAD, "maxSkew": 0}]},
         "spec.topologySpreadConstraints[0].maxSkew", "must be greater than zero"),
        ({"topologySpreadConstraints": [{**SPREAD, "whenUnsatisfiable": "Maybe"}]},
         "spec.topologySpreadConstraints[0].whenUnsatisfiable", "supported values"),
        ({"topologySpreadConstraints": [
            {**SPREAD, "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1}]},
         "spec.topologySpreadConstraints[0].minDomains", "DoNotSchedule"),
        ({"topologySpreadConstraints": [{**SPREAD, "nodeTaintsPolicy": "Perhaps"}]},
         "spec.topologySpreadConstraints[0].nodeTaintsPolicy", "supported values"),
        ({"tolerations": [{"value": "b"}]}, "spec.tolerations[0].operator", "must be Exists"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
         "spec.tolerations[0].operator", "value must be empty"),
        ({"tolerations": [{"key": "a", "operator": "In"}]},
         "spec.tolerations[0].operator", "supported values"),
        ({"tolerations": [{"key": "a", "effect": "Never"}]},
         "spec.tolerations[0].effect", "supported values"),
        ({"tolerations": [{"key": "a", "tolerationSeconds": 3}]},
         "spec.tolerations[0].effect", "must be 'NoExecute'"),
        ({"schedulingGates": [{"name": "a gate"}]}, "spec.schedulingGates[0].name", "name part"),
        ({"schedulingGates": [{"name": "a"}], "nodeName": "n"}, "spec.nodeName",
         "until all schedulingGates have been cleared"),
    ],
)  # fmt: skip
def test_wish_that_makes_no_sense_is_refused_by_its_field(spec, field, words):
    found = refusal("Pod", make_pod(**spec))
    assert [name for name, message in found if words in message] == [field], found


@pytest.mark.parametrize(
    ("taint", "field", "words"),
    [
        ({"key": "a", "effect": ""}, "spec.taints[0].effect", "Required value"),
        ({"key": "a", "effect": "Never"}, "spec.taints[0].effect", "supported values"),
        ({"key": "", "effect": "NoSchedule"}, "spec.taints[0].key", "name part"),
        ({"key": "a", "value": "b c", "effect": "NoSchedule"}, "spec.taints[0].value",
         "a valid label"),
    ],
)  # fmt: skip
def test_taint_that_makes_no_sense_is_refused(taint, field, words):
    found = refusal("Node", make_node(taint))
    assert field in [name for name, message in found if words in message], found


def test_taint_of_one_key_and_effect_is_given_once():
    taint = {"key": "a", "effect": "NoSchedule"}
    assert refusal("Node", make_node(taint, {**taint, "value": "b"}))[0][0] == "spec.taints[1]"
    prepare_create("Node", make_node(taint, {**taint, "effect": "NoExecute"}))


@pytest.mark.parametrize(
    "spec",
    [
        {"affinity": "near"}, {"tolerations": [{"key": 1}]},
        affinity("nodeAffinity", "required", {"nodeSelectorTerms": "x"}),
        affinity("podAffinity", "required", [{**TERM, "labelSelector": {"matchLabels": "x"}}]),
        {"topologySpreadConstraints": [{**SPREAD, "maxSkew": "1"}]},
    ],
)  # fmt: skip
def test_wrong_types_are_refused_before_the_scheduler_sees_them(spec):
    with pytest.raises(MalformedObject):
        prepare_create("Pod", make_pod(**spec))
