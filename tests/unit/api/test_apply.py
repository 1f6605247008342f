"""Server-side apply: who owns which field, what is merged or taken out, what is a conflict."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volagent.api.apply_fields import (
    OWNED_BY_NOBODY,
    decode_fields,
    encode_fields,
    fields_of,
    form_of,
)
from volagent.api.apply_managers import (
    ANCIENT,
    BEFORE_FIRST_APPLY,
    UPDATERS_LIMIT,
    Writer,
    apply,
    read_managers,
    track_create,
    track_update,
)
from volagent.client.contract import BadRequest, Conflict

EARLY, LATE = "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"
ANNA, BERT = Writer("anna", named=True), Writer("bert", named=True)
Json = dict[str, Any]


def config_map(data: Json | None = None, **metadata: Any) -> Json:
    return {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default", **metadata},
        **({} if data is None else {"data": data}),
    }  # fmt: skip


def pod(*containers: Json, **spec: Any) -> Json:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": list(containers), **spec},
    }  # fmt: skip


def applied(live: Json, config: Json, writer: Writer = ANNA, *, force: bool = False) -> Json:
    """The object after an apply, as it would be stored."""
    made = apply(live, config, writer, LATE, force=force)
    metadata = {**made.document["metadata"], "managedFields": made.managed_fields}
    return {**made.document, "metadata": metadata}


def updated(live: Json, new: Json, writer: Writer) -> Json:
    """The object after another write."""
    entries = track_update(live, new, writer, LATE, "")
    return {**new, "metadata": {**new["metadata"], "managedFields": entries}}


def owners(document: Json) -> dict[str, set[str]]:
    """Manager → the fields it owns, each as its path."""
    return {
        manager.name: {"/".join(path) for path in owned.fields}
        for manager, owned in read_managers(document["metadata"]["managedFields"]).items()
    }


def test_what_was_applied_is_owned_and_only_that() -> None:
    made = applied({}, config_map({"a": "1"}, labels={"l": "x"}))
    assert owners(made) == {"anna": {"f:data/f:a", "f:metadata/f:labels/f:l"}}


def test_field_goes_when_its_only_owner_no_longer_applies_it() -> None:
    made = applied({}, config_map({"a": "1", "b": "2"}, labels={"l": "x"}))
    made = applied(made, config_map({"a": "1"}))
    assert made["data"] == {"a": "1"}
    assert "labels" not in made["metadata"]
    assert owners(made) == {"anna": {"f:data/f:a"}}


def test_field_stays_when_another_owner_applies_it_too() -> None:
    made = applied({}, config_map({"a": "1", "b": "2"}))
    made = applied(made, config_map({"b": "2"}), BERT)
    made = applied(made, config_map({"a": "1"}))
    assert made["data"] == {"a": "1", "b": "2"}
    assert owners(made) == {"anna": {"f:data/f:a"}, "bert": {"f:data/f:b"}}


def test_conflict_names_manager_and_field_when_another_set_it_otherwise() -> None:
    made = applied({}, config_map({"a": "1", "b": "2"}))
    with pytest.raises(Conflict) as caught:
        applied(made, config_map({"a": "9"}), BERT)
    text = 'Apply failed with 1 conflict: conflict with "anna": .data.a'
    assert caught.value.message == text
    assert caught.value.details["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "anna"', "field": ".data.a"}
    ]
    with pytest.raises(Conflict) as caught:
        applied(made, config_map({"a": "9", "b": "9"}), BERT)
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "anna":\n- .data.a\n- .data.b'
    )


def test_field_changes_hands_when_apply_is_forced() -> None:
    made = applied({}, config_map({"a": "1", "b": "2"}))
    made = applied(made, config_map({"a": "9"}), BERT, force=True)
    assert made["data"] == {"a": "9", "b": "2"}
    assert owners(made) == {"anna": {"f:data/f:b"}, "bert": {"f:data/f:a"}}


def test_conflict_when_an_update_changed_what_was_applied() -> None:
    made = applied({}, config_map({"a": "1"}))
    made = updated(made, {**made, "data": {"a": "2"}}, Writer("kubectl-edit", named=True))
    assert owners(made) == {"kubectl-edit": {"f:data/f:a"}}
    with pytest.raises(Conflict, match=r'conflict with "kubectl-edit" using v1: \.data\.a'):
        applied(made, config_map({"a": "1"}))


def test_everything_has_an_owner_when_first_applied_to() -> None:
    live = config_map({"a": "1", "b": "2"})
    made = applied(live, config_map({"a": "1"}))
    assert owners(made) == {
        BEFORE_FIRST_APPLY: {"f:data/f:a", "f:data/f:b"}, "anna": {"f:data/f:a"},
    }  # fmt: skip
    with pytest.raises(Conflict, match=BEFORE_FIRST_APPLY):
        applied(live, config_map({"a": "2"}))


def test_nothing_changes_when_the_same_is_applied_again() -> None:
    made = applied({}, pod({"name": "a", "image": "i"}))
    again = apply(made, pod({"name": "a", "image": "i"}), ANNA, "2030-01-01T00:00:00Z", force=False)
    assert again.document == made
    assert again.managed_fields == made["metadata"]["managedFields"]


def test_lists_are_merged_by_their_keys() -> None:
    made = applied({}, pod({"name": "a", "image": "i", "env": [{"name": "X", "value": "1"}]}))
    made = applied(
        made, pod({"name": "b", "image": "j"}, {"name": "a", "env": [{"name": "Y"}]}), BERT
    )
    first, second = made["spec"]["containers"]
    assert (first["name"], second["name"]) == ("b", "a")
    assert second == {
        "name": "a", "image": "i", "env": [{"name": "X", "value": "1"}, {"name": "Y"}],
    }  # fmt: skip
    made = applied(made, pod({"name": "a", "image": "i"}), BERT)
    assert [c["name"] for c in made["spec"]["containers"]] == ["a"]
    assert made["spec"]["containers"][0]["env"] == [{"name": "X", "value": "1"}]


def test_item_takes_its_defaults_along_when_it_goes() -> None:
    made = applied({}, pod({"name": "a", "image": "i"}, {"name": "b", "image": "j"}))
    made["spec"]["containers"][1]["imagePullPolicy"] = "Always"  # as defaulting does
    made = applied(made, pod({"name": "a", "image": "i"}))
    assert made["spec"]["containers"] == [{"name": "a", "image": "i"}]


def test_sets_are_merged_by_value_and_atomic_lists_replaced() -> None:
    made = applied({}, config_map(finalizers=["x/a"]))
    made = applied(made, config_map(finalizers=["x/b"]), BERT)
    assert made["metadata"]["finalizers"] == ["x/a", "x/b"]
    assert owners(made)["bert"] == {'f:metadata/f:finalizers/v:"x/b"'}
    made = applied(made, config_map())
    assert made["metadata"]["finalizers"] == ["x/b"]
    first = applied({}, pod({"name": "a", "image": "i", "args": ["1"]}))
    with pytest.raises(Conflict, match=r'\.spec\.containers\[name="a"\]\.args'):
        applied(first, pod({"name": "a", "args": ["2"]}), BERT)


def test_ports_with_one_number_are_told_apart_by_protocol() -> None:
    ports = [{"containerPort": 53}, {"containerPort": 53, "protocol": "UDP"}]
    made = applied({}, pod({"name": "a", "image": "i", "ports": ports}))
    made["spec"]["containers"][0]["ports"][0]["protocol"] = "TCP"
    made = applied(made, pod({"name": "a", "image": "i", "ports": ports}))
    assert [p["protocol"] for p in made["spec"]["containers"][0]["ports"]] == ["TCP", "UDP"]


def test_item_named_twice_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"\.spec\.containers: duplicate entries for key"):
        applied({}, pod({"name": "a", "image": "i"}, {"name": "a", "image": "j"}))


def test_equal_amounts_are_no_conflict_however_they_are_written() -> None:
    def claim(size: str) -> Json:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        return {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
            "spec": spec,
        }  # fmt: skip

    made = applied({}, claim("1Gi"))
    applied(made, claim("1024Mi"), BERT)
    with pytest.raises(Conflict, match="storage"):
        applied(made, claim("2Gi"), BERT)


def test_status_is_owned_only_through_its_own_door() -> None:
    config = {**config_map(), "kind": "Pod", "status": {"phase": "Running"}}
    assert owners(applied({}, config)) == {"anna": set()}
    made = apply({}, config, ANNA, LATE, force=False, subresource="status")
    (entry,) = made.managed_fields
    assert (entry["subresource"], entry["fieldsV1"]) == ("status", {"f:status": {"f:phase": {}}})


def test_update_without_effect_changes_no_owner() -> None:
    live = config_map({"a": "1"}, managedFields=track_create(config_map({"a": "1"}), ANNA, EARLY))
    assert track_update(live, {**live}, BERT, LATE, "") == live["metadata"]["managedFields"]


def test_managed_fields_stay_when_a_client_leaves_them_out() -> None:
    live = config_map({"a": "1"}, managedFields=track_create(config_map({"a": "1"}), ANNA, EARLY))
    new = config_map({"a": "2"})
    assert owners(updated(live, new, BERT)) == {"bert": {"f:data/f:a"}}


def test_managed_fields_go_when_a_client_empties_them() -> None:
    live = config_map({"a": "1"}, managedFields=track_create(config_map({"a": "1"}), ANNA, EARLY))
    assert track_update(live, config_map({"a": "1"}, managedFields=[{}]), BERT, LATE, "") is None


def test_old_updaters_are_taken_together_when_there_are_many() -> None:
    data = {str(number): "x" for number in range(UPDATERS_LIMIT + 5)}
    live = config_map({}, managedFields=track_create(config_map({"z": "1"}), ANNA, EARLY))
    for number, key in enumerate(data):
        new = {**live, "data": {**live["data"], key: "x"}}
        live = updated(live, new, Writer(f"w{number:02}", named=True))
    assert ANCIENT in owners(live)
    assert len(owners(live)) <= UPDATERS_LIMIT + 1


@pytest.mark.parametrize("entries", [[{}], [{"operation": "X"}], ["x"], [{"fieldsV1": 3}], 7])
def test_managed_fields_that_are_none_are_read_as_none(entries: Any) -> None:
    assert read_managers(entries) == {}


_names = st.sampled_from("abcd")
_containers = st.lists(
    st.fixed_dictionaries(
        {"name": _names},
        optional={
            "image": st.sampled_from("ij"),
            "args": st.lists(_names, max_size=2),
            "env": st.lists(
                st.fixed_dictionaries({"name": _names, "value": _names}),
                max_size=3, unique_by=lambda item: item["name"],
            ),
        },
    ),
    max_size=3, unique_by=lambda item: item["name"],
)  # fmt: skip
_pods = _containers.map(lambda containers: pod(*containers))


@given(_pods)
def test_fields_survive_being_written_down(document: Json) -> None:
    fields = fields_of(document, form_of("Pod"))
    assert decode_fields(encode_fields(fields)) == fields


@given(_pods, _pods)
def test_applying_makes_what_is_named_so_and_again_changes_nothing(
    live: Json, config: Json
) -> None:
    made = applied(live, config, force=True)
    held = {c["name"]: c for c in made["spec"]["containers"]}
    for container in config["spec"]["containers"]:
        for name, value in container.items():
            if name == "env":
                assert all(item in held[container["name"]]["env"] for item in value)
            else:
                assert held[container["name"]][name] == value
    assert applied(made, config, force=True) == made


@given(_pods, _pods)
def test_nothing_of_an_applier_is_left_when_it_applies_nothing(first: Json, second: Json) -> None:
    alone = applied({}, second, BERT)
    made = applied(applied({}, first), second, BERT, force=True)
    made = applied(made, pod(), ANNA, force=True)
    form = form_of("Pod")
    assert fields_of(made, form) - OWNED_BY_NOBODY == fields_of(alone, form) - OWNED_BY_NOBODY
