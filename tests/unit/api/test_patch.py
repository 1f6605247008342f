"""JSON patch, merge patch and strategic merge patch."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volagent.api.patch import STRATEGIC_PATCH, apply_json_patch, apply_patch, merge
from volagent.client.contract import (
    CONFIG_MAPS,
    PODS,
    SERVICE_ACCOUNTS,
    BadRequest,
    Invalid,
    UnsupportedMediaType,
)

KEYS = st.text("ab/~0-", max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def escape(part):
    return str(part).replace("~", "~0").replace("/", "~1")


def difference(before, after, path=""):
    """A JSON patch from one document to the other: an independent, naive generator."""
    if isinstance(before, dict) and isinstance(after, dict):
        gone = before.keys() - after.keys()
        operations = [{"op": "remove", "path": f"{path}/{escape(key)}"} for key in gone]
        for key in after:
            place = f"{path}/{escape(key)}"
            if key in before:
                operations += difference(before[key], after[key], place)
            else:
                operations.append({"op": "add", "path": place, "value": after[key]})
        return operations
    if isinstance(before, list) and isinstance(after, list):
        common = min(len(before), len(after))
        operations = []
        for index in range(common):
            operations += difference(before[index], after[index], f"{path}/{index}")
        operations += [{"op": "remove", "path": f"{path}/{common}"}] * (len(before) - common)
        operations += [{"op": "add", "path": f"{path}/-", "value": v} for v in after[common:]]
        return operations
    if before is after or (type(before) is type(after) and before == after):
        return [{"op": "test", "path": path, "value": after}]
    return [{"op": "replace", "path": path, "value": after}]


def merge_difference(before, after):
    """A merge patch from one object to the other (RFC 7386 has none for nulls inside)."""
    patch = {key: None for key in before.keys() - after.keys()}
    for key, value in after.items():
        held = before.get(key)
        if isinstance(value, dict) and isinstance(held, dict):
            patch[key] = merge_difference(held, value)
        elif key not in before or held != value or type(held) is not type(value):
            patch[key] = value
    return patch


def without_nulls(value):
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


@given(JSON, JSON)
def test_json_patch_leads_from_any_document_to_any_other(before, after):
    untouched = copy.deepcopy(before)

    assert apply_json_patch(before, difference(before, after)) == after
    assert before == untouched


@given(st.dictionaries(KEYS, JSON, max_size=4), st.dictionaries(KEYS, JSON, max_size=4))
def test_merge_patch_leads_from_any_object_to_any_other(before, after):
    before, after = without_nulls(before), without_nulls(after)
    untouched = copy.deepcopy(before)

    assert merge(before, merge_difference(before, after)) == after
    assert before == untouched


@given(JSON, JSON)
def test_merge_patch_twice_is_merge_patch_once(target, patch):
    once = merge(target, patch)
    assert merge(once, patch) == once


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_the_examples_of_its_rfc(target, patch, result):
    assert merge(target, patch) == result


@pytest.mark.parametrize(
    ("document", "operation", "result"),
    [
        ({"a": [1, 3]}, {"op": "add", "path": "/a/1", "value": 2}, {"a": [1, 2, 3]}),
        ({"a": [1]}, {"op": "add", "path": "/a/-", "value": 2}, {"a": [1, 2]}),
        ({"a": {"b": 1}}, {"op": "move", "from": "/a/b", "path": "/c"}, {"a": {}, "c": 1}),
        ({"a": [1, 2]}, {"op": "move", "from": "/a/0", "path": "/a/1"}, {"a": [2, 1]}),
        ({"a": 1}, {"op": "copy", "from": "/a", "path": "/b"}, {"a": 1, "b": 1}),
        ({"~a/b": 1}, {"op": "replace", "path": "/~0a~1b", "value": 2}, {"~a/b": 2}),
        ({"": 1}, {"op": "test", "path": "/", "value": 1}, {"": 1}),
        ({"a": 1}, {"op": "replace", "path": "", "value": {"b": 2}}, {"b": 2}),
    ],
)
def test_json_patch_operation_does_what_its_rfc_says(document, operation, result):
    assert apply_json_patch(document, [operation]) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/x"},
        {"op": "remove", "path": ""},
        {"op": "replace", "path": "/x", "value": 1},
        {"op": "add", "path": "/a/3", "value": 1},
        {"op": "add", "path": "/a/01", "value": 1},
        {"op": "add", "path": "/a/-1", "value": 1},
        {"op": "add", "path": "/a/99999999999999999999", "value": 1},
        {"op": "add", "path": "/x/y", "value": 1},
        {"op": "add", "path": "/n/y", "value": 1},
        {"op": "test", "path": "/n", "value": 2},
        {"op": "test", "path": "/t", "value": 1},
        {"op": "move", "from": "/o", "path": "/o/p"},
        {"op": "copy", "from": "/x", "path": "/y"},
    ],
)
def test_json_patch_operation_that_cannot_be_done_is_invalid(operation):
    with pytest.raises(Invalid):
        apply_json_patch({"a": [1, 2], "n": 1, "t": True, "o": {"p": 1}}, [operation])


@pytest.mark.parametrize(
    "operations",
    [{}, "x", [1], [{"op": "fly", "path": "/a"}], [{"op": "add", "path": "a", "value": 1}],
     [{"op": "add", "path": "/a"}], [{"op": "add", "value": 1}], [{"op": "copy", "path": "/a"}]],
)  # fmt: skip
def test_json_patch_that_is_none_is_a_bad_request(operations):
    with pytest.raises(BadRequest):
        apply_json_patch({}, operations)


def test_unknown_kind_of_patch_is_not_accepted():
    with pytest.raises(UnsupportedMediaType):
        apply_patch(CONFIG_MAPS, {"metadata": {}}, {}, "application/yaml")


# -- strategic -----------------------------------------------------------------------------------


def strategic(spec, patch, resource=PODS):
    document = {"metadata": {"name": "a"}, **spec}
    untouched = copy.deepcopy(document)
    patched = apply_patch(resource, document, patch, STRATEGIC_PATCH)
    assert document == untouched
    return patched


def containers(*names, **extra):
    return {"spec": {"containers": [{"name": name, **extra} for name in names]}}


def test_strategic_patch_merges_containers_by_name_and_puts_new_ones_first():
    patched = strategic(
        containers("a", "b", image="old"),
        {"spec": {"containers": [{"name": "b", "image": "new"}, {"name": "c"}]}},
    )

    assert patched["spec"]["containers"] == [
        {"name": "a", "image": "old"},
        {"name": "b", "image": "new"},
        {"name": "c"},
    ]
    patched = strategic(containers("a"), {"spec": {"containers": [{"name": "c"}]}})
    assert [c["name"] for c in patched["spec"]["containers"]] == ["c", "a"]


def test_strategic_patch_deletes_an_item_by_its_directive():
    patched = strategic(
        containers("a", "b"), {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}
    )

    assert patched["spec"]["containers"] == [{"name": "b"}]


def test_strategic_patch_merges_what_is_inside_containers_by_its_own_keys():
    before = {
        "containers": [
            {
                "name": "a",
                "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}],
                "volumeMounts": [{"mountPath": "/a", "name": "v"}],
                "args": ["one"],
            }
        ]
    }
    change = {
        "name": "a",
        "env": [{"name": "Y", "value": "3"}],
        "volumeMounts": [{"mountPath": "/b", "name": "v"}],
        "args": ["two"],
    }

    (patched,) = strategic({"spec": before}, {"spec": {"containers": [change]}})["spec"][
        "containers"
    ]

    assert patched["env"] == [{"name": "X", "value": "1"}, {"name": "Y", "value": "3"}]
    assert [mount["mountPath"] for mount in patched["volumeMounts"]] == ["/b", "/a"]
    assert patched["args"] == ["two"]


def test_strategic_patch_orders_items_as_it_is_told():
    patched = strategic(
        containers("a", "b", "c"),
        {"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
                  "containers": [{"name": "a", "image": "new"}]}},
    )  # fmt: skip

    names = [container["name"] for container in patched["spec"]["containers"]]
    assert names.index("c") < names.index("a")
    assert sorted(names) == ["a", "b", "c"]


def test_strategic_patch_replaces_lists_without_a_key_whole():
    patched = strategic(
        {"spec": {"tolerations": [{"key": "a"}, {"key": "b"}]}},
        {"spec": {"tolerations": [{"key": "c"}]}},
    )

    assert patched["spec"]["tolerations"] == [{"key": "c"}]


def test_strategic_patch_keeps_both_ports_of_one_number():
    ports = [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]
    before = {"spec": {"containers": [{"name": "a", "ports": ports}]}}

    patched = strategic(before, {"spec": {"containers": [{"name": "a", "image": "x"}]}})
    assert patched["spec"]["containers"][0]["ports"] == ports
    again = strategic(before, {"spec": {"containers": [{"name": "a", "ports": ports}]}})
    assert again["spec"]["containers"][0]["ports"] == ports


def test_strategic_patch_treats_finalizers_as_a_set():
    before = {"metadata": {"name": "a", "finalizers": ["x", "y"]}}

    added = strategic(before, {"metadata": {"finalizers": ["z", "x"]}})
    assert sorted(added["metadata"]["finalizers"]) == ["x", "y", "z"]
    removed = strategic(before, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}})
    assert removed["metadata"]["finalizers"] == ["y"]


def test_strategic_patch_retains_only_the_keys_it_names():
    before = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    change = {"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}

    patched = strategic(before, {"spec": {"volumes": [change]}})

    assert patched["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/x"}}]


def test_strategic_patch_replaces_an_object_by_its_directive():
    before = {"spec": {"securityContext": {"fsGroup": 1, "runAsUser": 2}}}

    patched = strategic(before, {"spec": {"securityContext": {"$patch": "replace", "fsGroup": 3}}})

    assert patched["spec"]["securityContext"] == {"fsGroup": 3}


def test_strategic_patch_merges_conditions_by_type():
    before = {"status": {"conditions": [{"type": "A", "status": "True"}]}}

    patched = strategic(before, {"status": {"conditions": [{"type": "A", "status": "False"}]}})

    assert patched["status"]["conditions"] == [{"type": "A", "status": "False"}]


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"containers": [{"image": "no name"}]}},
        {"spec": {"containers": ["x"]}},
        {"spec": {"$patch": "explode"}},
        {"spec": {"$retainKeys": "x"}},
        {"metadata": {"finalizers": [{}]}},
        {"metadata": None},
    ],
)
def test_strategic_patch_that_makes_no_sense_is_a_bad_request(patch):
    with pytest.raises(BadRequest):
        strategic(containers("a"), patch)


@given(st.permutations(["a", "b", "c", "d"]), st.permutations(["b", "d", "x"]))
def test_strategic_patch_keeps_every_item_once_and_both_orders(held, changed):
    patched = strategic(
        {"secrets": [{"name": name} for name in held]},
        {"secrets": [{"name": name} for name in changed]},
        SERVICE_ACCOUNTS,
    )

    names = [secret["name"] for secret in patched["secrets"]]
    assert sorted(names) == ["a", "b", "c", "d", "x"]
    assert [name for name in names if name in changed] == list(changed)
    only_held = [name for name in held if name not in changed]
    assert [name for name in names if name in only_held] == only_held
