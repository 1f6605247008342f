import pytest

from tests.unit.runtime.pod_making import make_container, make_objects, make_pod
from volagent.runtime.contract import SpecError
from volagent.runtime.env import resolve_env


def env_of(container, objects=None, **pod):
    made = make_pod(container, **pod)
    return resolve_env(made, made.spec.containers[0], objects or make_objects())


def value_from(**source):
    return make_container(env=[{"name": "X", "valueFrom": source}])


def test_variable_sees_those_before_it():
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(C)"},
        {"name": "C", "value": "$(B)"},
    ]
    assert env_of(make_container(env=env)) == {"A": "1", "B": "1-$(C)", "C": "1-$(C)"}


def test_own_variable_wins_over_those_of_whole_objects_which_it_can_use():
    container = make_container(
        envFrom=[
            {"configMapRef": {"name": "m"}, "prefix": "P_"},
            {"secretRef": {"name": "s"}},
        ],
        env=[{"name": "P_a", "value": "$(P_a)+$(b)"}],
    )
    objects = make_objects({"s": {"b": b"2", "not a name": b"x"}}, {"m": {"a": "1"}})
    assert env_of(container, objects) == {"P_a": "1+2", "b": "2"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "default"),
        ("metadata.labels['app']", "shop"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['x']", ""),
        ("spec.nodeName", "vm-1"),
        ("status.hostIP", "10.0.0.9"),
    ],
)
def test_field_of_the_pod_is_read(path, value):
    assert env_of(value_from(fieldRef={"fieldPath": path})) == {"X": value}


def test_pod_address_is_the_node_s_when_the_pod_is_on_its_network():
    container = value_from(fieldRef={"fieldPath": "status.podIP"})
    assert env_of(container, hostNetwork=True) == {"X": "10.0.0.9"}
    with pytest.raises(SpecError, match="only with hostNetwork"):
        env_of(container)


@pytest.mark.parametrize(
    ("selector", "value"),
    [
        ({"resource": "limits.cpu"}, "1"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "500"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "8192"),
        ({"resource": "requests.memory", "divisor": "1Mi"}, "2"),
        ({"resource": "requests.cpu"}, "0"),
    ],
)
def test_resource_is_divided_and_rounded_up(selector, value):
    container = value_from(resourceFieldRef=selector)
    container["resources"] = {"limits": {"cpu": "500m"}, "requests": {"memory": "1025Ki"}}
    assert env_of(container) == {"X": value}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        (
            {"configMapKeyRef": {"name": "m", "key": "k"}},
            "couldn't find key k in ConfigMap default/m",
        ),
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "couldn't find key k in Secret default/s"),
        ({"secretKeyRef": {"name": "s", "key": "bin"}}, "the value of key bin is not UTF-8 text"),
        ({"fieldRef": {"fieldPath": "spec.what"}}, "unsupported fieldPath: spec.what"),
        ({"resourceFieldRef": {"resource": "cpu"}}, "unsupported container resource: cpu"),
    ],
)  # fmt: skip
def test_broken_reference_names_its_place_and_the_cause(source, message):
    objects = make_objects({"s": {"bin": b"\xff"}}, {"m": {}})
    with pytest.raises(SpecError) as caught:
        env_of(value_from(**source), objects)
    assert caught.value.message == message
    assert caught.value.field.startswith("main.env[X].valueFrom")
    assert caught.value.reason == "CreateContainerConfigError"


def test_optional_reference_leaves_the_variable_out_when_it_is_missing():
    container = make_container(
        envFrom=[{"configMapRef": {"name": "no", "optional": True}}],
        env=[
            {
                "name": "X",
                "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": True}},
            }
        ],
    )
    assert env_of(container) == {}


def test_missing_whole_object_is_named():
    container = make_container(envFrom=[{"secretRef": {"name": "no"}}])
    with pytest.raises(SpecError, match='secret "no" not found'):
        env_of(container)
