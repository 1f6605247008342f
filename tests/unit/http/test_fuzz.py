"""Random documents and mangled valid ones: every answer is a success or a `Status` below 500."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.http.world import Answer, World

COMMON = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"

VALID: dict[str, dict[str, Any]] = {
    "pods": {
        "metadata": {"name": "a", "labels": {"x": "y"}, "annotations": {"x": "y"}},
        "spec": {
            "restartPolicy": "Never",
            "securityContext": {"fsGroup": 5, "fsGroupChangePolicy": "Always"},
            "nodeSelector": {"a": "b"},
            "containers": [
                {
                    "name": "c", "image": "i:1",
                    "env": [
                        {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}],
                    "envFrom": [{"secretRef": {"name": "s"}}],
                    "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "x"}],
                    "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}},
                }
            ],
            "volumes": [
                {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "w", "secret": {"secretName": "s", "items": [{"key": "k", "path": "p"}]}},
                {"name": "x", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "t"}},
                    {"downwardAPI": {"items": [
                        {"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
                {"name": "y", "csi": {"driver": "x.volagent.dev", "volumeAttributes": {"a": "b"}}},
                {"name": "z", "persistentVolumeClaim": {"claimName": "p"}},
            ],
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                   "containerStatuses": [
                       {"name": "c", "restartCount": 1, "state": {"running": {}}}]},
    },
    "persistentvolumes": {
        "metadata": {"name": "a"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "claimRef": {"namespace": "default", "name": "x"},
            "local": {"path": "/x"}, "mountOptions": ["ro"],
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}]}},
        },
    },
    "persistentvolumeclaims": {
        "metadata": {"name": "a"},
        "spec": {"accessModes": ["ReadWriteOnce"], "selector": {"matchLabels": {"a": "b"}},
                 "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
    },
    "secrets": {"metadata": {"name": "a"}, "data": {"k": "dg=="}, "stringData": {"l": "m"},
                "type": "Opaque", "immutable": False},
    "configmaps": {"metadata": {"name": "a"}, "data": {"k": "v"}, "binaryData": {"b": "dg=="}},
    "nodes": {"metadata": {"name": "a"}, "spec": {"unschedulable": True},
              "status": {"capacity": {"cpu": "2"},
                         "conditions": [{"type": "Ready", "status": "True"}],
                         "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}],
                         "nodeInfo": {"kubeletVersion": "x"}}},
    "namespaces": {"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}},
    "serviceaccounts": {"metadata": {"name": "a"}, "secrets": [{"name": "s"}]},
    "events": {"metadata": {"name": "a"}, "involvedObject": {"kind": "Pod", "namespace": "default"},
               "reason": "R", "message": "m", "count": 1, "lastTimestamp": "2024-01-01T00:00:00Z",
               "source": {"component": "c"}},
}  # fmt: skip
CLUSTER = {"persistentvolumes", "nodes", "namespaces"}

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["..", "../x", "/", "", "a\0b", "1Gi", "-1", "9" * 5000, "1e999", "\u2028"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, member in value.items():
            found += places(member, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += places(item, (*path, index))
    return found


@st.composite
def mangled(draw: st.DrawFn, plural: str) -> dict[str, Any]:
    document = copy.deepcopy(VALID[plural])
    for _ in range(draw(st.integers(1, 3))):
        spots = places(document)
        if not spots:
            break
        spot = draw(st.sampled_from(spots))
        holder: Any = document
        for part in spot[:-1]:
            holder = holder[part]
        action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if action == "replace":
            holder[spot[-1]] = draw(values)
        elif action == "remove":
            del holder[spot[-1]]
        elif isinstance(holder, dict):
            holder[draw(st.text(max_size=8))] = draw(values)
        else:
            holder.append(draw(values))
    return document


def collection(plural: str) -> str:
    return f"/api/v1/{plural}" if plural in CLUSTER else f"/api/v1/namespaces/default/{plural}"


def expect_sane(answer: Answer) -> None:
    assert answer.code < 500, answer.body
    document = answer.json
    if answer.code >= 400:
        assert document["kind"] == "Status"
        assert document["code"] == answer.code
        assert "Traceback" not in document["message"]


@pytest.mark.parametrize("plural", VALID)
async def test_valid_document_is_accepted(world: World, plural: str) -> None:
    answer = await world.call("POST", collection(plural), VALID[plural])
    assert answer.code == 201, answer.body


@COMMON
@given(body=values)
async def test_no_random_document_breaks_the_server(world: World, body: Any) -> None:
    expect_sane(await world.call("POST", collection("pods"), body))


@pytest.mark.parametrize("plural", VALID)
@COMMON
@given(data=st.data())
async def test_no_mangled_document_breaks_the_server(
    world: World, plural: str, data: st.DataObject
) -> None:
    document = data.draw(mangled(plural))
    path = collection(plural)
    created = await world.call("POST", path, document)
    expect_sane(created)
    name = "a"
    if created.code == 201:
        name = created.json["metadata"]["name"]
        expect_sane(await world.call("GET", path, None, Accept=TABLE))
    else:
        await world.call("POST", path, VALID[plural])
    second = data.draw(mangled(plural))
    expect_sane(await world.call("PUT", f"{path}/{name}", second))
    expect_sane(await world.call("PUT", f"{path}/{name}/status", second))
    for kind in ("merge-patch+json", "strategic-merge-patch+json"):
        answer = await world.call(
            "PATCH", f"{path}/{name}", second, Content_Type=f"application/{kind}"
        )
        expect_sane(answer)
    expect_sane(await world.call("GET", path, None, Accept=TABLE))
    expect_sane(await world.call("DELETE", f"{path}/{name}?gracePeriodSeconds=0"))


@COMMON
@given(
    operations=st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
                "path": st.sampled_from(
                    ["", "/", "/spec", "/metadata/name", "/spec/containers/0", "/spec/volumes/-",
                     "/metadata", "/status", "/spec/containers/01", "/kind"]
                ) | st.text(max_size=10),
            },
            optional={"value": values, "from": st.text(max_size=10) | st.just("/spec")},
        ) | values,
        max_size=4,
    )
)  # fmt: skip
async def test_no_json_patch_breaks_the_server(world: World, operations: Any) -> None:
    await world.call("POST", collection("pods"), VALID["pods"])
    path = f"{collection('pods')}/a"
    content_type = "application/json-patch+json"
    expect_sane(await world.call("PATCH", path, operations, Content_Type=content_type))


@COMMON
@given(text=st.text(max_size=60) | st.binary(max_size=60))
async def test_no_yaml_breaks_the_server(world: World, text: str | bytes) -> None:
    body = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    answer = await world.call("POST", collection("pods"), body, Content_Type="application/yaml")
    expect_sane(answer)


@COMMON
@given(
    path=st.text(alphabet="abz/%.0?&=;:@!$'()*+,", max_size=30),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"]),
)
async def test_no_path_breaks_the_server(world: World, path: str, method: str) -> None:
    for prefix in ("/", "/api/v1/", "/apis/node.volagent.dev/v1/"):
        text = await world.call.raw(
            f"{method} {prefix}{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            "Connection: close\r\n\r\n{}".encode()
        )
        code = int(text.split()[1])
        assert code < 500, text
