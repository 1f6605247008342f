"""The verbs over HTTP, against a real registry and store."""

import asyncio

import msgspec
import yaml

from tests.unit.http.world import World, make_pod

PODS = "/api/v1/namespaces/default/pods"


async def test_pod_is_answered_with_identity_and_defaults_when_created(world: World) -> None:
    answer = await world.call("POST", PODS, make_pod())
    assert answer.code == 201
    assert answer.json["metadata"]["uid"]
    assert answer.json["metadata"]["resourceVersion"]
    assert answer.json["spec"]["restartPolicy"] == "Always"
    assert answer.json["status"]["phase"] == "Pending"
    again = await world.call("GET", f"{PODS}/web")
    assert (again.code, again.json) == (200, answer.json)


async def test_unknown_fields_survive_when_a_pod_is_stored(world: World) -> None:
    pod = make_pod(affinity={"x": [1, {"y": None}]}, fromTheFuture={"a": "b"})
    created = (await world.call("POST", PODS, pod)).json
    assert created["spec"]["fromTheFuture"] == {"a": "b"}
    assert created["spec"]["affinity"] == {"x": [1, {}]}


async def test_pod_is_created_when_the_body_is_yaml(world: World) -> None:
    body = yaml.safe_dump(make_pod()).encode()
    answer = await world.call("POST", PODS, body, Content_Type="application/yaml")
    assert answer.code == 201


async def test_pod_is_created_when_no_content_type_is_given(world: World) -> None:
    body = msgspec.json.encode(make_pod())
    text = await world.call.raw(
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
        % (PODS.encode(), len(body), body)
    )
    assert text.startswith(b"HTTP/1.1 201 ")


async def test_kind_and_version_are_filled_in_when_missing(world: World) -> None:
    pod = make_pod()
    del pod["kind"], pod["apiVersion"]
    created = (await world.call("POST", PODS, pod)).json
    assert (created["kind"], created["apiVersion"]) == ("Pod", "v1")


async def test_last_key_wins_when_a_key_is_given_twice(world: World) -> None:
    body = msgspec.json.encode(make_pod()).replace(b'"name":"web"', b'"name":"a","name":"web"')
    assert (await world.call("POST", PODS, body)).json["metadata"]["name"] == "web"


async def test_list_is_narrowed_when_selectors_are_given(world: World) -> None:
    for name in ("a", "b"):
        pod = make_pod(name)
        pod["metadata"]["labels"] = {"app": name}
        await world.call("POST", PODS, pod)
    listing = (await world.call("GET", f"{PODS}?labelSelector=app%3Da")).json
    assert listing["kind"] == "PodList"
    assert [item["metadata"]["name"] for item in listing["items"]] == ["a"]
    listing = (await world.call("GET", "/api/v1/pods?fieldSelector=metadata.name%3Db")).json
    assert [item["metadata"]["name"] for item in listing["items"]] == ["b"]


async def test_pages_cover_everything_once_when_a_limit_is_given(world: World) -> None:
    for index in range(5):
        await world.call("POST", PODS, make_pod(f"p{index}"))
    names, token = [], ""
    while True:
        page = (await world.call("GET", f"{PODS}?limit=2&continue={token}")).json
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
        assert page["metadata"]["remainingItemCount"] == 5 - len(names)
    assert names == ["p0", "p1", "p2", "p3", "p4"]


async def test_pod_is_replaced_when_put(world: World) -> None:
    created = (await world.call("POST", PODS, make_pod())).json
    created["metadata"]["labels"] = {"a": "b"}
    assert (await world.call("PUT", f"{PODS}/web", created)).code == 200
    stale = await world.call("PUT", f"{PODS}/web", {**created, "metadata": {
        **created["metadata"], "labels": {"c": "d"}}})  # fmt: skip
    assert (stale.code, stale.json["reason"]) == (409, "Conflict")


async def test_status_changes_alone_when_the_subresource_is_patched(world: World) -> None:
    await world.call("POST", PODS, make_pod())
    patch = {"status": {"phase": "Running"}, "spec": {"hostname": "x"}}
    answer = await world.call(
        "PATCH", f"{PODS}/web/status", patch, Content_Type="application/merge-patch+json"
    )
    assert answer.json["status"]["phase"] == "Running"
    assert "hostname" not in answer.json["spec"]


async def test_patch_is_refused_when_its_type_is_not_known(world: World) -> None:
    await world.call("POST", PODS, make_pod())
    answer = await world.call("PATCH", f"{PODS}/web", {}, Content_Type="application/json")
    assert answer.code == 415
    assert "application/merge-patch+json" in answer.json["message"]


async def test_nothing_is_stored_when_it_is_a_dry_run(world: World) -> None:
    assert (await world.call("POST", f"{PODS}?dryRun=All", make_pod())).code == 201
    assert (await world.call("GET", f"{PODS}/web")).code == 404
    refused = await world.call("POST", f"{PODS}?dryRun=Some", make_pod())
    assert (refused.code, "dryRun" in refused.json["message"]) == (422, True)


async def test_body_beats_query_when_a_pod_is_deleted(world: World) -> None:
    await world.call("POST", PODS, make_pod(nodeName="n1"))
    answer = await world.call(
        "DELETE", f"{PODS}/web?gracePeriodSeconds=5", {"gracePeriodSeconds": 9}
    )
    assert answer.json["metadata"]["deletionGracePeriodSeconds"] == 9


async def test_other_pod_survives_when_the_uid_of_a_delete_is_stale(world: World) -> None:
    await world.call("POST", PODS, make_pod())
    answer = await world.call("DELETE", f"{PODS}/web", {"preconditions": {"uid": "other"}})
    assert (answer.code, answer.json["reason"]) == (409, "Conflict")


async def test_selected_objects_go_when_a_collection_is_deleted(world: World) -> None:
    for name in ("a", "b"):
        config = {"metadata": {"name": name, "labels": {"app": name}}}
        await world.call("POST", "/api/v1/namespaces/default/configmaps", config)
    path = "/api/v1/namespaces/default/configmaps"
    assert (await world.call("DELETE", f"{path}?labelSelector=app=a")).code == 200
    left = (await world.call("GET", path)).json["items"]
    assert [item["metadata"]["name"] for item in left] == ["b"]


async def test_token_is_issued_when_the_service_account_exists(world: World) -> None:
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    answer = await world.call("POST", path, {"spec": {"expirationSeconds": 600}})
    assert answer.code == 201
    assert answer.json["status"]["token"].count(".") == 2


async def test_watch_sends_each_change_as_a_line_when_things_happen(world: World) -> None:
    listing = (await world.call("GET", PODS)).json
    revision = listing["metadata"]["resourceVersion"]
    watch = asyncio.ensure_future(
        world.call("GET", f"{PODS}?watch=true&resourceVersion={revision}&timeoutSeconds=1")
    )
    await asyncio.sleep(0)
    await world.call("POST", PODS, make_pod())
    await world.call("DELETE", f"{PODS}/web")
    lines = [msgspec.json.decode(line) for line in (await watch).body.splitlines()]
    assert [line["type"] for line in lines] == ["ADDED", "DELETED"]
    assert lines[0]["object"]["metadata"]["name"] == "web"


async def test_watch_starts_with_what_is_there_when_no_revision_is_given(world: World) -> None:
    await world.call("POST", PODS, make_pod())
    answer = await world.call("GET", f"{PODS}?watch=1&timeoutSeconds=1")
    assert [msgspec.json.decode(line)["type"] for line in answer.body.splitlines()] == ["ADDED"]


async def test_initial_events_end_with_a_bookmark_when_asked_for(world: World) -> None:
    await world.call("POST", PODS, make_pod())
    answer = await world.call(
        "GET",
        f"{PODS}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&timeoutSeconds=1"
        "&resourceVersionMatch=NotOlderThan",
    )
    first, bookmark = (msgspec.json.decode(line) for line in answer.body.splitlines())
    assert first["type"] == "ADDED"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_watch_is_a_bad_request_when_its_selector_is_malformed(world: World) -> None:
    answer = await world.call("GET", f"{PODS}?watch=1&resourceVersion=1&labelSelector=a%3D%3D%3Db")
    assert (answer.code, answer.json["reason"]) == (400, "BadRequest")


async def test_watch_ends_when_the_server_closes(world: World) -> None:
    watch = asyncio.ensure_future(world.call("GET", f"{PODS}?watch=1"))
    while not world.server.watch_count:
        await asyncio.sleep(0.001)
    await world.server.close()
    assert (await watch).code == 200


async def test_watch_is_forgotten_when_its_client_leaves(world: World) -> None:
    reader, writer = await asyncio.open_unix_connection(world.socket_path)
    writer.write(f"GET {PODS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    assert world.server.watch_count
    writer.close()
    async with asyncio.timeout(5):
        while world.server.watch_count:
            await asyncio.sleep(0.001)


async def test_strict_validation_names_the_field_when_it_is_unknown(world: World) -> None:
    pod = make_pod() | {"specc": {}}
    answer = await world.call("POST", f"{PODS}?fieldValidation=Strict", pod)
    assert answer.code == 400
    assert 'unknown field "specc"' in answer.json["message"]
    warned = await world.call("POST", f"{PODS}?fieldValidation=Warn", pod)
    assert (warned.code, "unknown field" in warned.headers["Warning"]) == (201, True)


async def test_long_list_arrives_whole_for_all_who_ask_at_once(world: World) -> None:
    path, long = "/api/v1/namespaces/default/configmaps", "x" * 100_000
    for number in range(5):
        await world.call("POST", path, {"metadata": {"name": f"c{number}"}, "data": {"long": long}})

    answers = await asyncio.gather(*(world.call("GET", path) for _ in range(8)))

    for answer in answers:
        assert answer.code == 200
        assert [item["data"]["long"] == long for item in answer.json["items"]] == [True] * 5
        assert answer.headers["Content-Length"] == str(len(answer.body))
