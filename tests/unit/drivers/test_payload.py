"""What API-backed volumes show, judged by a model that is worked out source by source."""

from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volagent.drivers.payload import (
    Missing,
    NodeFacts,
    ObjectNeed,
    TokenNeed,
    needed_objects,
    needed_tokens,
    render,
)
from volagent.host.contract import Payload
from volagent.objects.pod import Pod, read_pod
from volagent.objects.storage import ConfigMap, Secret

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NODE = NodeFacts("vm1", "10.0.0.9", {"cpu": "2", "memory": "3Gi"})


def a_pod(source, uid=UID, **spec) -> Pod:
    return read_pod(
        {
            "metadata": {"name": "web", "namespace": "shop", "uid": uid, "labels": {"a": "b"}},
            "spec": {
                "containers": [{"name": "app"}],
                "volumes": [{"name": "v", **source}],
                **spec,
            },
        }
    )


def objects(**named):
    """Objects by `kind_name`: `secret_db={"user": b"x"}`."""
    found = {}
    for full, data in named.items():
        kind, _, name = full.partition("_")
        if kind == "secret":
            found["Secret", name] = Secret(data=data)
        else:
            texts = {k: v for k, v in data.items() if isinstance(v, str)}
            binary = {k: v for k, v in data.items() if isinstance(v, bytes)}
            found["ConfigMap", name] = ConfigMap(data=texts, binary_data=binary)
    return found


def render_in(pod: Pod, found=None, tokens=None) -> Payload | Missing:
    found = found or {}
    volume = pod.spec.volumes[0]
    return render(volume, pod, lambda kind, name: found.get((kind, name)), tokens or {}, NODE)


def files_of(pod: Pod, found=None, tokens=None):
    payload = render_in(pod, found, tokens)
    assert isinstance(payload, Payload), payload
    return {file.path: (file.content, file.mode, file.uid) for file in payload.files}


def missing_of(pod: Pod, found=None, tokens=None) -> str:
    missing = render_in(pod, found, tokens)
    assert isinstance(missing, Missing), missing
    return missing.message


# -- one kind at a time ---------------------------------------------------------------------


def test_secret_shows_every_key_with_the_default_mode():
    pod = a_pod({"secret": {"secretName": "db"}})
    assert files_of(pod, objects(secret_db={"user": b"root", "pass": b"\0\xff"})) == {
        "user": (b"root", 0o644, None),
        "pass": (b"\0\xff", 0o644, None),
    }


def test_items_choose_keys_paths_and_modes():
    items = [
        {"key": "a", "path": "x/y/a.txt", "mode": 0},
        {"key": "b", "path": "./x//b"},
        {"key": "a", "path": "again"},
    ]
    pod = a_pod({"configMap": {"name": "conf", "items": items, "defaultMode": 0o400}})
    assert files_of(pod, objects(map_conf={"a": "ä", "b": b"\1", "c": "not shown"})) == {
        "x/y/a.txt": ("ä".encode(), 0, None),
        "x/b": (b"\1", 0o400, None),
        "again": ("ä".encode(), 0o400, None),
    }


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"secret": {"secretName": "db"}}, 'secret "db" not found'),
        ({"configMap": {"name": "conf"}}, 'configmap "conf" not found'),
    ],
)
def test_volume_is_missing_when_its_object_is(source, words):
    assert missing_of(a_pod(source)) == words


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"secret": {"secretName": "o"}}, "references non-existent secret key: y"),
        ({"configMap": {"name": "o"}}, "configmap references non-existent config key: y"),
    ],
)
def test_volume_is_missing_when_a_key_is(source, words):
    ((kind, body),) = source.items()
    pod = a_pod({kind: {**body, "items": [{"key": "y", "path": "y"}]}})
    assert missing_of(pod, objects(secret_o={"x": b""}, map_o={"x": ""})) == words


@pytest.mark.parametrize("kind", ["secret", "configMap"])
@pytest.mark.parametrize("there", [True, False])
def test_volume_is_empty_when_what_is_missing_is_optional(kind, there):
    name = {"secretName": "o"} if kind == "secret" else {"name": "o"}
    body = {**name, "optional": True, "items": [{"key": "y", "path": "y"}]}
    found = objects(secret_o={"x": b""}, map_o={"x": ""}) if there else {}
    assert files_of(a_pod({kind: body}), found) == {}


def test_downward_files_have_fields_and_resources():
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "memory", "mode": 0o440,
         "resourceFieldRef": {"containerName": "app", "resource": "limits.memory",
                              "divisor": "1Gi"}},
    ]  # fmt: skip
    assert files_of(a_pod({"downwardAPI": {"items": items}})) == {
        "labels": (b'a="b"', 0o644, None),
        "memory": (b"3", 0o440, None),
    }


def test_downward_file_is_refused_when_its_field_is_unknown():
    items = [{"path": "x", "fieldRef": {"fieldPath": "metadata.nope"}}]
    assert missing_of(a_pod({"downwardAPI": {"items": items}})).startswith("unsupported fieldPath")


# -- projected ------------------------------------------------------------------------------


def test_last_source_wins_when_paths_overlap():
    sources = [
        {"secret": {"name": "one"}},
        {"configMap": {"name": "two", "items": [{"key": "k", "path": "./same", "mode": 0o600}]}},
    ]
    pod = a_pod({"projected": {"sources": sources, "defaultMode": 0o444}})
    found = objects(secret_one={"same": b"1", "other": b"2"}, map_two={"k": "3"})
    assert files_of(pod, found) == {"same": (b"3", 0o600, None), "other": (b"2", 0o444, None)}


def test_everything_missing_is_named_at_once():
    sources = [
        {"secret": {"name": "a"}},
        {"configMap": {"name": "b"}},
        {"secret": {"name": "c", "optional": True}},
    ]
    pod = a_pod({"projected": {"sources": sources}})
    assert missing_of(pod) == '[secret "a" not found, configmap "b" not found]'


TOKEN_SOURCE = {"serviceAccountToken": {"path": "token", "audience": "vault"}}
TOKEN = {TokenNeed("vault", 3600): b"jwt"}


@pytest.mark.parametrize(
    ("security", "containers", "mode", "uid"),
    [
        ({}, [{}], 0o644, None),
        ({"runAsUser": 1000}, [{}, {}], 0o600, 1000),
        ({}, [{"runAsUser": 7}, {"runAsUser": 7}], 0o600, 7),
        ({"runAsUser": 1000}, [{}, {"runAsUser": 7}], 0o644, None),
        ({}, [{"runAsUser": 7}, {}], 0o644, None),
        ({"fsGroup": 2000}, [{}], 0o600, None),
        ({"runAsUser": 0}, [{}], 0o600, 0),
    ],
)
def test_token_belongs_to_the_user_that_all_containers_share(security, containers, mode, uid):
    pod = a_pod(
        {"projected": {"sources": [TOKEN_SOURCE]}},
        securityContext=security,
        containers=[{"name": f"c{n}", "securityContext": s} for n, s in enumerate(containers)],
    )
    assert files_of(pod, tokens=TOKEN) == {"token": (b"jwt", mode, uid)}


def test_volume_waits_when_its_token_is_not_here():
    pod = a_pod({"projected": {"sources": [TOKEN_SOURCE]}})
    assert missing_of(pod) == "waiting for a service account token"


def test_needs_name_every_object_and_token():
    sources = [
        {"secret": {"name": "a", "optional": True}},
        {"configMap": {"name": "b"}},
        TOKEN_SOURCE,
        {"serviceAccountToken": {"path": "t", "expirationSeconds": 600}},
        {"downwardAPI": {"items": []}},
    ]
    pod = a_pod({"projected": {"sources": sources}})
    volume = pod.spec.volumes[0]
    assert needed_objects(volume) == (
        ObjectNeed("Secret", "a", True),
        ObjectNeed("ConfigMap", "b", False),
    )
    assert needed_tokens(volume) == (TokenNeed("vault", 3600), TokenNeed("", 600))
    for source, need in (
        ({"secret": {"secretName": "s"}}, ObjectNeed("Secret", "s")),
        ({"configMap": {"name": "c", "optional": True}}, ObjectNeed("ConfigMap", "c", True)),
    ):
        assert needed_objects(a_pod(source).spec.volumes[0]) == (need,)
    assert needed_objects(a_pod({"emptyDir": {}}).spec.volumes[0]) == ()


# -- paths ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "must not be empty"), ("/etc/passwd", "must be relative path"),
        ("../up", "must not contain '..'"), ("a/../b", "must not contain '..'"),
        ("a/..", "must not contain '..'"), ("..data", "must not start with '..'"),
        ("./..data/x", "must not start with '..'"), ("...", "must not start with '..'"),
        ("a\0b", "must not contain NUL"),
        (".", "must name a file"), ("./", "must name a file"),
        ("x" * 256, "filenames must be"), ("a/" * 2049, "characters"), ("ü" * 128, "filenames"),
    ],
)  # fmt: skip
def test_path_is_refused_when_it_leads_out_or_is_none(path, words):
    pod = a_pod({"secret": {"secretName": "s", "items": [{"key": "k", "path": path}]}})
    assert words in missing_of(pod, objects(secret_s={"k": b"TOP"}))


@pytest.mark.parametrize("path", [".hidden", ".a/b", "a/..b", "a/...", "x" * 255])
def test_path_is_kept_when_it_only_looks_odd(path):
    pod = a_pod({"secret": {"secretName": "s", "items": [{"key": "k", "path": path}]}})
    assert list(files_of(pod, objects(secret_s={"k": b""}))) == [path]


def test_path_is_refused_when_it_would_be_file_and_directory():
    items = [{"key": "k", "path": "a/b"}, {"key": "k", "path": "a/b/c/d"}]
    pod = a_pod({"secret": {"secretName": "s", "items": items}})
    assert missing_of(pod, objects(secret_s={"k": b""})) == (
        "invalid path: 'a/b' is a file and cannot hold 'a/b/c/d'"
    )


@pytest.mark.parametrize("mode", [-1, 0o1000, 0o1777])
def test_mode_is_refused_when_it_is_more_than_permissions(mode):
    pod = a_pod({"secret": {"secretName": "s", "defaultMode": mode}})
    assert "between 0 and 0777" in missing_of(pod, objects(secret_s={"k": b""}))


def test_no_secret_shows_in_messages_or_reprs():
    pod = a_pod({"secret": {"secretName": "s", "items": [{"key": "k", "path": "../x"}]}})
    found = objects(secret_s={"k": b"TOPSECRET"})
    assert "TOPSECRET" not in repr(render_in(pod, found))
    plain = a_pod({"secret": {"secretName": "s"}})
    assert "TOPSECRET" not in repr(render_in(plain, found))


# -- the model ------------------------------------------------------------------------------

KEYS = ["k1", "k2", "k3"]
PATHS = ["k1", "k2", "p", "d/p", "d/q", "./p", "d//q", "d"]
OBJECTS = ["one", "two", "none"]
modes = st.none() | st.sampled_from([0, 0o400, 0o777])
items = st.none() | st.lists(
    st.builds(
        lambda key, path, mode: {"key": key, "path": path, "mode": mode},
        st.sampled_from(KEYS), st.sampled_from(PATHS), modes,
    ),
    max_size=3,
)  # fmt: skip
sources = st.lists(
    st.builds(
        lambda kind, name, items, optional: {
            kind: {"name": name, "items": items, "optional": optional}
        },
        st.sampled_from(["secret", "configMap"]), st.sampled_from(OBJECTS), items,
        st.none() | st.booleans(),
    ),
    max_size=4,
)  # fmt: skip
FOUND = objects(
    secret_one={"k1": b"s1", "k2": b"s2"},
    secret_two={"k2": b"t2"},
    map_one={"k1": "c1", "k3": b"c3"},
    map_two={},
)


@dataclass
class Expected:
    files: dict
    complaints: int


def expect(source_list, default_mode) -> Expected:
    """The facts, written down the slow way: each source alone, then laid over one another."""
    files, complaints = {}, 0
    for source in source_list:
        ((kind, body),) = source.items()
        found = FOUND.get(("Secret" if kind == "secret" else "ConfigMap", body["name"]))
        optional = bool(body["optional"])
        if found is None:
            complaints += not optional
            continue
        data = dict(found.data or {})
        if kind == "configMap":
            data = {k: v.encode() for k, v in data.items()} | dict(found.binary_data or {})
        wishes = body["items"] or [{"key": k, "path": k, "mode": None} for k in data]
        if not optional and any(wish["key"] not in data for wish in wishes):
            complaints += 1
            continue
        for wish in wishes:
            if wish["key"] in data:
                mode = default_mode if wish["mode"] is None else wish["mode"]
                path = "/".join(p for p in wish["path"].split("/") if p not in ("", "."))
                files[path] = (data[wish["key"]], 0o644 if mode is None else mode, None)
    if not complaints and "d" in files and {"d/p", "d/q"} & files.keys():
        complaints = 1
    return Expected(files, complaints)


@given(sources, modes)
def test_projected_volume_shows_what_the_model_says(source_list, default_mode):
    pod = a_pod({"projected": {"sources": source_list, "defaultMode": default_mode}})
    expected = expect(source_list, default_mode)
    rendered = render_in(pod, FOUND)
    if expected.complaints:
        assert isinstance(rendered, Missing)
        assert rendered.message.startswith("[") is (expected.complaints > 1)
    else:
        assert isinstance(rendered, Payload)
        assert files_of(pod, FOUND) == expected.files
        assert [f.path for f in rendered.files] == sorted(expected.files)


# -- the fingerprint ------------------------------------------------------------------------

contents = st.dictionaries(st.text("ab-c", min_size=1, max_size=3), st.binary(max_size=4))


def fingerprint_of(data, uid=UID, mode=0o644) -> str:
    pod = a_pod({"secret": {"secretName": "s", "defaultMode": mode}}, uid)
    payload = render_in(pod, objects(secret_s=data))
    assert isinstance(payload, Payload)
    return payload.fingerprint


@given(contents, contents)
def test_fingerprints_are_equal_exactly_when_contents_are(one, other):
    assert (fingerprint_of(one) == fingerprint_of(other)) is (one == other)


def test_fingerprint_changes_with_mode_and_pod_and_not_with_the_order_of_keys():
    base = fingerprint_of({"a": b"1", "b": b"2"})
    assert fingerprint_of({"b": b"2", "a": b"1"}) == base
    assert fingerprint_of({"a": b"1", "b": b"2"}, mode=0o600) != base
    other = "1f8fad5b-d9cb-469f-a165-70867728950e"
    assert fingerprint_of({"a": b"1", "b": b"2"}, uid=other) != base
    assert len(base) == 32


def test_fingerprint_changes_when_a_tokens_owner_does():
    source = {"projected": {"sources": [TOKEN_SOURCE]}}
    one = render_in(a_pod(source, securityContext={"runAsUser": 1}), tokens=TOKEN)
    two = render_in(a_pod(source, securityContext={"runAsUser": 2}), tokens=TOKEN)
    assert isinstance(one, Payload)
    assert isinstance(two, Payload)
    assert one.fingerprint != two.fingerprint


def test_stored_base64_is_what_the_files_hold():
    document = {"data": {"k": "aGVsbG8="}, "metadata": {"name": "s"}, "kind": "Secret"}
    pod = a_pod({"secret": {"secretName": "s"}})
    found = {("Secret", "s"): msgspec.convert(document, Secret)}
    assert files_of(pod, found) == {"k": (b"hello", 0o644, None)}
