"""Tables as `kubectl get` shows them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from tests.unit.http.world import World, make_pod
from volagent.api.cells import format_age
from volagent.api.columns import columns_of, describe_cells
from volagent.api.tables import table_of
from volagent.client.contract import (
    CLAIMS,
    EVENTS,
    NODES,
    PERSISTENT_VOLUMES,
    PODS,
    RESOURCES,
    Listing,
)

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PODS_PATH = "/api/v1/namespaces/default/pods"
NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(seconds=120), "2m"),
        (timedelta(seconds=125), "2m5s"),
        (timedelta(minutes=11), "11m"),
        (timedelta(minutes=179), "179m"),
        (timedelta(hours=3), "3h"),
        (timedelta(hours=3, minutes=5), "3h5m"),
        (timedelta(hours=47), "47h"),
        (timedelta(hours=50), "2d2h"),
        (timedelta(days=9), "9d"),
        (timedelta(days=729), "729d"),
        (timedelta(days=731), "2y1d"),
        (timedelta(days=3000), "8y"),
        (timedelta(seconds=-30), "<invalid>"),
    ],
)
def test_age_is_written_as_kubernetes_does(age: timedelta, text: str) -> None:
    assert format_age((NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ"), NOW) == text


@pytest.mark.parametrize("since", [None, 5])
def test_age_is_unknown_when_there_is_no_time(since: Any) -> None:
    assert format_age(since, NOW) == "<unknown>"


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda r: r.plural)
def test_every_column_has_a_cell(resource: Any) -> None:
    cells = describe_cells(resource, {"metadata": {"name": "x"}}, NOW)
    assert len(cells) == len(columns_of(resource))


@pytest.mark.parametrize(
    ("resource", "document", "cells"),
    [
        (
            PODS,
            {
                "metadata": {"name": "web"},
                "spec": {"containers": [{}, {}], "nodeName": "vm-1"},
                "status": {"phase": "Running", "containerStatuses": [
                    {"ready": True, "restartCount": 2, "state": {"running": {}}},
                    {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            },
            ["web", "1/2", "CrashLoopBackOff", "2", "<unknown>", "<none>", "vm-1", "<none>",
             "<none>"],
        ),
        (
            PERSISTENT_VOLUMES,
            {
                "metadata": {"name": "pv"},
                "spec": {
                    "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteMany"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "claimRef": {"namespace": "n", "name": "c"}, "volumeMode": "Block"},
                "status": {"phase": "Bound"},
            },
            ["pv", "1Gi", "RWX", "Retain", "Bound", "n/c", "", "<unset>", "", "<unknown>", "Block"],
        ),
        (
            CLAIMS,
            {
                "metadata": {"name": "c", "deletionTimestamp": "x"},
                "spec": {"volumeName": "pv", "storageClassName": "fast"},
                "status": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}},
            },
            ["c", "Terminating", "pv", "1Gi", "RWO", "fast", "<unset>", "<unknown>", "<unset>"],
        ),
        (
            NODES,
            {
                "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": ""}},
                "spec": {"unschedulable": True},
                "status": {"conditions": [{"type": "Ready", "status": "True"}],
                           "nodeInfo": {"kubeletVersion": "v1"}},
            },
            ["n", "Ready,SchedulingDisabled", "worker", "<unknown>", "v1", "<none>", "<none>",
             "<unknown>", "<unknown>", "<unknown>"],
        ),
        (
            EVENTS,
            {
                "metadata": {"name": "e"},
                "involvedObject": {"kind": "Pod", "name": "web"},
                "type": "Warning", "reason": "FailedMount", "message": "no \n",
                "source": {"component": "volagent", "host": "vm-1"}, "count": 3,
                "lastTimestamp": "2023-12-31T23:59:00Z",
            },
            ["60s", "Warning", "FailedMount", "pod/web", "", "volagent, vm-1", "no", "<unknown>",
             3, "e"],
        ),
    ],
)  # fmt: skip
def test_cells_are_those_of_kubernetes(resource: Any, document: Any, cells: list[Any]) -> None:
    assert describe_cells(resource, document, NOW) == cells


async def test_list_is_a_table_when_asked_for(world: World) -> None:
    await world.call("POST", PODS_PATH, make_pod())
    table = (await world.call("GET", PODS_PATH, Accept=TABLE)).json
    assert table["kind"] == "Table"
    assert table["rows"][0]["cells"][:3] == ["web", "0/1", "Pending"]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    whole = (await world.call("GET", f"{PODS_PATH}?includeObject=Object", Accept=TABLE)).json
    assert whole["rows"][0]["object"]["spec"]
    one = (await world.call("GET", f"{PODS_PATH}/web?includeObject=None", Accept=TABLE)).json
    assert "object" not in one["rows"][0]


@pytest.mark.parametrize(
    "accept", ["application/json", f"application/json,{TABLE}", "application/json;as=Other", "*/*"]
)
async def test_list_is_plain_when_no_table_is_asked_for_first(world: World, accept: str) -> None:
    assert (await world.call("GET", PODS_PATH, Accept=accept)).json["kind"] == "PodList"


async def test_only_first_event_of_a_watch_has_columns_when_it_sends_tables(world: World) -> None:
    for name in ("a", "b"):
        await world.call("POST", PODS_PATH, make_pod(name))
    answer = await world.call("GET", f"{PODS_PATH}?watch=1&timeoutSeconds=1", Accept=TABLE)
    first, second = (msgspec.json.decode(line)["object"] for line in answer.body.splitlines())
    assert first["columnDefinitions"][0]["name"] == "Name"
    assert second["columnDefinitions"] is None
    assert [t["rows"][0]["cells"][0] for t in (first, second)] == ["a", "b"]


def test_other_rows_are_shown_when_one_object_is_odd() -> None:
    items = [
        {"metadata": {"name": "a"}, "spec": {"volumeName": "x"}, "status": {"capacity": "odd"}},
        {"metadata": {"name": "b"}, "status": {"phase": "Bound"}},
    ]
    table = table_of(CLAIMS, Listing(items, "1"))
    assert [row["cells"][:2] for row in table["rows"]] == [["a", "<invalid>"], ["b", "Bound"]]
