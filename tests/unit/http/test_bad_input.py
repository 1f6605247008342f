"""Whatever is sent, the answer is a `Status` that names what is wrong, and never a trace."""

from typing import Any

import msgspec
import pytest

from tests.unit.http.world import Answer, World, make_pod

PODS = "/api/v1/namespaces/default/pods"
YAML = {"Content_Type": "application/yaml"}


def expect_status(answer: Answer, code: int, *texts: str) -> dict[str, Any]:
    status: dict[str, Any] = answer.json
    assert (answer.code, status["code"]) == (code, code), status
    assert (status["kind"], status["status"]) == ("Status", "Failure")
    assert "Traceback" not in status["message"]
    for text in texts:
        assert text in status["message"]
    return status


def fields(status: dict[str, Any]) -> list[str]:
    return [cause["field"] for cause in status["details"]["causes"]]


async def test_json_is_refused_with_its_place_when_malformed(world: World) -> None:
    answer = await world.call("POST", PODS, b'{"kind": "Pod",\n  "spec": }')
    expect_status(answer, 400, "line 2 column 11")


async def test_json_is_refused_when_truncated_or_empty(world: World) -> None:
    expect_status(await world.call("POST", PODS, b'{"kind": "Pod"'), 400, "line 1")
    expect_status(await world.call("POST", PODS, b"  "), 400, "no body")


async def test_yaml_is_refused_with_its_place_when_malformed(world: World) -> None:
    answer = await world.call("POST", PODS, b"kind: Pod\nspec: [1, 2\n", **YAML)
    expect_status(answer, 400, "YAML", "line 3 column 1")


async def test_yaml_is_refused_when_aliases_explode(world: World) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    answer = await world.call("POST", PODS, "\n".join(lines).encode(), **YAML)
    expect_status(answer, 400, "aliases expanded")


async def test_yaml_is_refused_when_an_alias_contains_itself(world: World) -> None:
    answer = await world.call("POST", PODS, b"a: &a [*a]", **YAML)
    expect_status(answer, 400, "alias *a")


@pytest.mark.parametrize("content_type", ["application/json", "application/yaml"])
@pytest.mark.parametrize("depth", [100, 10_000])
async def test_body_is_refused_when_nested_too_deeply(
    world: World, content_type: str, depth: int
) -> None:
    body = b'{"spec":' + b"[" * depth + b"]" * depth + b"}"
    answer = await world.call("POST", PODS, body, Content_Type=content_type)
    expect_status(answer, 400, "64 levels")


async def test_body_is_refused_when_nested_too_deeply_in_objects(world: World) -> None:
    answer = await world.call("POST", PODS, b'{"a":' * 100 + b"1" + b"}" * 100)
    expect_status(answer, 400, "64 levels")


async def test_body_is_refused_when_larger_than_the_limit(world: World) -> None:
    answer = await world.call("POST", PODS, b" " * 10_000_000)
    expect_status(answer, 413, "3145728")


async def test_body_is_refused_when_its_chunks_exceed_the_limit(world: World) -> None:
    chunk = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
    text = await world.call.raw(
        b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        % PODS.encode()
        + chunk * 4
        + b"0\r\n\r\n"
    )
    assert text.startswith(b"HTTP/1.1 413 ")
    assert b'"kind":"Status"' in text


async def test_body_is_refused_when_its_type_is_unknown(world: World) -> None:
    answer = await world.call("POST", PODS, b"x", Content_Type="text/html")
    expect_status(answer, 415, "text/html", "application/json")


async def test_resource_is_not_found_when_the_kind_is_unknown(world: World) -> None:
    for path in ("/api/v1/namespaces/default/gadgets", "/apis/x.io/v1/things", "/api/v2/pods"):
        expect_status(await world.call("GET", path), 404)


async def test_object_is_refused_when_its_kind_differs_from_the_url(world: World) -> None:
    answer = await world.call("POST", PODS, make_pod() | {"kind": "Secret"})
    assert fields(expect_status(answer, 400, "Secret", "Pod")) == ["kind"]
    answer = await world.call("POST", PODS, make_pod() | {"apiVersion": "v2"})
    assert fields(expect_status(answer, 400)) == ["apiVersion"]


async def test_object_is_refused_when_its_name_differs_from_the_url(world: World) -> None:
    await world.call("POST", PODS, make_pod())
    answer = await world.call("PUT", f"{PODS}/web", make_pod("other"))
    assert fields(expect_status(answer, 400, "other", "web")) == ["metadata.name"]


async def test_object_is_refused_when_its_namespace_differs_from_the_url(world: World) -> None:
    pod = make_pod()
    pod["metadata"]["namespace"] = "kube-system"
    expect_status(await world.call("POST", PODS, pod), 400, "namespace", "kube-system")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"metadata": []}, "metadata"),
        ({"metadata": {"name": 5}}, "metadata.name"),
        ({"metadata": {"name": "a", "labels": {"x": 1}}}, "metadata.labels[x]"),
        ({"spec": "x"}, "spec"),
        ({"spec": {"containers": {}}}, "spec.containers"),
        (
            {"spec": {"containers": [{"name": "a", "image": "b", "stdin": "yes"}]}},
            "spec.containers[0].stdin",
        ),
        (
            {"spec": {"containers": [], "volumes": [{"name": "a", "emptyDir": {"medium": 1}}]}},
            "spec.volumes[0].emptyDir.medium",
        ),
        (
            {"spec": {"containers": [], "terminationGracePeriodSeconds": 2.5}},
            "spec.terminationGracePeriodSeconds",
        ),
        (
            {
                "spec": {
                    "containers": [
                        {"name": "a", "image": "b", "resources": {"limits": {"cpu": "lots"}}}
                    ]
                }
            },
            "spec.containers[0].resources.limits[cpu]",
        ),
    ],
)
async def test_field_is_named_when_its_type_is_wrong(
    world: World, change: dict[str, Any], field: str
) -> None:
    status = expect_status(await world.call("POST", PODS, make_pod() | change), 400, field)
    assert fields(status) == [field]


async def test_name_is_refused_when_it_is_no_name(world: World) -> None:
    for name in ("a/b", "../x", "UPPER", "a\0b", "x" * 254, "-a", "é"):
        status = expect_status(await world.call("POST", PODS, make_pod(name)), 422)
        assert fields(status)[0] == "metadata.name"


async def test_path_is_refused_when_a_part_hides_a_slash_or_nul(world: World) -> None:
    for part in ("a%2Fb", "a%00b", "%2e%2e", "%ff"):
        expect_status(await world.call.get_raw(f"{PODS}/{part}"), 400, "path segment")


async def test_volumes_are_refused_when_their_names_repeat(world: World) -> None:
    pod = make_pod(volumes=[{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}])
    status = expect_status(await world.call("POST", PODS, pod), 422, 'Pod "web" is invalid: ')
    assert status["details"]["causes"] == [
        {
            "reason": "FieldValueDuplicate",
            "message": 'Duplicate value: "a"',
            "field": "spec.volumes[1].name",
        }
    ]


async def test_path_of_a_volume_is_refused_when_it_leads_out(world: World) -> None:
    pod = make_pod(
        volumes=[
            {"name": "c", "configMap": {"name": "x", "items": [{"key": "k", "path": "../k"}]}},
            {"name": "h", "hostPath": {"path": "/var/../etc"}},
            {"name": "n", "nfs": {"server": "s", "path": "relative"}},
        ]
    )
    pod["spec"]["containers"][0]["volumeMounts"] = [
        {"name": "c", "mountPath": "/c", "subPath": "../../etc"},
        {"name": "h", "mountPath": "/h", "subPathExpr": "/x"},
    ]
    assert fields(expect_status(await world.call("POST", PODS, pod), 422)) == [
        "spec.volumes[0].configMap.items[0].path",
        "spec.volumes[1].hostPath.path",
        "spec.volumes[2].nfs.path",
        "spec.containers[0].volumeMounts[0].subPath",
        "spec.containers[0].volumeMounts[1].subPathExpr",
    ]


async def test_query_is_refused_when_a_parameter_is_no_number(world: World) -> None:
    expect_status(await world.call("GET", f"{PODS}?limit=many"), 400, "limit")
    expect_status(await world.call("GET", f"{PODS}?watch=perhaps"), 400, "watch")
    expect_status(await world.call("GET", f"{PODS}?resourceVersion=x"), 400, "resourceVersion")
    expect_status(await world.call("GET", f"{PODS}?labelSelector=a%20b"), 400)


async def test_method_is_refused_when_the_resource_does_not_have_it(world: World) -> None:
    expect_status(await world.call("PUT", PODS, make_pod()), 405)
    expect_status(await world.call("POST", "/api/v1/pods", make_pod()), 405)
    expect_status(await world.call("POST", f"{PODS}/web/status", make_pod()), 405)


async def test_answer_is_a_status_when_the_request_is_not_even_http(world: World) -> None:
    text = await world.call.raw(b"GET / HTTP/9.9 what\r\n\r\n")
    assert b" 400 " in text.splitlines()[0]
    status = msgspec.json.decode(text.partition(b"\r\n\r\n")[2])
    assert (status["kind"], status["code"]) == ("Status", 400)


async def test_surrogates_and_infinities_are_refused_in_yaml(world: World) -> None:
    for text in (rb'a: "\ud800"', b"a: .inf", b"a: .nan", b"a: !!binary aGk=", b"? [1]\n: 2"):
        expect_status(await world.call("POST", PODS, text, **YAML), 400, "YAML")


async def test_json_is_refused_when_it_is_not_utf8(world: World) -> None:
    expect_status(await world.call("POST", PODS, b'{"kind":"\xff\xfe"}'), 400, "UTF-8")


async def test_list_is_gone_when_a_continue_token_is_forged(world: World) -> None:
    expect_status(await world.call("GET", f"{PODS}?limit=1&continue=nonsense"), 400, "continue")


async def test_plan_is_refused_when_it_is_no_object(world: World) -> None:
    path = "/apis/node.volagent.dev/v1/plan"
    expect_status(await world.call("POST", path, b"[]"), 400)
    expect_status(await world.call("POST", path, b'{"metadata": 5}'), 400)


async def test_body_is_refused_when_it_is_not_compressed_as_it_says(world: World) -> None:
    answer = await world.call("POST", PODS, b"no gzip", Content_Encoding="gzip")
    expect_status(answer, 400)


async def test_client_is_invited_when_it_asks_before_sending(world: World) -> None:
    text = await world.call.raw(
        f"POST {PODS} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n"
        "Connection: close\r\n\r\n{}".encode()
    )
    assert text.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 422 ")
    text = await world.call.raw(
        f"POST {PODS} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    assert text.startswith(b"HTTP/1.1 413 ")
